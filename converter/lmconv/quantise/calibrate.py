"""Computes scales, zero points, integer weights and biases of a quantised network, from input to output."""

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
    """Numeric parameters of a quantised network: everything except its nodes.

    Attributes:
        activations: Scale and zero point of each quantised activation, by tensor name.
        layers: Integer weights, scales and bias of each int8 layer, by the name of the layer's output.
        biases: Corrected bias, (C_out,) float32, of a head that stays in float, by the name of the head's output.
    """

    activations: dict[str, Affine] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)
    biases: dict[str, Float32] = field(default_factory=dict)


def calibrate(graph: Graph, chosen: Plan, crops: Float32, settings: Settings, seen: Observed) -> Numbers:
    """Walks the int8 network from input to output and fixes the parameters of each layer and tensor in turn.

    A range therefore covers the values of the int8 network itself. A corrected bias (empirical bias correction, Nagel
    et al. 2019) compensates the error of all previous layers; correcting several layers at once would compensate the
    same error twice.

    Args:
        graph: The float graph, with equalised weights.
        chosen: Layers and tensors that become int8.
        crops: (n, 3, H, W) float32 network inputs.
        settings: Options of the quantiser.
        seen: Statistics of the equalised float network on these crops.
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
    """Computes the parameters of one int8 layer while the rest of the network stays in float.

    Args:
        graph: Index of the float graph with the float weights.
        node: The layer.
        read: Scale and zero point of the layer's input.
        settings: Options of the quantiser.
        x: Float input of the layer.
        exact: Float output of the layer.
        rng: Random generator for the positions that the input covariance is sampled at.
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
    """Returns the correction of each channel's mean, (C,) float32, and the corrected values."""
    shift = exact - channel_mean(given)
    ndim = given[0].ndim
    return shift, [x + along(shift, 1 if ndim > 3 else ndim - 1, ndim) for x in given]


def _head(graph: Graph) -> str:
    """Returns the output name of the last layer if the layer adds a constant float32 bias per channel, else ""."""
    node = next((node for node in reversed(graph.proto.node) if node.op_type in WEIGHTED and not node.domain), None)
    if node is None or node.op_type == "MatMul" or len(node.input) < 3 or attribute(node, "beta", 1.0) != 1.0:
        return ""
    bias = graph.constants.get(node.input[2])
    return str(node.output[0]) if bias is not None and bias.dtype == np.float32 and bias.ndim == 1 else ""


def _simulated(
    node: onnx.NodeProto, layer: Layer, values: Mapping[str, Chunks]
) -> tuple[onnx.NodeProto, Mapping[str, Chunks], dict[str, NDArray[Any]]]:
    """Makes `node` read the rounded weights of `layer`; returns the node, its values and its constants."""
    names = ["weights"] if node.op_type == "MatMul" else ["weights", "bias"]
    node.input[:] = [node.input[0], *names]
    return node, values, {"weights": layer.dequantised(), "bias": layer.bias}
