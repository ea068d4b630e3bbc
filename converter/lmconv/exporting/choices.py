"""User options for building the graph, checked against each other."""

from __future__ import annotations

from lmconv.building.recipe import PLAIN_PASSES
from lmconv.building.request import Choices
from lmconv.errors import UsageError
from lmconv.exporting.request import ExportRequest
from lmconv.plugins import PASSES, TARGETS
from lmconv.store import artifact as artifacts
from lmconv.types import MixedPrecision, Variant


def choices_of(request: ExportRequest, variants: list[Variant]) -> Choices:
    """Returns the options for building the graph.

    Args:
        request: The options of the command.
        variants: The variants to build.

    Raises:
        UsageError: Options contradict each other, or need faces.
        InputError: The artefact of `--recipe` cannot be read.
    """
    for name in request.without:
        step = PASSES.load(name)
        if step.required or name in PLAIN_PASSES:
            raise UsageError(f"--no-{name} would skip a pass that every artefact needs", hint=f"omit --no-{name}")
    for name in ("freeze", "compact"):
        if request.compact_px is not None and name in request.without:
            raise UsageError(f"--compact-px and --no-{name} contradict each other", hint="omit one of the two")
    if request.compact_px is not None:
        request.needs_faces("--compact-px")
    if request.recipe is None:
        targets = {variant.target for variant in variants} if request.exact else set()
        exact = tuple(sorted({name for target in targets for name in TARGETS.load(target).exact.values()}))
        return Choices(without=request.without, compact_px=request.compact_px, cpu=request.cpu, exact=exact)
    return _replayed(request, variants)


def _replayed(request: ExportRequest, variants: list[Variant]) -> Choices:
    """Returns the options that repeat an earlier artefact."""
    assert request.recipe
    if request.without or request.exact or request.compact_px is not None or request.cpu is not None:
        hint = "omit --no-PASS, --exact, --compact-px and --cpu"
        raise UsageError("--recipe already determines the passes, the bound and the kind of CPU", hint=hint)
    recipe = artifacts.read(request.recipe)
    if any((variant.target, variant.precision) != (recipe.target, recipe.precision) for variant in variants):
        hint = f"use --to {recipe.target} --precision {recipe.precision} only"
        raise UsageError(f"{request.recipe} is the recipe of {recipe.target} {recipe.precision}", hint=hint)
    frozen = artifacts.decided(recipe.recipe, "freeze")
    if frozen and request.calibration is None:
        hint = "give --calibration DIR, the faces of the earlier export"
        message = f"{request.recipe} was compacted within a bound on real faces, and no faces are given"
        raise UsageError(message, hint=hint)
    mix = recipe.recipe.get("mix")
    return Choices(
        compact_px=frozen["bound_px"] if frozen else None,
        recipe=recipe,
        mix=MixedPrecision.of(mix) if mix else None,
        pictures=tuple(recipe.recipe["faces"]) if mix else (),
    )
