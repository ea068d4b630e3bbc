"""Rules of operators that join, split or select channels."""

from __future__ import annotations

import numpy as np
import onnx

from lmconv.compaction.rules.rule import (
    Indices,
    Link,
    NoRule,
    Rule,
    RuleFunction,
    channel_count,
    constant_input,
    one_to_one,
    same_channels,
)
from lmconv.compaction.trace import GraphTrace
from lmconv.graph.index import attribute


def _concat(node: onnx.NodeProto, trace: GraphTrace) -> Rule:
    """Rule of a Concat along the channels or an axis behind the channels."""
    rank = trace.values[node.output[0]].ndim
    axis = attribute(node, "axis", 0) % rank
    if axis == 0 or any(name in trace.constants for name in node.input):
        raise NoRule("it joins what has no channels")
    if axis > 1:
        return Rule(node=node, links=[same_channels(trace, node, index) for index in range(len(node.input))])
    links, start = [], 0
    for name in node.input:
        channels = np.arange(channel_count(trace, name))
        links.append(Link(input=name, output=node.output[0], input_channels=channels, output_channels=channels + start))
        start += len(channels)
    return Rule(node=node, links=links)


def _split(node: onnx.NodeProto, trace: GraphTrace) -> Rule:
    """Rule of a Split along the channels."""
    constant_input(trace, node, 1)
    if attribute(node, "axis", 0) % trace.values[node.input[0]].ndim != 1 or not all(node.output):
        raise NoRule("it does not split channels")
    links, start = [], 0
    for name in node.output:
        channels = np.arange(channel_count(trace, name))
        links.append(Link(input=node.input[0], output=name, input_channels=channels + start, output_channels=channels))
        start += len(channels)
    return Rule(node=node, links=links)


def slice_bounds(node: onnx.NodeProto, trace: GraphTrace) -> dict[int, tuple[int, int, int]]:
    """Returns start, end and step of a Slice by axis, unchanged: negative and too large numbers are possible."""
    starts, ends, axes, steps = (constant_input(trace, node, index) for index in (1, 2, 3, 4))
    rank = trace.values[node.input[0]].ndim
    if starts is None or ends is None:
        raise NoRule("what it is told is computed")
    sliced_axes = range(len(starts)) if axes is None else [axis % rank for axis in axes.tolist()]
    step_list = [1] * len(starts) if steps is None else steps.tolist()
    return dict(zip(sliced_axes, zip(starts.tolist(), ends.tolist(), step_list, strict=True), strict=True))


def _slice(node: onnx.NodeProto, trace: GraphTrace) -> Rule:
    """Rule of a Slice that keeps the batch, with a step of 1 along the channels."""
    count = channel_count(trace, node.input[0])
    bounds = slice_bounds(node, trace)
    if 0 in bounds:
        raise NoRule("it cuts the batch")
    if 1 not in bounds:
        return one_to_one(node, trace)
    start, stop, step = slice(*bounds[1]).indices(count)
    if step != 1:
        raise NoRule("its step is not 1")
    return Rule(node=node, links=[_selection(node, np.arange(start, stop))])


def _gather(node: onnx.NodeProto, trace: GraphTrace) -> Rule:
    """Rule of a Gather that selects channels in strictly ascending order."""
    indices = constant_input(trace, node, 1)
    if indices is None or indices.ndim != 1 or attribute(node, "axis", 0) % trace.values[node.input[0]].ndim != 1:
        raise NoRule("it does not choose channels")
    channels = indices.astype(np.intp) % channel_count(trace, node.input[0])
    # OpenVINO 2026.4 computes some permutations of all channels wrongly, so no permutation is written.
    if (np.diff(channels) <= 0).any():
        raise NoRule("it reorders channels")
    return Rule(node=node, links=[_selection(node, channels)])


def _selection(node: onnx.NodeProto, channels: Indices) -> Link:
    """Links the selected input channels, (n,) integers, with the output channels in order."""
    return Link(
        input=node.input[0], output=node.output[0], input_channels=channels, output_channels=np.arange(len(channels))
    )


RULES: dict[str, RuleFunction] = {"Concat": _concat, "Split": _split, "Slice": _slice, "Gather": _gather}
