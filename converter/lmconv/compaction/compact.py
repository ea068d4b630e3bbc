"""Removes channels that are without effect from an ONNX graph, everywhere they are coupled.

A trained network carries channels that it does not use: weight decay drives a BatchNorm's scale to nothing, and what is
left is a filter of zeros whose channel is a constant. This follows constants forward and use backward through the whole
graph, whatever the architecture, and writes it again without the channels that neither change nor matter. The idea of a
dependency graph between layers is that of Torch-Pruning (Fang et al. 2023, https://arxiv.org/abs/2301.12900); here
nothing is pruned by importance, only by proof.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import onnx

from lmconv.compaction.liveness import MULTIPLE, Liveness, liveness, needed, tally
from lmconv.compaction.observe import Observed, observe
from lmconv.compaction.rules import Flags
from lmconv.compaction.write import write
from lmconv.graph.facts import layer_macs
from lmconv.types import Json

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReport:
    """What became of a convolution or linear layer.

    Attributes:
        name: Its output.
        operator: What it is.
        channels: Of its output, before and after; none where it went altogether.
        parameters: Weights and biases, before and after.
        flops: Of one input, before and after.
        dead: How many of its channels never change, or are used by nobody.
        kept: Why some of those are still there: how many by reason.
    """

    name: str
    operator: str
    channels: tuple[int, int]
    parameters: tuple[int, int]
    flops: tuple[int, int]
    dead: int
    kept: Mapping[str, int]

    def to_json(self) -> Json:
        """As plain JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """A graph without its dead channels.

    Attributes:
        model: The graph.
        layers: What became of each layer, in order.
        whole: Operators that had to be left as they are, and why: outputs by reason.
    """

    model: onnx.ModelProto
    layers: list[LayerReport]
    whole: Mapping[str, list[str]] = field(default_factory=dict)


def compact(model: onnx.ModelProto, *, multiple: int = 1, size: tuple[int, int] | None = None) -> Compacted:
    """Removes every channel that is provably without effect.

    Args:
        model: A float graph of opset 18, its batch axis first; it is not changed.
        multiple: Layers keep a number of channels that this divides, as far as they have them: some runtimes are
            faster with more channels.
        size: (height, width) of what it is looked at with, where it takes any.

    Returns:
        A graph of the same inputs and outputs, equal up to rounding; `model` itself where nothing can be removed.
    """
    current, seen = model, observe(model, size)
    before = _layers(seen)
    while True:
        live = liveness(seen)
        live.settle()
        _widen(live, multiple)
        smaller = write(current, live)
        if smaller is None:
            return Compacted(model=current, layers=_reports(before, live), whole=_whole(live))
        current, seen = smaller, observe(smaller, size)


def _widen(live: Liveness, multiple: int) -> None:
    """Keeps more channels where a layer's number is not a multiple; constant ones first, which cost nothing else."""
    before = -1
    while multiple > 1 and before < (before := int(live.kept.sum())):
        for each in live.rules:
            name = each.node.output[0]
            if each.node.op_type in LAYERS and name in live.alive and name in live.classes:
                live.stay(name, MULTIPLE, _more(live, name, multiple))
        live.settle()


def _more(live: Liveness, name: str, multiple: int) -> Flags:
    """(channels,) bool: those to keep besides, so that `multiple` divides their number."""
    keep = live.keep(name)
    gone = np.flatnonzero(~keep)
    order = gone[np.argsort(~live.constant.uniform[name][gone], kind="stable")]
    chosen = np.zeros(len(keep), bool)
    chosen[order[: -int(keep.sum()) % multiple if keep.any() else 0]] = True
    return chosen


def _reports(before: dict[str, _Layer], live: Liveness) -> list[LayerReport]:
    after, use = _layers(live.seen), needed(live)
    reports = []
    for name, old in before.items():
        new = after.get(name, _Layer(operator=old.operator, channels=0, parameters=0, flops=0))
        kept = tally(live, name, use) if new.channels and name in live.classes else {}
        reports.append(
            LayerReport(
                name=name,
                operator=old.operator,
                channels=(old.channels, new.channels),
                parameters=(old.parameters, new.parameters),
                flops=(old.flops, new.flops),
                dead=old.channels - new.channels + sum(kept.values()),
                kept=kept,
            )
        )
    return reports


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """A convolution or linear layer as it is."""

    operator: str
    channels: int
    parameters: int
    flops: int


def _layers(seen: Observed) -> dict[str, _Layer]:
    """By output."""
    work = layer_macs(seen.nodes, seen.shapes())
    found = {}
    for node in seen.nodes:
        held = [seen.constants[name] for name in node.input[1:] if name in seen.constants]
        if node.op_type in LAYERS and held:
            found[node.output[0]] = _Layer(
                operator=node.op_type,
                channels=_channels(node, seen),
                parameters=sum(value.size for value in held),
                flops=2 * work.get(node.output[0], 0),
            )
    return found


def _channels(node: onnx.NodeProto, seen: Observed) -> int:
    shape = seen.values[node.output[0]].shape
    return int(shape[-1] if node.op_type in ("Gemm", "MatMul") else shape[1])


def _whole(live: Liveness) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in live.rules:
        if each.whole and any(name in live.classes for name in (*each.node.input, *each.node.output)):
            found.setdefault(each.whole, []).append(each.node.output[0])
    return found
