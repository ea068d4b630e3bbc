"""Fixes the numbers of a quantised network, from its input to its output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lmconv.graph.execution import Chunks, channel_mean, restored, run_node, walk
from lmconv.graph.index import Graph, attribute
from lmconv.quantise.observe import Observed
from lmconv.quantise.plan import WEIGHTED, Plan, Settings
from lmconv.quantise.rounding import Affine, Layer, along, input_covariance, make_affine, quantise_layer
from lmconv.types import Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Everything a quantised network consists of besides its nodes, by tensor name.

    Attributes:
        activations: How tensors are quantised.
        layers: The int8 layers.
        biases: Of a head that stays float, by its output: (C_out,) float32.
    """

    activations: dict[str, Affine] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)
    biases: dict[str, Float32] = field(default_factory=dict)


def calibrate(graph: Graph, chosen: Plan, crops: Float32, settings: Settings, seen: Observed) -> Numbers:
    """Walks the int8 network from input to output, fixing each layer's numbers and each tensor's range in turn.

    So a range fits what the int8 network really holds, and a corrected bias (empirical bias correction, Nagel et al.
    2019) makes up for all that was lost before it: correcting several layers at once would do so twice.
    """
    numbers = Numbers()
    head, rng = _head(graph), np.random.default_rng(0)

    def compute(node: onnx.NodeProto, values: Mapping[str, Chunks]) -> dict[str, Chunks]:
        reading = chosen.rewire(node)
        name = node.output[0]
        if name not in chosen.layers:
            given = run_node(graph, reading, values, graph.constants)
            if settings.correct_bias and name == head:
                shift, given[name] = _corrected(seen.means[name], given[name])
                numbers.biases[name] = graph.constants[node.input[2]] + shift
            return given
        read = numbers.activations[chosen.source.get(node.input[0], node.input[0])]
        covariance = None
        if settings.adaptive_rounding:
            covariance = input_covariance(node, graph.constants[node.input[1]], values[reading.input[0]], rng)
        numbers.layers[name] = layer = quantise_layer(graph, node, read, settings.activations, covariance)
        given = run_node(graph, *_simulated(reading, layer, values))
        if settings.correct_bias and node.op_type != "MatMul":
            shift, given[name] = _corrected(seen.means[name], given[name])
            layer.bias = layer.bias + shift
        return given

    def snap(values: dict[str, Chunks]) -> None:
        for name in [name for name in values if name in chosen.tensors]:
            source = chosen.source.get(name, name)
            if source == name:
                low, high = min(x.min() for x in values[name]), max(x.max() for x in values[name])
                numbers.activations[name] = make_affine(float(low), float(high), settings.activations)
            values[restored(name)] = [numbers.activations[source].snap(x) for x in values[name]]
            if all(node.output[0] in chosen.readers for node in graph.consumers[name]):
                del values[name]

    for _ in walk(graph, crops, compute, snap):
        pass
    return numbers


def quantise_alone(
    graph: Graph,
    node: onnx.NodeProto,
    read: Affine,
    settings: Settings,
    x: Chunks,
    exact: Chunks,
    rng: np.random.Generator,
) -> Layer:
    """A layer's numbers where all else is float.

    Args:
        graph: Holds the float weights.
        node: The layer.
        read: How its input is quantised.
        settings: How.
        x: Its float input.
        exact: Its float output.
        rng: Draws where the input's covariance is taken from.
    """
    snapped = {node.input[0]: [read.snap(piece) for piece in x]}
    covariance = None
    if settings.adaptive_rounding:
        covariance = input_covariance(node, graph.constants[node.input[1]], snapped[node.input[0]], rng)
    layer = quantise_layer(graph, node, read, settings.activations, covariance)
    if settings.correct_bias and node.op_type != "MatMul":
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        given = run_node(graph, *_simulated(copy, layer, snapped))
        shift, _ = _corrected(channel_mean(exact), given[node.output[0]])
        layer.bias = layer.bias + shift
    return layer


def _corrected(exact: Float32, given: Chunks) -> tuple[Float32, Chunks]:
    """What is missing in the mean of each channel, (C,) float32, and the values with it."""
    shift = exact - channel_mean(given)
    ndim = given[0].ndim
    return shift, [x + along(shift, 1 if ndim > 3 else ndim - 1, ndim) for x in given]


def _head(graph: Graph) -> str:
    """The output of the last layer, where that adds a constant float32 bias to each channel; else nothing."""
    node = next((node for node in reversed(graph.proto.node) if node.op_type in WEIGHTED and not node.domain), None)
    if node is None or node.op_type == "MatMul" or len(node.input) < 3 or attribute(node, "beta", 1.0) != 1.0:
        return ""
    bias = graph.constants.get(node.input[2])
    return str(node.output[0]) if bias is not None and bias.dtype == np.float32 and bias.ndim == 1 else ""


def _simulated(
    node: onnx.NodeProto, layer: Layer, values: Mapping[str, Chunks]
) -> tuple[onnx.NodeProto, Mapping[str, Chunks], dict[str, NDArray[Any]]]:
    """A float node with a layer's rounded weights, and what it needs."""
    names = ["weights"] if node.op_type == "MatMul" else ["weights", "bias"]
    node.input[:] = [node.input[0], *names]
    return node, values, {"weights": layer.dequantised(), "bias": layer.bias}
