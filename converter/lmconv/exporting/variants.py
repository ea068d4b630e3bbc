"""The requested variants, and the variants that are left out, each with a reason."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from lmconv.building.feasibility import check_network, is_possible
from lmconv.building.recipe import calibrated
from lmconv.console import Console, attempt
from lmconv.errors import MissingRuntime, UsageError
from lmconv.plugins import TARGETS, unknown
from lmconv.sources import resolve as source
from lmconv.types import Json, Precision, Target, Variant

if TYPE_CHECKING:
    from lmconv.exporting.request import ExportRequest


def combinations(request: ExportRequest, batch: int | None) -> tuple[list[Variant], list[Json]]:
    """Combines every target with every precision and input of the request.

    Args:
        request: The options of the command.
        batch: A fixed batch size; None for a free one.

    Returns:
        The variants, and one row for each combination that a target does not have.

    Raises:
        UsageError: A name is unknown, or no requested target has a requested precision or input.
    """
    precisions = {str(precision): precision for precision in Precision}
    for name in request.precisions:
        if name not in precisions:
            raise unknown("precision", name, list(precisions))
    targets: dict[str, Target] = {name: TARGETS.load(name) for name in request.targets}
    pairs: list[tuple[str, Precision]] = []
    skipped: list[Json] = []
    for name in dict.fromkeys(request.precisions):
        capable = [target for target in targets if precisions[name] in targets[target].precisions]
        if not capable:
            hint = "`lmconv doctor` lists the precisions of each target"
            raise UsageError(f"{' and '.join(targets)} cannot be built in {name}", hint=hint)
        pairs += [(target, precisions[name]) for target in capable]
        reason = f"the target has no {name}"
        skipped += [{"target": t, "precision": name, "reason": reason} for t in targets if t not in capable]
    variants: list[Variant] = []
    for io in dict.fromkeys(request.ios):
        possible = [(t, p) for t, p in pairs if is_possible(targets[t], p, io)]
        if not possible:
            names = " and ".join(f"{target} {precision}" for target, precision in pairs)
            raise UsageError(f"{names} cannot be built with --io {io}", hint="see docs/io.md")
        variants += [Variant(target=t, precision=p, io=io, batch=batch) for t, p in possible]
        skipped += [
            {"target": t, "precision": str(p), "io": io, "reason": f"the variant has no --io {io}"}
            for t, p in pairs
            if (t, p) not in possible
        ]
    return variants, skipped


def per_network(
    models: tuple[str, ...], variants: list[Variant], size: tuple[int, int] | None, *, everything: bool
) -> tuple[dict[str, list[Variant]], list[Json]]:
    """Returns the variants of each network.

    Args:
        models: Names of the networks.
        variants: The requested variants.
        size: (height, width) in `--input`, pixels; None if not given.
        everything: True for `--all`. A variant that a network does not have is then left out, not an error.

    Returns:
        The variants by network, and one row for each variant that is left out.

    Raises:
        UsageError: A network that the user named does not have a variant.
    """
    possible = {model: list(variants) for model in models}
    skipped: list[Json] = []
    for model in models:
        if (spec := source.spec_of(model, size)) is None:
            continue
        for variant in variants:
            try:
                check_network(spec, TARGETS.load(variant.target), variant)
            except UsageError as error:
                if not everything:
                    raise
                possible[model].remove(variant)
                row = {"model": model, "target": variant.target, "precision": str(variant.precision), "io": variant.io}
                skipped.append({**row, "reason": error.message})
    return possible, skipped


def missing_targets(console: Console, variants: list[Variant], errors: list[Json]) -> list[str]:
    """Returns the targets whose runtime is not installed, and adds an error for each."""

    def require(target: str) -> None:
        if instruction := TARGETS.load(target).requires():
            raise MissingRuntime(f"target {target} cannot be built here", hint=instruction)

    before = len(errors)
    for target in dict.fromkeys(variant.target for variant in variants):
        attempt(console, functools.partial(require, target), errors, target=target)
    return [error["target"] for error in errors[before:]]


def check_faces(request: ExportRequest, variants: list[Variant]) -> None:
    """Refuses a precision that needs faces if the user gave no faces.

    Raises:
        UsageError: `--calibration` is missing.
    """
    precisions = [variant.precision for variant in variants if calibrated(variant.precision)]
    if precisions and request.calibration is None:
        hint = "give --calibration DIR, a folder of annotated training faces"
        raise UsageError(f"{precisions[0]} is calibrated on real faces, and no faces are given", hint=hint)
