"""Finds the channels whose number is used, and counts the dead channels that stay; for the report."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmconv.compaction.liveness import LIVE, TIED, Liveness
from lmconv.compaction.rules.rule import Flags
from lmconv.graph.index import reads


def used_channels(live: Liveness) -> dict[str, Flags]:
    """Finds the channels whose number is used, for the report. Channels that stay only by coupling do not count.

    Returns:
        (channels,) bool by value.
    """
    use = {name: np.zeros(len(channels), bool) for name, channels in live.classes.items()}
    for name in live.trace.outputs:
        if name in use:
            use[name][:] = True
    for rule in reversed(live.rules):
        outputs = [name for name in rule.node.output if name in use]
        if not any(use[name].any() for name in outputs) and outputs:
            continue
        if rule.keep_all_reason or not outputs:
            for name in set(reads(rule.node)) & set(use):
                use[name][:] = True
        for name in rule.broadcast_inputs:
            use[name][:] = True
        for link in rule.links:
            if not live.is_replaceable(rule, link.input):
                fixed = live.constants.fixed
                irrelevant = fixed[link.output][link.output_channels] & ~fixed[link.input][link.input_channels]
                linked_use = use[link.output][link.output_channels] & ~irrelevant
                np.logical_or.at(use[link.input], link.input_channels, linked_use)
        if layer := rule.weighted_sum:
            rows = use[layer.output] & ~live.constants.uniform[layer.output]
            use[layer.input] |= layer.connected[rows].any(axis=0) & ~live.absorbed_by_bias(rule)
    return use


def dead_by_reason(live: Liveness, name: str, use: dict[str, Flags]) -> dict[str, int]:
    """Counts the dead channels of a value that stay, by reason.

    Args:
        live: The settled liveness.
        name: Name of the value.
        use: Result of `used_channels`; a channel is dead if the channel never changes or its number is not used.
    """
    dead = live.kept_channels(name) & (live.constants.fixed[name] | ~use[name])
    counts: dict[str, int] = {}
    classes: Any = live.classes[name]
    reasons = sorted(live.reasons, key=lambda reason: (reason == LIVE, reason))
    for channel in classes[dead]:
        reason = next(reason for reason in reasons if live.reasons[reason][channel])
        text = TIED if reason == LIVE else reason
        counts[text] = counts.get(text, 0) + 1
    return counts
