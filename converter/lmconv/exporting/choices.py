"""User options for building the graph, checked against each other."""

from __future__ import annotations

from lmconv.building.recipe import PLAIN_PASSES
from lmconv.building.request import Choices
from lmconv.errors import UsageError, listed
from lmconv.exporting.request import ExportRequest
from lmconv.plugins import PASSES, TARGETS
from lmconv.store import artifact as artifacts
from lmconv.types import Artifact, Variant


def choices_of(request: ExportRequest, variants: list[Variant], recipes: tuple[Artifact, ...]) -> Choices:
    """Returns the options for building the graph that all networks and variants share.

    Args:
        request: The options of the command.
        variants: The variants to build.
        recipes: The artefacts of `--recipe`.

    Raises:
        UsageError: Options contradict each other, or need faces.
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
    if recipes:
        return Choices(compact_px=_bound(request, recipes))
    targets = {variant.target for variant in variants} if request.exact else set()
    exact = tuple(sorted({name for target in targets for name in TARGETS.load(target).exact.values()}))
    return Choices(without=request.without, compact_px=request.compact_px, cpu=request.cpu, exact=exact)


def recipes_of(request: ExportRequest, variants: list[Variant]) -> tuple[Artifact, ...]:
    """Returns the artefacts of `--recipe` that have a requested target and precision.

    Raises:
        UsageError: An option contradicts `--recipe`, or no artefact fits a variant.
        InputError: An artefact cannot be read.
    """
    if not request.recipes:
        return ()
    if request.without or request.exact or request.compact_px is not None or request.cpu is not None:
        hint = "omit --no-PASS, --exact, --compact-px and --cpu"
        raise UsageError("--recipe already determines the passes, the bound and the kind of CPU", hint=hint)
    found = [artifacts.read(path) for path in artifacts.below(request.recipes)]
    kinds = dict.fromkeys(f"{recipe.target} {recipe.precision}" for recipe in found)
    wanted = dict.fromkeys(f"{variant.target} {variant.precision}" for variant in variants)
    for kind in wanted:
        if kind not in kinds:
            message = f"--recipe has no artefact of {kind}: {listed(map(str, request.recipes))} has {listed(kinds)}"
            raise UsageError(message, hint="ask with --to and --precision for the artefacts of --recipe only")
    return tuple(recipe for recipe in found if f"{recipe.target} {recipe.precision}" in wanted)


def _bound(request: ExportRequest, recipes: tuple[Artifact, ...]) -> float | None:
    """Returns the bound of compaction that all recipes share, pixels of the input; None without a bound."""
    frozen = [artifacts.decided(recipe.recipe, "freeze") for recipe in recipes]
    bounds: dict[float | None, Artifact] = {
        each["bound_px"] if each else None: recipe for each, recipe in zip(frozen, recipes, strict=True)
    }
    bounded = next((recipe for bound, recipe in bounds.items() if bound), None)
    if bounded and request.calibration is None:
        hint = "give --calibration DIR, the faces of the earlier export"
        message = f"{bounded.path} was compacted within a bound on real faces, and no faces are given"
        raise UsageError(message, hint=hint)
    if len(bounds) > 1:
        paths = listed(str(recipe.path) for recipe in bounds.values())
        raise UsageError(f"{paths} have different bounds of --compact-px", hint="repeat one after the other")
    return next(iter(bounds))
