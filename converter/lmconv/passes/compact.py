"""Removes channels without effect, together with all coupled channels. Exact up to reassociation.

Some runtimes are faster with more channels than necessary. If layers would lose channels, the pass therefore times
several graphs on the target, in the precision of the variant: in each, the layers keep a multiple of a number that the
target names. The pass takes the fastest graph, or the smallest of several equally fast graphs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx

from lmconv.compaction.compact import Compacted
from lmconv.compaction.compact import compact as without_dead_channels
from lmconv.inference.latency import faster
from lmconv.types import Float64, Json, Pass, PassContext

NOISE = 0.03
"""Relative difference below which two times count as equal; the graph with fewer channels is then better."""
SLOWER = 0.05
"""Relative difference to the fastest graph above which no larger multiple is tried."""
FIRST = 16
"""Largest multiple that is timed together with all smaller ones; the larger ones follow one by one."""


def compact(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Compacts a float graph. A replay uses the multiple of the earlier run instead of timing graphs."""
    digest = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()

    def compacted(multiple: int) -> Compacted:
        place = ("compact", digest, multiple)
        if place not in context.memo:
            context.memo[place] = without_dead_channels(model, multiple=multiple, size=context.spec.input_size)
        made: Compacted = context.memo[place]
        return made

    if context.replay:
        multiple = int(context.replay["multiple"])
        return _decided(multiple, compacted(multiple), {})
    fewest, measure = context.channels[0], context.measure
    if measure is None or compacted(fewest).model == model:
        return _decided(fewest, compacted(fewest), {})
    best, gains = _fastest(context.channels, lambda multiples: measure([compacted(each).model for each in multiples]))
    return _decided(best, compacted(best), {"measured": {f"faster than multiple {fewest}": gains}})


def _fastest(
    multiples: Sequence[int], measure: Callable[[Sequence[int]], Sequence[Float64]]
) -> tuple[int, Mapping[str, Json]]:
    """Finds the fastest multiple: the first few are timed together, then each larger one while larger ones are fast.

    Returns:
        The multiple, and the speed-up of every other tried multiple over the first.
    """
    fewest, gains = multiples[0], dict[str, Json]()
    tried = [multiple for multiple in multiples if multiple <= FIRST]
    larger = [multiple for multiple in multiples if multiple > FIRST]
    while True:
        times = dict(zip(tried, measure(tried), strict=True))
        leader = min(times.values(), key=np.nanmedian)  # has all rounds: a loser of the first rounds has few pairs
        fastest = max(times.values(), key=lambda own: faster(leader, own).median)
        best = next(multiple for multiple in tried if faster(times[multiple], fastest).median < 1 + NOISE)
        gains |= {str(each): faster(times[fewest], times[each]).to_json() for each in tried[1:]}
        if not larger or faster(times[tried[-1]], fastest).median > 1 + SLOWER:
            return best, gains
        tried = [*dict.fromkeys((fewest, best, larger.pop(0)))]


def _decided(multiple: int, compacted: Compacted, figures: Json) -> tuple[onnx.ModelProto, Json]:
    """Returns the graph and the decisions for the recipe."""
    layers = [layer.to_json() for layer in compacted.layers]
    return compacted.model, {"multiple": multiple, "layers": layers, "whole": dict(compacted.whole), **figures}


plugin = Pass(
    name="compact",
    summary="channels that never change or that nothing reads, removed with all coupled channels",
    apply=compact,
    tolerance=1e-6,
    uses=("measure", "replay", "channels"),
)
