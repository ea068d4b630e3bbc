"""Rules of convolutions and linear layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lmconv.compaction.rules.rule import (
    Flags,
    Link,
    NoRule,
    Rule,
    RuleFunction,
    WeightedSum,
    channel_count,
    constant_input,
)
from lmconv.compaction.trace import GraphTrace
from lmconv.graph.index import attribute, layer_bias, padded


def _convolution(node: onnx.NodeProto, trace: GraphTrace) -> Rule:
    """Rule of a convolution: links if the convolution is depthwise, else a weighted sum."""
    weight, groups = constant_input(trace, node, 1), attribute(node, "group", 1)
    transposed = node.op_type == "ConvTranspose"
    inputs, outputs = channel_count(trace, node.input[0]), channel_count(trace, node.output[0])
    if weight is None or layer_bias(node, trace.constants, outputs) is None:
        raise NoRule("what it is told is computed")
    if transposed:
        weight = _as_convolution(weight, groups)
    if groups == inputs > 1:  # depthwise
        channels = np.arange(outputs)
        link = Link(
            input=node.input[0],
            output=node.output[0],
            input_channels=channels // (outputs // inputs),
            output_channels=channels,
        )
        zero = (weight == 0).all(axis=tuple(range(1, weight.ndim)))
        return Rule(node=node, links=[link], constant_outputs=np.asarray(zero))
    reason = "transposed convolution" if transposed else "zero padding"
    foldable = not transposed and not padded(node)
    return Rule(node=node, weighted_sum=_weighted_sum(node, weight, groups, foldable=foldable, reason=reason))


def _linear(node: onnx.NodeProto, trace: GraphTrace) -> Rule:
    """Rule of a matrix product with constant weights."""
    weight = constant_input(trace, node, 1)
    if weight is None or weight.ndim != 2 or trace.values[node.input[0]].ndim != 2 or attribute(node, "transA", 0):
        raise NoRule("it does not multiply a matrix by a constant one")
    channel_count(trace, node.input[0])
    if layer_bias(node, trace.constants, channel_count(trace, node.output[0])) is None:
        raise NoRule("what it adds is not one number for each output")
    rows = weight if attribute(node, "transB", 0) else weight.T
    return Rule(node=node, weighted_sum=_weighted_sum(node, rows, foldable=True))


def _weighted_sum(
    node: onnx.NodeProto, weight: NDArray[Any], groups: int = 1, *, foldable: bool, reason: str = ""
) -> WeightedSum:
    """Returns the weighted sum of a layer with weights (outputs, inputs / groups, ...)."""
    connected = np.asarray((weight != 0).any(axis=tuple(range(2, weight.ndim))))
    if groups > 1:
        connected = _block_diagonal(connected, groups)
    return WeightedSum(
        input=node.input[0],
        output=node.output[0],
        weight=weight,
        connected=connected,
        groups=groups,
        foldable=foldable,
        unfoldable_reason=reason,
    )


def _as_convolution(weight: NDArray[Any], groups: int) -> NDArray[Any]:
    """Converts (inputs, outputs / groups, ...) of a transposed convolution to (outputs, inputs / groups, ...)."""
    return np.concatenate([block.swapaxes(0, 1) for block in np.split(weight, groups)])


def _block_diagonal(connected: Flags, groups: int) -> Flags:
    """Converts (outputs, inputs / groups) of a grouped convolution to (outputs, inputs)."""
    outputs, group_inputs = connected.shape
    full = np.zeros((outputs, group_inputs * groups), bool)
    for group in range(groups):
        rows = slice(group * outputs // groups, (group + 1) * outputs // groups)
        full[rows, group * group_inputs : (group + 1) * group_inputs] = connected[rows]
    return full


RULES: dict[str, RuleFunction] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), _convolution),
    **dict.fromkeys(("Gemm", "MatMul"), _linear),
}
