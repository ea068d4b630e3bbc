"""Removes channels without effect, together with all coupled channels. Exact up to reassociation.

Some runtimes are faster with more channels than necessary. If layers would lose channels, the pass therefore times
several graphs on the target: in each, the layers keep a multiple of a number that the target names. The pass takes the
fastest graph, or the smallest of several equally fast graphs.
"""

from __future__ import annotations

import functools

import onnx

from lmconv.compaction.compact import Compacted
from lmconv.compaction.compact import compact as without_dead_channels
from lmconv.inference.latency import faster
from lmconv.types import Json, Pass, PassContext

NOISE = 0.05
"""Relative difference below which two speed-ups count as equal; the graph with fewer channels is then better."""


def compact(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Compacts a float graph. A replay uses the multiple of the earlier run instead of timing graphs."""
    compacted = functools.partial(without_dead_channels, model, size=context.spec.input_size)
    if context.replay:
        multiple = int(context.replay["multiple"])
        return _decided(multiple, compacted(multiple=multiple), {})
    fewest, *others = context.channels
    smallest = compacted(multiple=fewest)
    if smallest.model is model or context.measure is None:
        return _decided(fewest, smallest, {})
    candidates = {fewest: smallest} | {multiple: compacted(multiple=multiple) for multiple in others}
    times = context.measure([candidate.model for candidate in candidates.values()])
    gains = {multiple: faster(times[0], own) for multiple, own in zip(candidates, times, strict=True)}
    fastest = max(gain.median for gain in gains.values())
    best = next(multiple for multiple, gain in gains.items() if gain.median > fastest * (1 - NOISE))
    figures = {str(multiple): gain.to_json() for multiple, gain in gains.items() if multiple != fewest}
    return _decided(best, candidates[best], {"measured": {f"faster than multiple {fewest}": figures}})


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
