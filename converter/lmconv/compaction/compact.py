"""Removes channels without effect from an ONNX graph, together with all coupled channels.

A trained network carries channels without any use. Weight decay drives the scale of a BatchNorm to zero; the filter
before the BatchNorm becomes zero, and its channel becomes a constant. This package follows constants forward and use
backward through the whole graph, for any architecture, and writes the graph without the constant and the unused
channels. The idea of a dependency graph between layers comes from Torch-Pruning (Fang et al. 2023,
https://arxiv.org/abs/2301.12900). Here nothing is pruned by importance, only by proof.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import onnx

from lmconv.compaction.liveness import MULTIPLE, Liveness, analyse
from lmconv.compaction.rules.rule import Flags
from lmconv.compaction.trace import GraphTrace, trace_graph
from lmconv.compaction.usage import dead_by_reason, used_channels
from lmconv.compaction.write import write
from lmconv.graph.facts import LAYERS, layer_macs
from lmconv.types import Json


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
        whole: Names of the outputs of operators that keep all their channels, by reason.
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
        size: (height, width) in pixels of the random inputs, used if the graph leaves height and width free.

    Returns:
        A graph with the same inputs and outputs, equal up to rounding; `model` itself if nothing can be removed.
    """
    current, trace = model, trace_graph(model, size)
    before = _layers(trace)
    while True:
        live = analyse(trace)
        live.settle()
        _widen(live, multiple)
        smaller = write(current, live)
        if smaller is None:
            return Compacted(model=current, layers=_reports(before, live), whole=_uncompacted(live))
        current, trace = smaller, trace_graph(smaller, size)


def _widen(live: Liveness, multiple: int) -> None:
    """Keeps more channels in layers whose number of channels `multiple` does not divide.

    Constant channels are kept first, because a constant channel needs no channels of other layers.
    """
    before = -1
    while multiple > 1 and before < (before := int(live.kept_classes.sum())):
        for rule in live.rules:
            name = rule.node.output[0]
            if rule.node.op_type in LAYERS and name in live.live_values and name in live.classes:
                live.keep(name, MULTIPLE, _additional_channels(live, name, multiple))
        live.settle()


def _additional_channels(live: Liveness, name: str, multiple: int) -> Flags:
    """Selects channels of a value to keep besides, for a number of kept channels that `multiple` divides.

    Returns:
        (channels,) bool.
    """
    kept = live.kept_channels(name)
    removed = np.flatnonzero(~kept)
    order = removed[np.argsort(~live.constants.uniform[name][removed], kind="stable")]
    additional = np.zeros(len(kept), bool)
    additional[order[: -int(kept.sum()) % multiple if kept.any() else 0]] = True
    return additional


def _reports(before: dict[str, _Layer], live: Liveness) -> list[LayerReport]:
    """Returns a report for each layer of the original graph."""
    after, use = _layers(live.trace), used_channels(live)
    reports = []
    for name, old in before.items():
        new = after.get(name, _Layer(operator=old.operator, channels=0, parameters=0, flops=0))
        dead_remaining = dead_by_reason(live, name, use) if new.channels and name in live.classes else {}
        reports.append(
            LayerReport(
                name=name,
                operator=old.operator,
                channels=(old.channels, new.channels),
                parameters=(old.parameters, new.parameters),
                flops=(old.flops, new.flops),
                dead=old.channels - new.channels + sum(dead_remaining.values()),
                kept=dead_remaining,
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


def _layers(trace: GraphTrace) -> dict[str, _Layer]:
    """Returns the layers with constant weights by the name of their output."""
    macs = layer_macs(trace.nodes, trace.shapes())
    layers = {}
    for node in trace.nodes:
        constants = [trace.constants[name] for name in node.input[1:] if name in trace.constants]
        if node.op_type in LAYERS and constants:
            layers[node.output[0]] = _Layer(
                operator=node.op_type,
                channels=_output_channels(node, trace),
                parameters=sum(value.size for value in constants),
                flops=2 * macs.get(node.output[0], 0),
            )
    return layers


def _output_channels(node: onnx.NodeProto, trace: GraphTrace) -> int:
    """Returns the number of output channels of a layer."""
    shape = trace.values[node.output[0]].shape
    return int(shape[-1] if node.op_type in ("Gemm", "MatMul") else shape[1])


def _uncompacted(live: Liveness) -> dict[str, list[str]]:
    """Returns the names of the outputs of operators that keep all their channels, by reason."""
    outputs: dict[str, list[str]] = {}
    for rule in live.rules:
        has_channels = any(name in live.classes for name in (*rule.node.input, *rule.node.output))
        if rule.keep_all_reason and has_channels:
            outputs.setdefault(rule.keep_all_reason, []).append(rule.node.output[0])
    return outputs
