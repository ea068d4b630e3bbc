"""Decides which channels must stay.

A channel can be removed if no remaining node reads the channel. A channel that never changes can also be removed if all
its readers can fold its constant into a bias. Linked channels stay together or are removed together: a channel of a sum
is removed only if no producer of the sum must keep the channel. Remaining channels keep their values: no operator reads
other numbers than before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from lmconv.compaction.constants import ConstantChannels, constant_channels
from lmconv.compaction.rules.elementwise import ELEMENTWISE
from lmconv.compaction.rules.registry import rule_for
from lmconv.compaction.rules.rule import Flags, Indices, Rule
from lmconv.compaction.trace import GraphTrace
from lmconv.graph.index import reads

# Reasons why channels stay. The pass `compact` writes these texts to the recipe.
LIVE = "read"
OUTPUT = "an output of the network"
INPUT = "an input of the network"
LAST = "the last channel of its layer"
MULTIPLE = "kept for the width that is faster"
BLOCK = "a group of a convolution goes whole"
TIED = "tied to a live channel"
PLACES = "constant, but not the same at every place"


@dataclass(slots=True, kw_only=True, eq=False)
class Liveness:
    """Channels that must stay, and why.

    Attributes:
        trace: The graph and the values of one run.
        rules: Rule of each node, in graph order.
        constants: Channels that never change.
        classes: (channels,) intp by value: class of each channel. The channels of one class stay together or are
            removed together.
        kept_classes: (classes,) bool: True for classes that stay.
        reasons: (classes,) bool by reason: True for classes that stay for this reason.
        live_values: Names of the values that a remaining node reads, and of the graph outputs.
    """

    trace: GraphTrace
    rules: list[Rule]
    constants: ConstantChannels
    classes: dict[str, Indices]
    kept_classes: Flags
    reasons: dict[str, Flags] = field(default_factory=dict)
    live_values: set[str] = field(default_factory=set)

    def kept_channels(self, name: str) -> Flags:
        """Returns (channels,) bool: the channels of a value that stay."""
        channels: Flags = self.kept_classes[self.classes[name]]
        return channels

    def keep(self, name: str, reason: str, channels: Flags | slice = slice(None)) -> None:
        """Keeps channels of a value and all channels of the same classes."""
        classes = self.classes[name][channels]
        self.reasons.setdefault(reason, np.zeros(len(self.kept_classes), bool))[classes] = True
        self.kept_classes[classes] = True

    def is_replaceable(self, rule: Rule, name: str) -> bool:
        """True if a constant with one number per channel can replace an input of an elementwise operator."""
        if rule.node.op_type not in ELEMENTWISE or name not in self.classes or len(rule.links) < 2:
            return False
        if rule.node.op_type == "PRelu" and name == rule.node.input[0]:  # PRelu broadcasts only its slopes
            return False
        shape = self.trace.values[rule.node.output[0]].shape
        others = (link.input for link in rule.links if link.input != name)
        computed = (self.trace.values[other].shape == shape and not self._is_uniform(other) for other in others)
        return self._is_uniform(name) and any(computed)

    def _is_uniform(self, name: str) -> bool:
        """True if one number per remaining channel describes a value completely."""
        return bool(self.constants.uniform[name][self.kept_channels(name)].all())

    def absorbed_by_bias(self, rule: Rule) -> Flags:
        """Returns (channels,) bool: input channels of a convolution or linear layer that the bias can absorb."""
        assert rule.weighted_sum
        name = rule.weighted_sum.input
        return np.asarray(
            self.constants.uniform[name] & ((self.constants.numbers[name] == 0) | rule.weighted_sum.foldable)
        )

    def settle(self) -> None:
        """Marks the channels that must stay, until no further channel follows."""
        for name in self.trace.inputs:
            self.keep(name, INPUT)
        for name in self.trace.outputs:
            if name in self.classes:
                self.keep(name, OUTPUT)
        before = -1
        while before < (before := int(self.kept_classes.sum())):
            self._sweep()
            if before == self.kept_classes.sum():
                self._keep_last_channels()

    def _sweep(self) -> None:
        """Visits the nodes once, from the outputs to the inputs, and marks the channels that remaining nodes need."""
        self.live_values = set(self.trace.outputs)
        for rule in reversed(self.rules):
            if not self.live_values.intersection(rule.node.output):
                continue
            self._keep_needed(rule)
            self.live_values.update(self.needed_inputs(rule))

    def needed_inputs(self, rule: Rule) -> Iterator[str]:
        """Yields the names of the computed values that a remaining node needs as inputs."""
        for name in reads(rule.node):
            if name in self.trace.constants or self.is_replaceable(rule, name):
                continue
            if len(rule.links) > 1 and name in self.classes and not self.kept_channels(name).any():
                continue  # an input of a Concat without remaining channels
            yield name

    def _keep_needed(self, rule: Rule) -> None:
        """Keeps the channels that one remaining node needs."""
        if rule.keep_all_reason:
            for name in {*reads(rule.node), *rule.node.output} & set(self.classes):
                self.keep(name, rule.keep_all_reason)
        for name in rule.broadcast_inputs:
            self.keep(name, LIVE)
        if rule.weighted_sum:
            self._keep_summands(rule)

    def _keep_summands(self, rule: Rule) -> None:
        """Keeps the input channels that a remaining convolution or linear layer needs."""
        layer = rule.weighted_sum
        assert layer
        name = layer.input
        # The bias can produce the uniform outputs without any input.
        outputs = self.kept_channels(layer.output) & ~self.constants.uniform[layer.output]
        needed = layer.connected[outputs].any(axis=0) & ~self.absorbed_by_bias(rule)
        fixed = self.constants.fixed[name]
        self.keep(name, LIVE, needed & ~fixed)
        not_uniform = needed & fixed & ~self.constants.uniform[name]
        self.keep(name, PLACES, not_uniform)
        if layer.unfoldable_reason:
            self.keep(name, f"{layer.unfoldable_reason} of {rule.node.output[0]}", needed & fixed & ~not_uniform)
        if layer.groups > 1:
            self._keep_whole_groups(rule)

    def _keep_whole_groups(self, rule: Rule) -> None:
        """Keeps every channel of a group of a grouped convolution if one channel of the group stays."""
        layer = rule.weighted_sum
        assert layer
        groups = {name: self.kept_channels(name).reshape(layer.groups, -1) for name in (layer.input, layer.output)}
        stays = np.any([group.any(axis=1) for group in groups.values()], axis=0, keepdims=True)
        for name, group in groups.items():
            self.keep(name, BLOCK, (stays.T & ~group).ravel())

    def _keep_last_channels(self) -> None:
        """Keeps one channel of every value that a remaining node reads and that would have no channels."""
        for rule in self.rules:
            if self.live_values.intersection(rule.node.output):
                for name in self.needed_inputs(rule):
                    if name in self.classes and not self.kept_channels(name).any():
                        self.keep(name, LAST, slice(1))


def analyse(trace: GraphTrace) -> Liveness:
    """Finds the constant channels and the classes of channels of a graph. `Liveness.settle` then decides what stays."""
    rules = [rule_for(node, trace) for node in trace.nodes]
    classes = _classes(trace, rules)
    count = 1 + max((int(numbers.max(initial=-1)) for numbers in classes.values()), default=-1)
    return Liveness(
        trace=trace,
        rules=rules,
        constants=constant_channels(trace, rules),
        classes=classes,
        kept_classes=np.zeros(count, bool),
    )


def _classes(trace: GraphTrace, rules: list[Rule]) -> dict[str, Indices]:
    """Joins linked channels into classes, by union-find over all channels of all values.

    Returns:
        (channels,) intp by value: class of each channel.
    """
    names = [*trace.inputs, *(name for rule in rules for name in rule.node.output if name)]
    sizes = {name: count for name in names if (count := trace.channel_count(name)) is not None}
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()])[:-1].tolist(), strict=True))
    parent = list(range(sum(sizes.values())))

    def root(channel: int) -> int:
        while parent[channel] != channel:
            parent[channel] = channel = parent[parent[channel]]
        return channel

    for rule in rules:
        for link in rule.links:
            inputs = link.input_channels + starts[link.input]
            outputs = link.output_channels + starts[link.output]
            for input_channel, output_channel in zip(inputs.tolist(), outputs.tolist(), strict=True):
                first, second = root(input_channel), root(output_channel)
                parent[max(first, second)] = min(first, second)
    roots = np.array([root(channel) for channel in range(len(parent))], np.intp)
    _, numbers = np.unique(roots, return_inverse=True)
    return {name: numbers[start : start + sizes[name]] for name, start in starts.items()}
