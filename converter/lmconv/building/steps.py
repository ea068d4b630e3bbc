"""Runs the passes of a recipe on the plain graph, each prefix of passes once for all variants that share the prefix."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lmconv.building.optimise import Optimised, optimise
from lmconv.building.trial import raced
from lmconv.console import phase
from lmconv.graph.facts import copied
from lmconv.plugins import PASSES
from lmconv.store.files import canonical
from lmconv.types import Float64, Pass, PassContext, Precision, Target

if TYPE_CHECKING:
    import onnx

    from lmconv.building.recipe import Recipe
    from lmconv.building.request import Conversion

INT8_CHANNELS = 4
"""Number of channels that one int8 instruction multiplies and adds (VNNI, SDOT, DP4A): no fewer are ever faster."""
ROUGH_CROPS = 4
"""Number of crops for calibrating int8 graphs of which only the speed matters."""


def steps(conversion: Conversion, target: Target, recipe: Recipe) -> Iterator[Optimised]:
    """Yields the plain graph, then the result of each pass of a recipe. No pass runs on the same graph twice.

    Args:
        conversion: The network, its options and the cache of intermediate graphs.
        target: The target that runs the graph.
        recipe: The passes.
    """
    base, cache = conversion.base, conversion.cache
    current = Optimised(model=base.model, recipe=base.artifact.recipe["passes"], measured={}, warnings=[], outputs={})
    yield current
    for name in recipe.passes:
        step = PASSES.load(name)
        timed = form(recipe, step, target)
        crops = conversion.crops is not None  # every pass is compared on the crops
        # The cache keeps every graph: no other graph can have the same id.
        key = (id(current.model), crops, name, *_inputs_of(step, conversion, target, recipe, timed))
        if key not in cache.optimised:
            context = _context(conversion, target, recipe, name, timed)
            cache.optimised[key] = optimise(current.model, [name], context, current.outputs or None)
        after = cache.optimised[key]
        current = replace(
            after,
            recipe=[*current.recipe, *after.recipe],
            measured=current.measured | after.measured,
            warnings=[*current.warnings, *after.warnings],
        )
        yield current


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Form of the graphs that a pass times.

    Attributes:
        later: Passes that run on a graph before it is timed.
        floats: Precision of the float layers.
        multiples: Multiples of channels.
    """

    later: tuple[str, ...]
    floats: Precision
    multiples: tuple[int, ...]


def form(recipe: Recipe, step: Pass, target: Target) -> Timed:
    """Returns the form of the graphs that a pass of a recipe times on a target."""
    later = recipe.timed[recipe.timed.index(step.name) + 1 :] if step.name in recipe.timed else ()
    multiples, hint = target.channels, recipe.hint
    if recipe.quantised and step.in_float:
        later, hint = tuple(name for name in later if not PASSES.load(name).calibrated), Precision.BF16
    elif recipe.quantised:
        multiples = tuple(multiple for multiple in multiples if multiple % INT8_CHANNELS == 0) or multiples
    return Timed(later=later, floats=target.floats(hint), multiples=multiples)


def _inputs_of(step: Pass, conversion: Conversion, target: Target, recipe: Recipe, timed: Timed) -> tuple[object, ...]:
    """Everything on which the result of a pass depends besides the graph: one hashable value per field in `uses`."""
    available = {
        "crops": conversion.crops,
        "scheme": recipe.scheme,
        "measure": (target.name, timed.later, timed.floats) if target.requires() is None else None,
        "compact_px": conversion.choices.compact_px,
        "replay": canonical(recipe.decided(step.name)),
        "settings": canonical(recipe.settings),
        "channels": timed.multiples,
    }
    return tuple(available[field] for field in step.uses)


def _context(conversion: Conversion, target: Target, recipe: Recipe, name: str, timed: Timed) -> PassContext:
    here = target.requires() is None and recipe.mix is None  # the search for a mix has decided everything
    return PassContext(
        spec=conversion.base.artifact.spec,
        crops=conversion.crops() if conversion.crops else None,
        scheme=recipe.scheme,
        measure=functools.partial(_timed_after, conversion, target, recipe, timed) if here else None,
        compact_px=conversion.choices.compact_px,
        replay=recipe.decided(name),
        settings=dict(recipe.settings),
        channels=timed.multiples,
        memo=conversion.cache.memo,
    )


def _timed_after(
    conversion: Conversion, target: Target, recipe: Recipe, timed: Timed, models: Sequence[onnx.ModelProto]
) -> list[Float64]:
    """Times graphs after the later passes of the recipe, as `raced` does; int8 scales are rough.

    The guard of export needs the time of the parent, which therefore takes part too: the plain graph in fp32, the fp32
    graphs that are built already in int8.
    """
    lowered = [_lowered(conversion, recipe, timed, model) for model in models]
    parents: list[onnx.ModelProto] = []
    if recipe.quantised and any(PASSES.load(name).calibrated for name in timed.later):
        built = conversion.cache.graphs.items()
        parents = [model for (name, precision, _), model in built if (name, precision) == (target.name, Precision.FP32)]
    elif not recipe.quantised and timed.floats == Precision.FP32:
        parents = [conversion.base.model]
    with phase(f"timing {len(lowered)} graphs"):
        timings, artifact = conversion.cache.timings, conversion.base.artifact
        return raced(timings, artifact, target, [*lowered, *parents], timed.floats)[: len(lowered)]


def _lowered(conversion: Conversion, recipe: Recipe, timed: Timed, model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a graph after the later passes, computed once; int8 scales are rough."""
    digest = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    place, memo = ("lowered", digest, timed.later, recipe.scheme), conversion.cache.memo
    if place not in memo:
        context = PassContext(
            spec=conversion.base.artifact.spec,
            crops=conversion.crops() if conversion.crops else None,
            scheme=recipe.scheme,
            settings={"crops": ROUGH_CROPS, "rough": True},
        )
        for name in timed.later:
            with contextlib.suppress(Exception):  # a pass that fails on a graph will be left out
                model, _ = PASSES.load(name).apply(copied(model), context)
        memo[place] = model
    lowered: onnx.ModelProto = memo[place]
    return lowered
