"""Rules of operators that change the shape of a value or read the shape."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx

from lmconv.compaction.rules.rule import Link, NoRule, Rule, RuleFunction, channel_count, constant_input, one_to_one
from lmconv.compaction.rules.spatial import axes_of
from lmconv.compaction.trace import GraphTrace
from lmconv.graph.index import attribute, reads


def _squeeze(node: onnx.NodeProto, trace: GraphTrace) -> Rule:
    """Rule of Squeeze and Unsqueeze of axes behind the channels."""
    rank = max(trace.values[node.input[0]].ndim, trace.values[node.output[0]].ndim)
    if min(axes_of(node, trace, rank)) < 2:
        raise NoRule("it moves the channels")
    return one_to_one(node, trace)


def _transpose(node: onnx.NodeProto, trace: GraphTrace) -> Rule:
    """Rule of a Transpose that leaves batch and channels in place."""
    if list(attribute(node, "perm", []))[:2] != [0, 1]:
        raise NoRule("it moves the channels")
    return one_to_one(node, trace)


def _reshape(node: onnx.NodeProto, trace: GraphTrace) -> Rule:
    """Rule of a reshape that splits channels into equal parts or joins channels; the axes behind may change freely."""
    before, after = trace.values[node.input[0]].shape, trace.values[node.output[0]].shape
    inputs, outputs = channel_count(trace, node.input[0]), channel_count(trace, node.output[0])
    if node.op_type == "Reshape":
        shape = constant_input(trace, node, 1)
        assert shape is not None
        if shape[0] not in (0, -1) and shape[0] != trace.batch:
            raise NoRule("it moves the batch")
    larger, smaller = max(inputs, outputs), min(inputs, outputs)
    if prod(before[1:]) != prod(after[1:]) or larger % smaller:
        raise NoRule("it mixes channels")
    parts = np.arange(larger)
    whole = parts // (larger // smaller)
    input_channels, output_channels = (whole, parts) if outputs > inputs else (parts, whole)
    link = Link(
        input=node.input[0], output=node.output[0], input_channels=input_channels, output_channels=output_channels
    )
    return Rule(node=node, links=[link])


def _shape(node: onnx.NodeProto, trace: GraphTrace) -> Rule:
    """Rule of a Shape of which only the batch size is read; the channels may then change."""
    start, end = attribute(node, "start", 0), attribute(node, "end", None)
    consumers = [consumer for consumer in trace.nodes if node.output[0] in reads(consumer)]
    reads_batch_only = all(
        consumer.op_type == "Gather"
        and consumer.input[1] in trace.constants
        and not trace.constants[consumer.input[1]].any()
        and consumer.input[0] == node.output[0]
        for consumer in consumers
    )
    is_output = node.output[0] in trace.outputs
    if (start, end) == (0, 1) or (start == 0 and consumers and reads_batch_only and not is_output):
        return Rule(node=node)
    raise NoRule("it counts channels")


RULES: dict[str, RuleFunction] = {
    **dict.fromkeys(("Squeeze", "Unsqueeze"), _squeeze),
    **dict.fromkeys(("Reshape", "Flatten"), _reshape),
    "Transpose": _transpose,
    "Shape": _shape,
}
