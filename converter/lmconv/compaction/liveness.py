"""Finds the channels that never change, and the channels that must stay.

A channel can be removed if no remaining node reads the channel. It can also be removed if it never changes and each of
its readers can fold its constant into a bias. Linked channels stay or go together: a channel of a sum is removed only
if no producer of the sum must keep it. Remaining channels keep their values: no operator reads other numbers than
before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmconv.compaction.observe import COUNTING, RANDOM, Observed
from lmconv.compaction.rules import ELEMENTWISE, Flags, Indices, Rule, rule
from lmconv.graph.index import reads

SPREAD = 1e-6
"""Largest spread over the positions of a channel, as a fraction of the mean, at which one number represents them all.

The spread allows for float32 rounding.
"""

# Reasons why channels stay. `compact` writes them to the recipe.
LIVE = "read"
OUTPUT = "an output of the network"
INPUT = "an input of the network"
LAST = "the last channel of its layer"
MULTIPLE = "kept for the width that is faster"
BLOCK = "a group of a convolution goes whole"
TIED = "tied to a live channel"
PLACES = "constant, but not the same at every place"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Constants:
    """Channels that do not depend on the input of the network.

    Attributes:
        fixed: (channels,) bool by value: True for channels that are the same for every input.
        uniform: (channels,) bool by value: True for fixed channels that are also the same at every position.
        number: (channels,) float64 by value: the constant of each uniform channel.
    """

    fixed: dict[str, Flags]
    uniform: dict[str, Flags]
    number: dict[str, NDArray[np.float64]]


def constants(seen: Observed, rules: list[Rule]) -> Constants:
    """Finds constant channels from the inputs to the outputs of the graph.

    A channel is constant if everything that the channel is computed from is constant. The values of the run are not
    evidence; they only supply the number of a constant channel.
    """
    found = Constants(fixed={}, uniform={}, number={})
    lone: set[str] = set()  # values that have no channels and do not depend on the input
    for name in seen.inputs:
        _note(found, seen, name, np.zeros(seen.units(name) or 0, bool))
    for each in rules:
        still = each.node.op_type not in (*RANDOM, *COUNTING) and all(
            name in seen.constants or name in lone or (name in found.fixed and found.fixed[name].all())
            for name in reads(each.node)
        )
        for name in each.node.output:
            units = seen.units(name)
            if units is None:
                lone |= {name} if still else set()
            else:
                _note(found, seen, name, _fixed(each, name, units, found, still=still))
    return found


def _fixed(each: Rule, name: str, units: int, found: Constants, *, still: bool) -> Flags:
    """Returns (channels,) bool: the channels of one output of a node that do not depend on the input."""
    if each.mix:
        return np.asarray(~(each.mix.taps & ~found.fixed[each.mix.input]).any(axis=1))
    if each.whole or not each.links:
        return np.full(units, still)
    fixed = np.ones(units, bool)
    zero = np.zeros(units, bool)
    for link in each.links:
        if link.output == name:
            np.logical_and.at(fixed, link.outer, found.fixed[link.input][link.inner])
            if each.annihilates:
                nothing = found.uniform[link.input] & (found.number[link.input] == 0)
                np.logical_or.at(zero, link.outer, nothing[link.inner])
    for spread in each.spread:
        fixed &= found.fixed[spread].all()
    return fixed | zero | (False if each.zeroed is None else each.zeroed)


def _note(found: Constants, seen: Observed, name: str, fixed: Flags) -> None:
    """Records which channels of a value are fixed and uniform, and reads their numbers from the run."""
    value = seen.values[name]
    number = np.zeros(len(fixed))
    uniform = np.zeros(len(fixed), bool)
    chosen = np.flatnonzero(fixed)
    if len(chosen) and np.issubdtype(value.dtype, np.floating):
        flat = value[:, chosen].reshape(len(value), len(chosen), -1).astype(np.float64)
        finite = np.isfinite(flat).all(axis=(0, 2))
        flat[:, ~finite] = 0
        number[chosen] = flat.mean(axis=(0, 2))
        uniform[chosen] = finite & (np.ptp(flat, axis=(0, 2)) <= SPREAD * np.abs(number[chosen]))
    found.fixed[name], found.uniform[name], found.number[name] = fixed, uniform, number


@dataclass(slots=True, kw_only=True, eq=False)
class Liveness:
    """Channels that must stay, and why.

    Attributes:
        seen: The graph and the values of one run.
        rules: Rule of each node, in graph order.
        constant: Channels that never change.
        classes: (channels,) intp by value: class of each channel. Channels of one class stay or go together.
        kept: (classes,) bool: True for classes that stay.
        reasons: (classes,) bool by reason: True for classes that stay for this reason.
        alive: Names of the values that a remaining node reads, and of the graph outputs.
    """

    seen: Observed
    rules: list[Rule]
    constant: Constants
    classes: dict[str, Indices]
    kept: Flags
    reasons: dict[str, Flags] = field(default_factory=dict)
    alive: set[str] = field(default_factory=set)

    def keep(self, name: str) -> Flags:
        """Returns (channels,) bool: the channels of a value that stay."""
        kept: Flags = self.kept[self.classes[name]]
        return kept

    def stay(self, name: str, why: str, channels: Flags | slice = slice(None)) -> None:
        """Keeps channels of a value and all channels of their classes, for the reason `why`."""
        classes = self.classes[name][channels]
        self.reasons.setdefault(why, np.zeros(len(self.kept), bool))[classes] = True
        self.kept[classes] = True

    def stands_in(self, each: Rule, name: str) -> bool:
        """True if a constant with one number per channel can replace an input of an elementwise operator."""
        if each.node.op_type not in ELEMENTWISE or name not in self.classes or len(each.links) < 2:
            return False
        if each.node.op_type == "PRelu" and name == each.node.input[0]:  # PRelu broadcasts only its slopes
            return False
        shape = self.seen.values[each.node.output[0]].shape
        others = (link.input for link in each.links if link.input != name)
        computed = (self.seen.values[other].shape == shape and not self._even(other) for other in others)
        return self._even(name) and any(computed)

    def _even(self, name: str) -> bool:
        """True if one number per remaining channel describes a value completely."""
        return bool(self.constant.uniform[name][self.keep(name)].all())

    def folded(self, each: Rule) -> Flags:
        """Returns (channels,) bool: input channels of a convolution or linear layer that its bias can absorb."""
        assert each.mix
        uniform, number = self.constant.uniform[each.mix.input], self.constant.number[each.mix.input]
        return np.asarray(uniform & ((number == 0) | each.mix.foldable))

    def settle(self) -> None:
        """Marks the channels that must stay, until no further channel follows."""
        for name in self.seen.inputs:
            self.stay(name, INPUT)
        for name in self.seen.outputs:
            if name in self.classes:
                self.stay(name, OUTPUT)
        before = -1
        while before < (before := int(self.kept.sum())):
            self._sweep()
            if before == self.kept.sum():
                self._fill()

    def _sweep(self) -> None:
        """Visits the nodes once, from the outputs to the inputs, and marks the channels that remaining nodes need."""
        self.alive = set(self.seen.outputs)
        for each in reversed(self.rules):
            if not self.alive.intersection(each.node.output):
                continue
            self._demand(each)
            self.alive.update(self.read(each))

    def read(self, each: Rule) -> Iterator[str]:
        """Yields the names of the computed values that a remaining node needs as inputs."""
        for name in reads(each.node):
            if name in self.seen.constants or self.stands_in(each, name):
                continue
            if len(each.links) > 1 and name in self.classes and not self.keep(name).any():
                continue  # an input of a concatenation without remaining channels
            yield name

    def _demand(self, each: Rule) -> None:
        """Marks the channels that one remaining node needs."""
        if each.whole:
            for name in {*reads(each.node), *each.node.output} & set(self.classes):
                self.stay(name, each.whole)
        for name in each.spread:
            self.stay(name, LIVE)
        if each.mix:
            self._demand_mix(each)

    def _demand_mix(self, each: Rule) -> None:
        """Marks the channels that a remaining convolution or linear layer needs."""
        assert each.mix
        name, taps = each.mix.input, each.mix.taps
        rows = self.keep(each.mix.output) & ~self.constant.uniform[each.mix.output]  # the bias can produce the others
        wanted = taps[rows].any(axis=0) & ~self.folded(each)
        fixed = self.constant.fixed[name]
        self.stay(name, LIVE, wanted & ~fixed)
        unlike = wanted & fixed & ~self.constant.uniform[name]
        self.stay(name, PLACES, unlike)
        if each.mix.why:
            self.stay(name, f"{each.mix.why} of {each.node.output[0]}", wanted & fixed & ~unlike)
        if each.mix.blocks > 1:
            self._whole_blocks(each)

    def _whole_blocks(self, each: Rule) -> None:
        """Keeps every channel of a group of a grouped convolution if one channel of the group stays."""
        assert each.mix
        parts = {name: self.keep(name).reshape(each.mix.blocks, -1) for name in (each.mix.input, each.mix.output)}
        stays = np.any([part.any(axis=1) for part in parts.values()], axis=0, keepdims=True)
        for name, part in parts.items():
            self.stay(name, BLOCK, (stays.T & ~part).ravel())

    def _fill(self) -> None:
        """Keeps one channel of every value that a remaining node reads and that would have no channels."""
        for each in self.rules:
            if self.alive.intersection(each.node.output):
                for name in self.read(each):
                    if name in self.classes and not self.keep(name).any():
                        self.stay(name, LAST, slice(1))


def liveness(seen: Observed) -> Liveness:
    """Finds the constant channels and the classes of channels of a graph. `Liveness.settle` then decides what stays."""
    rules = [rule(node, seen) for node in seen.nodes]
    classes = _classes(seen, rules)
    count = 1 + max((int(every.max(initial=-1)) for every in classes.values()), default=-1)
    return Liveness(
        seen=seen, rules=rules, constant=constants(seen, rules), classes=classes, kept=np.zeros(count, bool)
    )


def _classes(seen: Observed, rules: list[Rule]) -> dict[str, Indices]:
    """Joins linked channels into classes, by union-find over all channels of all values.

    Returns:
        (channels,) intp by value: class of each channel.
    """
    names = [*seen.inputs, *(name for each in rules for name in each.node.output if name)]
    sizes = {name: units for name in names if (units := seen.units(name)) is not None}
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()])[:-1].tolist(), strict=True))
    parent = list(range(sum(sizes.values())))

    def root(channel: int) -> int:
        while parent[channel] != channel:
            parent[channel] = channel = parent[parent[channel]]
        return channel

    for each in rules:
        for link in each.links:
            inner, outer = link.inner + starts[link.input], link.outer + starts[link.output]
            for a, b in zip(inner.tolist(), outer.tolist(), strict=True):
                first, second = root(a), root(b)
                parent[max(first, second)] = min(first, second)
    roots = np.array([root(channel) for channel in range(len(parent))], np.intp)
    _, numbers = np.unique(roots, return_inverse=True)
    return {name: numbers[start : start + sizes[name]] for name, start in starts.items()}


def needed(live: Liveness) -> dict[str, Flags]:
    """Finds the channels whose number is used, for the report. Channels that stay only by coupling do not count.

    Returns:
        (channels,) bool by value.
    """
    use = {name: np.zeros(len(channels), bool) for name, channels in live.classes.items()}
    for name in live.seen.outputs:
        if name in use:
            use[name][:] = True
    for each in reversed(live.rules):
        outputs = [name for name in each.node.output if name in use]
        if not any(use[name].any() for name in outputs) and outputs:
            continue
        if each.whole or not outputs:
            for name in set(reads(each.node)) & set(use):
                use[name][:] = True
        for name in each.spread:
            use[name][:] = True
        for link in each.links:
            if not live.stands_in(each, link.input):
                fixed = live.constant.fixed
                moot = fixed[link.output][link.outer] & ~fixed[link.input][link.inner]
                np.logical_or.at(use[link.input], link.inner, use[link.output][link.outer] & ~moot)
        if each.mix:
            rows = use[each.mix.output] & ~live.constant.uniform[each.mix.output]
            use[each.mix.input] |= each.mix.taps[rows].any(axis=0) & ~live.folded(each)
    return use


def tally(live: Liveness, name: str, use: dict[str, Flags]) -> dict[str, int]:
    """Counts the dead channels of a value that stay, by reason.

    Args:
        live: The settled liveness.
        name: Name of the value.
        use: Result of `needed`; a channel is dead if it never changes or its number is not used.
    """
    stays = live.keep(name) & (live.constant.fixed[name] | ~use[name])
    counts: dict[str, int] = {}
    classes: Any = live.classes[name]
    ordered = sorted(live.reasons, key=lambda why: (why == LIVE, why))
    for channel in classes[stays]:
        why = next(why for why in ordered if live.reasons[why][channel])
        counts[TIED if why == LIVE else why] = counts.get(TIED if why == LIVE else why, 0) + 1
    return counts
