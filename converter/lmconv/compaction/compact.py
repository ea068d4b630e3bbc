"""Removes channels without effect from an ONNX graph, together with the channels coupled to them.

A trained network carries channels that it does not use. Weight decay drives the scale of a BatchNorm to zero; the
filter before it becomes zero, and its channel becomes a constant. This package follows constants forward and use
backward through the whole graph, for any architecture, and writes the graph without the constant and the unused
channels. The idea of a dependency graph between layers comes from Torch-Pruning (Fang et al. 2023,
https://arxiv.org/abs/2301.12900). Here nothing is pruned by importance, only by proof.
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
    """Size of a convolution or linear layer before and after compaction.

    Attributes:
        name: Name of the layer's output.
        operator: ONNX operator of the layer.
        channels: Number of output channels, before and after; 0 after if the layer is removed.
        parameters: Number of weights and biases, before and after.
        flops: FLOPs for one input, before and after.
        dead: Number of output channels that never change or that nothing uses.
        kept: Number of dead channels that remain, by the reason for keeping them.
    """

    name: str
    operator: str
    channels: tuple[int, int]
    parameters: tuple[int, int]
    flops: tuple[int, int]
    dead: int
    kept: Mapping[str, int]

    def to_json(self) -> Json:
        """Returns the fields as plain JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """A graph without its dead channels.

    Attributes:
        model: The compacted graph.
        layers: Report of each layer, in graph order.
        whole: Names of the outputs of operators that keep all their channels, by the reason for this.
    """

    model: onnx.ModelProto
    layers: list[LayerReport]
    whole: Mapping[str, list[str]] = field(default_factory=dict)


def compact(model: onnx.ModelProto, *, multiple: int = 1, size: tuple[int, int] | None = None) -> Compacted:
    """Removes every channel that is provably without effect.

    Args:
        model: A float graph of opset 18 whose first axis is the batch; not changed.
        multiple: Divisor of the number of channels that a layer keeps, as far as the layer has enough channels. Some
            runtimes are faster with more channels.
        size: (height, width) in pixels of the random inputs, used if the graph leaves them free.

    Returns:
        A graph with the same inputs and outputs, equal up to rounding; `model` itself if nothing can be removed.
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
    """Keeps more channels in layers whose number of channels `multiple` does not divide.

    Constant channels are kept first, because a constant channel needs no channels of other layers.
    """
    before = -1
    while multiple > 1 and before < (before := int(live.kept.sum())):
        for each in live.rules:
            name = each.node.output[0]
            if each.node.op_type in LAYERS and name in live.alive and name in live.classes:
                live.stay(name, MULTIPLE, _more(live, name, multiple))
        live.settle()


def _more(live: Liveness, name: str, multiple: int) -> Flags:
    """Returns (channels,) bool: removed channels to keep after all, so that `multiple` divides the number kept."""
    keep = live.keep(name)
    gone = np.flatnonzero(~keep)
    order = gone[np.argsort(~live.constant.uniform[name][gone], kind="stable")]
    chosen = np.zeros(len(keep), bool)
    chosen[order[: -int(keep.sum()) % multiple if keep.any() else 0]] = True
    return chosen


def _reports(before: dict[str, _Layer], live: Liveness) -> list[LayerReport]:
    """Returns a report for each layer of the original graph."""
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
    """Size of a convolution or linear layer in one graph; fields as in `LayerReport`."""

    operator: str
    channels: int
    parameters: int
    flops: int


def _layers(seen: Observed) -> dict[str, _Layer]:
    """Returns the layers with constant weights by the name of their output."""
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
    """Returns the number of output channels of a layer."""
    shape = seen.values[node.output[0]].shape
    return int(shape[-1] if node.op_type in ("Gemm", "MatMul") else shape[1])


def _whole(live: Liveness) -> dict[str, list[str]]:
    """Returns the names of the outputs of operators that keep all their channels, by reason."""
    found: dict[str, list[str]] = {}
    for each in live.rules:
        if each.whole and any(name in live.classes for name in (*each.node.input, *each.node.output)):
            found.setdefault(each.whole, []).append(each.node.output[0])
    return found
