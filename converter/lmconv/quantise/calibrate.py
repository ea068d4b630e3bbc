"""Computes scales, zero points, integer weights and biases of a quantised network, from input to output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lmconv.console import phase
from lmconv.graph.execution import Chunks, channel_mean, on_all_cores, restored, run_node, walk
from lmconv.graph.index import Graph, attribute
from lmconv.quantise.observe import ActivationStatistics
from lmconv.quantise.plan import WEIGHTED, QuantisationPlan, QuantiserOptions, channel_axis
from lmconv.quantise.rounding import Affine, Layer, along, input_covariance, make_affine, quantise_layer
from lmconv.types import Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisationParameters:
    """Numeric parameters of a quantised network: everything except its nodes.

    Attributes:
        activations: Scale and zero point of each quantised activation, by tensor name.
        layers: Integer weights, scales and bias of each int8 layer, by the name of the layer's output.
        biases: Corrected bias, (C_out,) float32, of a head that stays in float, by the name of the head's output.
    """

    activations: dict[str, Affine] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)
    biases: dict[str, Float32] = field(default_factory=dict)


def calibrate(
    graph: Graph,
    plan: QuantisationPlan,
    crops: Float32,
    settings: QuantiserOptions,
    statistics: ActivationStatistics,
) -> QuantisationParameters:
    """Walks the int8 network from input to output and fixes the parameters of each layer and tensor in turn.

    A range therefore covers the values of the int8 network itself. A corrected bias (empirical bias correction, Nagel
    et al. 2019) compensates the error of all previous layers; correcting several layers at once would compensate the
    same error twice.

    Args:
        graph: The float graph, with equalised weights.
        plan: Layers and tensors that become int8.
        crops: (n, 3, H, W) float32 network inputs.
        settings: Options of the quantiser.
        statistics: Statistics of the equalised float network on these crops.
    """
    parameters = QuantisationParameters()
    head, rng = _head_output(graph), np.random.default_rng(0)

    def compute(node: onnx.NodeProto, values: Mapping[str, Chunks]) -> dict[str, Chunks]:
        rewired = plan.rewire(node)
        name = node.output[0]
        if name not in plan.layers:
            outputs = run_node(graph, rewired, values, graph.constants)
            if settings.correct_bias and name == head:
                correction, outputs[name] = _correct_means(node, statistics.means[name], outputs[name])
                parameters.biases[name] = graph.constants[node.input[2]] + correction
            return outputs
        input_affine = parameters.activations[plan.source.get(node.input[0], node.input[0])]
        layer = _quantise_layer(graph, node, input_affine, settings, values[rewired.input[0]], rng)
        parameters.layers[name] = layer
        outputs = run_node(graph, *_with_rounded_weights(rewired, layer, values))
        if settings.correct_bias and node.op_type != "MatMul":
            correction, outputs[name] = _correct_means(node, statistics.means[name], outputs[name])
            layer.bias = layer.bias + correction
        return outputs

    def snap(values: dict[str, Chunks]) -> None:
        _snap(values, graph, plan, parameters, settings.activations)

    with phase("rounding node", len(graph.proto.node)) as part:
        for _ in walk(graph, crops, compute, snap):
            part()
    return parameters


def calibrate_roughly(
    graph: Graph, plan: QuantisationPlan, settings: QuantiserOptions, values: Mapping[str, Chunks]
) -> QuantisationParameters:
    """Fixes the parameters of a network of which only the speed matters, without running the int8 network.

    Args:
        graph: The float graph.
        plan: Layers and tensors that become int8.
        settings: Options of the quantiser.
        values: Values of the float network by name.
    """
    kind = settings.activations
    sources = {plan.source.get(name, name) for name in plan.tensors}
    activations = {name: covering(values[name], kind) for name in sources}
    read = {name: plan.source.get(node.input[0], node.input[0]) for name, node in plan.layers.items()}
    layers = {name: quantise_layer(graph, node, activations[read[name]], kind) for name, node in plan.layers.items()}
    head = _head_output(graph)
    biases = {}
    if settings.correct_bias and head and head not in layers:
        (node,) = (node for node in graph.proto.node if node.output[0] == head)
        biases[head] = graph.constants[node.input[2]]
    return QuantisationParameters(activations=activations, layers=layers, biases=biases)


def _snap(
    values: dict[str, Chunks], graph: Graph, plan: QuantisationPlan, parameters: QuantisationParameters, kind: str
) -> None:
    """Fixes the range of each tensor to quantise and adds its quantised values; drops float values without reader."""
    for name in [name for name in values if name in plan.tensors]:
        source = plan.source.get(name, name)
        if source == name:
            parameters.activations[name] = covering(values[name], kind)
        values[restored(name)] = on_all_cores(parameters.activations[source].snap, values[name])
        if all(node.output[0] in plan.readers for node in graph.consumers.get(name, [])):
            del values[name]


def covering(values: Chunks, kind: str) -> Affine:
    """Returns the quantisation, with integers of type `kind`, that covers all values of a tensor."""
    lows, highs = zip(*on_all_cores(lambda x: (float(x.min()), float(x.max())), values), strict=True)
    return make_affine(min(lows), max(highs), kind)


def quantise_alone(
    graph: Graph,
    node: onnx.NodeProto,
    input_affine: Affine,
    settings: QuantiserOptions,
    x: Chunks,
    expected: Chunks,
    rng: np.random.Generator,
) -> Layer:
    """Computes the parameters of one int8 layer while the rest of the network stays in float.

    Args:
        graph: Index of the float graph with the float weights.
        node: The layer.
        input_affine: Scale and zero point of the layer's input.
        settings: Options of the quantiser.
        x: Float input of the layer.
        expected: Float output of the layer.
        rng: Random generator for the positions that the input covariance is sampled at.
    """
    snapped = {node.input[0]: [input_affine.snap(piece) for piece in x]}
    layer = _quantise_layer(graph, node, input_affine, settings, snapped[node.input[0]], rng)
    if settings.correct_bias and node.op_type != "MatMul":
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        outputs = run_node(graph, *_with_rounded_weights(copy, layer, snapped))
        mean = channel_mean(expected, channel_axis(node, expected[0].ndim))
        correction, _ = _correct_means(node, mean, outputs[node.output[0]])
        layer.bias = layer.bias + correction
    return layer


def _quantise_layer(
    graph: Graph,
    node: onnx.NodeProto,
    input_affine: Affine,
    settings: QuantiserOptions,
    x: Chunks,
    rng: np.random.Generator,
) -> Layer:
    """Rounds a layer's weights; with adaptive rounding, for the covariance of the layer's quantised input `x`."""
    covariance = None
    if settings.adaptive_rounding:
        covariance = input_covariance(node, graph.constants[node.input[1]], x, rng)
    return quantise_layer(graph, node, input_affine, settings.activations, covariance)


def _correct_means(node: onnx.NodeProto, expected: Float32, outputs: Chunks) -> tuple[Float32, Chunks]:
    """Returns the correction of each channel's mean, (C,) float32, and the corrected output of a layer."""
    ndim = outputs[0].ndim
    axis = channel_axis(node, ndim)
    correction = expected - channel_mean(outputs, axis)
    return correction, on_all_cores(lambda x: x + along(correction, axis, ndim), outputs)


def _head_output(graph: Graph) -> str:
    """Returns the output name of the last layer if the layer adds a constant float32 bias per channel, else ""."""
    node = next((node for node in reversed(graph.proto.node) if node.op_type in WEIGHTED and not node.domain), None)
    if node is None or node.op_type == "MatMul" or len(node.input) < 3 or attribute(node, "beta", 1.0) != 1.0:
        return ""
    bias = graph.constants.get(node.input[2])
    return str(node.output[0]) if bias is not None and bias.dtype == np.float32 and bias.ndim == 1 else ""


def _with_rounded_weights(
    node: onnx.NodeProto, layer: Layer, values: Mapping[str, Chunks]
) -> tuple[onnx.NodeProto, Mapping[str, Chunks], dict[str, NDArray[Any]]]:
    """Makes `node` read the rounded weights of `layer`; returns the node, its values and its constants."""
    weights, bias = f"{node.output[0]}_weights", f"{node.output[0]}_bias"
    node.input[:] = [node.input[0], weights] if node.op_type == "MatMul" else [node.input[0], weights, bias]
    return node, values, {weights: layer.dequantised(), bias: layer.bias}
