"""Runs the passes of a recipe on the plain graph, each prefix of passes once for all variants that share the prefix."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lmconv.building.optimise import Optimised, optimise
from lmconv.building.trial import timed
from lmconv.graph.facts import copied
from lmconv.plugins import PASSES
from lmconv.store.files import canonical
from lmconv.types import Float64, Pass, PassContext, Target

if TYPE_CHECKING:
    import onnx

    from lmconv.building.recipe import Recipe
    from lmconv.building.request import Conversion

ROUGH_CROPS = 4
"""Number of crops for calibrating int8 graphs of which only the speed matters."""


def steps(conversion: Conversion, target: Target, recipe: Recipe) -> Iterator[Optimised]:
    """Yields the plain graph, then the result of each pass of a recipe.

    Args:
        conversion: The network, its options and the cache of intermediate graphs.
        target: The target that runs the graph.
        recipe: The passes.
    """
    base, cache = conversion.base, conversion.cache
    current = Optimised(model=base.model, recipe=base.artifact.recipe["passes"], measured={}, warnings=[], outputs={})
    yield current
    key: tuple[object, ...] = (conversion.crops is not None,)  # every pass is compared on the crops
    for index, name in enumerate(recipe.passes):
        later = _lookahead(recipe, index)
        step = PASSES.load(name)
        key = (*key, name, *_inputs_of(step, conversion, target, recipe, later))
        if key not in cache.optimised:
            context = _context(conversion, target, recipe, name, later)
            after = optimise(current.model, [name], context, current.outputs or None)
            cache.optimised[key] = replace(
                after,
                recipe=[*current.recipe, *after.recipe],
                measured=current.measured | after.measured,
                warnings=[*current.warnings, *after.warnings],
            )
        current = cache.optimised[key]
        yield current


def _lookahead(recipe: Recipe, index: int) -> tuple[str, ...]:
    """Passes after the given one that change the speed of a graph."""
    return tuple(name for name in recipe.passes[index + 1 :] if name != "float16" and recipe.lookahead)


def _inputs_of(
    step: Pass, conversion: Conversion, target: Target, recipe: Recipe, later: tuple[str, ...]
) -> tuple[object, ...]:
    """Everything on which the result of a pass depends besides the graph: one hashable value per field in `uses`."""
    available = {
        "crops": conversion.crops,
        "scheme": recipe.scheme,
        "measure": (target.name, later) if target.requires() is None else None,
        "compact_px": conversion.choices.compact_px,
        "replay": canonical(recipe.decided(step.name)),
        "settings": canonical(recipe.settings),
        "channels": target.channels,
    }
    return tuple(available[field] for field in step.uses)


def _context(conversion: Conversion, target: Target, recipe: Recipe, name: str, later: tuple[str, ...]) -> PassContext:
    here = target.requires() is None
    return PassContext(
        spec=conversion.base.artifact.spec,
        crops=conversion.crops() if conversion.crops else None,
        scheme=recipe.scheme,
        measure=functools.partial(_timed_after, conversion, target, recipe, later) if here else None,
        compact_px=conversion.choices.compact_px,
        replay=recipe.decided(name),
        settings=dict(recipe.settings),
        channels=target.channels,
    )


def _timed_after(
    conversion: Conversion, target: Target, recipe: Recipe, later: tuple[str, ...], models: Sequence[onnx.ModelProto]
) -> list[Float64]:
    """Times graphs after the later passes of the recipe, as `timed` does; int8 scales are rough."""
    artifact = conversion.base.artifact
    context = PassContext(
        spec=artifact.spec,
        crops=conversion.crops() if conversion.crops else None,
        scheme=recipe.scheme,
        settings={"crops": ROUGH_CROPS, "rough": True},
    )
    lowered = []
    for model in models:
        for name in later:
            with contextlib.suppress(Exception):  # a pass that fails on a graph will be left out
                model, _ = PASSES.load(name).apply(copied(model), context)
        lowered.append(model)
    return timed(artifact, target, lowered)
