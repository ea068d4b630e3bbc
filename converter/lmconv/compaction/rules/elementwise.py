"""Rules of operators that compute each channel from the same channel of every input."""

from __future__ import annotations

import numpy as np
import onnx

from lmconv.compaction.rules.rule import (
    NoRule,
    Rule,
    RuleFunction,
    channel_count,
    constant_input,
    one_to_one,
    same_channels,
)
from lmconv.compaction.trace import GraphTrace

ONE_INPUT = """Abs AveragePool Cast Ceil Celu Dropout Elu Erf Exp Floor Gelu GlobalAveragePool GlobalLpPool
GlobalMaxPool HardSigmoid HardSwish Identity LeakyRelu Log LpPool MaxPool Mish Neg Reciprocal Relu Round Selu Sigmoid
Sign Softplus Softsign Sqrt Tanh ThresholdedRelu"""
"""Activations and poolings."""
ELEMENTWISE = ("Add", "Clip", "Div", "Max", "Mean", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum", "Where")
"""Operators with several inputs, which are broadcast to one shape."""


def _elementwise(node: onnx.NodeProto, trace: GraphTrace) -> Rule:
    """Rule of an elementwise operator with any number of broadcast inputs."""
    out = node.output[0]
    count, rank = channel_count(trace, out), trace.values[out].ndim
    links, broadcast_inputs, channel_constants = [], [], []
    zero = np.zeros(count, bool)
    for index, name in enumerate(node.input):
        if name in trace.constants:
            constant = trace.constants[name]
            axis = 1 - (rank - constant.ndim)
            if constant.ndim == rank and constant.shape[0] != 1:
                raise NoRule("a constant with a batch axis")
            if axis >= 0 and constant.shape[axis] == count > 1:
                channel_constants.append((index, axis))
                zero |= (constant == 0).all(axis=tuple(i for i in range(constant.ndim) if i != axis))
            else:
                zero |= bool((constant == 0).all())
        elif name:
            if trace.values[name].ndim != rank or trace.channel_count(name) not in (1, count):
                raise NoRule("it broadcasts over channels")
            if trace.channel_count(name) == count:
                links.append(same_channels(trace, node, index))
            else:
                broadcast_inputs.append(name)
    if not links:
        raise NoRule("it broadcasts over channels")
    is_product = node.op_type == "Mul"
    return Rule(
        node=node,
        links=links,
        broadcast_inputs=broadcast_inputs,
        channel_constants=channel_constants,
        constant_outputs=zero if is_product else None,
        zero_absorbing=is_product,
    )


def _normalisation(node: onnx.NodeProto, trace: GraphTrace) -> Rule:
    """Rule of a normalisation with one scale and one shift per channel."""
    if any(node.output[1:]):
        raise NoRule("in training mode")
    channel_constants = [(index, 0) for index in range(1, len(node.input))]
    scale = constant_input(trace, node, 1)
    return Rule(
        node=node,
        links=[same_channels(trace, node)],
        channel_constants=channel_constants,
        constant_outputs=np.asarray(scale == 0),
    )


RULES: dict[str, RuleFunction] = {
    **dict.fromkeys(ONE_INPUT.split(), one_to_one),
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), _normalisation),
}
