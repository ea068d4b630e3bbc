"""A rule: dependencies between the channels of a node's outputs and the channels of its inputs.

A channel is an index on axis 1 of a value whose axis 0 is the batch. The modules of this package hold one function per
kind of operator, which returns the rule of a node or raises `NoRule`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from lmconv.compaction.trace import GraphTrace

Indices: TypeAlias = NDArray[np.intp]
Flags: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Link:
    """Linked channels of an input and an output. Two linked channels stay together or are removed together.

    Attributes:
        input: Name of the input.
        output: Name of the output.
        input_channels: (n,) intp.
        output_channels: (n,) intp: `output_channels[i]` is computed from `input_channels[i]`.
    """

    input: str
    output: str
    input_channels: Indices
    output_channels: Indices


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightedSum:
    """A convolution or linear layer: output channels are weighted sums over input channels.

    Attributes:
        input: Name of the input.
        output: Name of the output.
        weight: (outputs, inputs / groups, ...) floating point, weights.
        connected: (outputs, inputs) bool, True if an input channel has a non-zero weight for an output channel.
        foldable: True if an input channel that is the same at every position adds a constant to each output channel.
        unfoldable_reason: Reason if `foldable` is False.
        groups: Number of groups of equal size into which inputs and outputs are divided. All channels of a group stay
            together or are removed together.
    """

    input: str
    output: str
    weight: NDArray[Any]
    connected: Flags
    foldable: bool
    unfoldable_reason: str = ""
    groups: int = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rule:
    """Effect of a node on channels.

    Attributes:
        node: The node.
        links: Input and output channels that stay or go together.
        weighted_sum: Given if the node is a convolution, except depthwise, or a linear layer.
        broadcast_inputs: Names of inputs with one channel, which every output channel reads.
        channel_constants: Constant inputs with an entry per output channel, as (index of the input, axis).
        constant_outputs: (channels,) bool, output channels that are constant for any input; None if unknown.
        zero_absorbing: True if a zero input channel makes the output channel zero.
        keep_all_reason: Reason why the node needs all its channels; empty if the node does not.
    """

    node: onnx.NodeProto
    links: list[Link] = field(default_factory=list)
    weighted_sum: WeightedSum | None = None
    broadcast_inputs: list[str] = field(default_factory=list)
    channel_constants: list[tuple[int, int]] = field(default_factory=list)
    constant_outputs: Flags | None = None
    zero_absorbing: bool = False
    keep_all_reason: str = ""


RuleFunction: TypeAlias = Callable[[onnx.NodeProto, GraphTrace], Rule]
"""Function that returns the rule of a node; raises `NoRule` if the function does not fit the node."""


class NoRule(Exception):
    """No rule fits a node; the message says why and becomes part of the recipe."""


def channel_count(trace: GraphTrace, name: str) -> int:
    """Returns the number of channels of a value.

    Raises:
        NoRule: The value has no channels.
    """
    count = trace.channel_count(name)
    if count is None:
        raise NoRule("a value without channels")
    return count


def constant_input(trace: GraphTrace, node: onnx.NodeProto, index: int) -> NDArray[Any] | None:
    """Returns a constant input; None if the node omits this input.

    Raises:
        NoRule: The input is computed.
    """
    if len(node.input) <= index or not node.input[index]:
        return None
    if node.input[index] not in trace.constants:
        raise NoRule("what it is told is computed")
    return trace.constants[node.input[index]]


def same_channels(trace: GraphTrace, node: onnx.NodeProto, index: int = 0) -> Link:
    """Links each channel of the first output with the channel of the same number of the input `index`.

    Raises:
        NoRule: The numbers of channels differ.
    """
    count = channel_count(trace, node.output[0])
    if channel_count(trace, node.input[index]) != count:
        raise NoRule("the number of channels changes")
    channels = np.arange(count)
    return Link(input=node.input[index], output=node.output[0], input_channels=channels, output_channels=channels)


def one_to_one(node: onnx.NodeProto, trace: GraphTrace) -> Rule:
    """Rule of an operator with one input and one output that keeps each channel separate."""
    if any(node.output[1:]):
        raise NoRule("it gives more than one value")
    if node.op_type == "Dropout" and constant_input(trace, node, 2) is not None:
        raise NoRule("in training mode")
    return Rule(node=node, links=[same_channels(trace, node)])
