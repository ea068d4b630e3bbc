"""Finds the channels that do not depend on the input of the network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmconv.compaction.rules.rule import Flags, Rule
from lmconv.compaction.trace import COUNTING, RANDOM, GraphTrace
from lmconv.graph.index import reads

SPREAD = 1e-6
"""Largest spread over the positions of a channel at which one number represents the channel, as a fraction of its mean.

The spread allows for float32 rounding.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConstantChannels:
    """Channels that do not depend on the input of the network.

    Attributes:
        fixed: (channels,) bool by value: True for channels that are the same for every input.
        uniform: (channels,) bool by value: True for fixed channels that are also the same at every position.
        numbers: (channels,) float64 by value: the constant of each uniform channel.
    """

    fixed: dict[str, Flags]
    uniform: dict[str, Flags]
    numbers: dict[str, NDArray[np.float64]]


def constant_channels(trace: GraphTrace, rules: list[Rule]) -> ConstantChannels:
    """Finds constant channels from the inputs to the outputs of the graph.

    A channel is constant if everything that the channel is computed from is constant. The values of the run are not
    evidence; the run only supplies the number of a constant channel.
    """
    constants = ConstantChannels(fixed={}, uniform={}, numbers={})
    without_channels: set[str] = set()  # values that have no channels and do not depend on the input
    for name in trace.inputs:
        _record(constants, trace, name, np.zeros(trace.channel_count(name) or 0, bool))
    for rule in rules:
        inputs_constant = rule.node.op_type not in (*RANDOM, *COUNTING) and all(
            name in trace.constants
            or name in without_channels
            or (name in constants.fixed and constants.fixed[name].all())
            for name in reads(rule.node)
        )
        for name in rule.node.output:
            count = trace.channel_count(name)
            if count is None:
                without_channels |= {name} if inputs_constant else set()
            else:
                fixed = _fixed_channels(rule, name, count, constants, inputs_constant=inputs_constant)
                _record(constants, trace, name, fixed)
    return constants


def _fixed_channels(rule: Rule, name: str, count: int, constants: ConstantChannels, *, inputs_constant: bool) -> Flags:
    """Returns (channels,) bool: the channels of one output of a node that do not depend on the network input."""
    if rule.weighted_sum:
        return np.asarray(~(rule.weighted_sum.connected & ~constants.fixed[rule.weighted_sum.input]).any(axis=1))
    if rule.keep_all_reason or not rule.links:
        return np.full(count, inputs_constant)
    fixed = np.ones(count, bool)
    zero = np.zeros(count, bool)
    for link in rule.links:
        if link.output == name:
            np.logical_and.at(fixed, link.output_channels, constants.fixed[link.input][link.input_channels])
            if rule.zero_absorbing:
                zero_inputs = constants.uniform[link.input] & (constants.numbers[link.input] == 0)
                np.logical_or.at(zero, link.output_channels, zero_inputs[link.input_channels])
    for broadcast in rule.broadcast_inputs:
        fixed &= constants.fixed[broadcast].all()
    return fixed | zero | (False if rule.constant_outputs is None else rule.constant_outputs)


def _record(constants: ConstantChannels, trace: GraphTrace, name: str, fixed: Flags) -> None:
    """Records which channels of a value are fixed and uniform, and reads the numbers from the run."""
    value = trace.values[name]
    numbers = np.zeros(len(fixed))
    uniform = np.zeros(len(fixed), bool)
    channels = np.flatnonzero(fixed)
    if len(channels) and np.issubdtype(value.dtype, np.floating):
        flat = value[:, channels].reshape(len(value), len(channels), -1).astype(np.float64)
        finite = np.isfinite(flat).all(axis=(0, 2))
        flat[:, ~finite] = 0
        numbers[channels] = flat.mean(axis=(0, 2))
        uniform[channels] = finite & (np.ptp(flat, axis=(0, 2)) <= SPREAD * np.abs(numbers[channels]))
    constants.fixed[name], constants.uniform[name], constants.numbers[name] = fixed, uniform, numbers
