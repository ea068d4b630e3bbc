"""Folds BatchNormalization into the weights of an adjacent layer. Exact up to rounding.

Runtimes and onnxsim fold a BatchNormalization into a preceding dense convolution. This pass also folds into a preceding
Gemm, MatMul, depthwise, grouped or transposed convolution, and into a following layer, through Flatten and Reshape too.
A following layer must read normalised values only. Zero padding therefore prevents the fold, unless the shift is zero.
A BatchNormalization between two non-linearities stays.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from numpy.typing import NDArray

from lmconv.graph.facts import LAYERS, static_shapes
from lmconv.graph.index import attribute, layer_bias, padded
from lmconv.graph.rewriter import Rewriter
from lmconv.types import Float64, Json, Pass, PassContext

Shapes = dict[str, tuple[int, ...]]


def batchnorm(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Folds each BatchNormalization that can be folded, in graph order.

    The decisions count the folds into the layer before, the folds into the layer after, and the kept nodes.
    """
    graph = Rewriter(model)
    norms = [node.output[0] for node in graph.nodes("BatchNormalization")]
    shapes = static_shapes(model) if norms else {}
    counts: Counter[str] = Counter()
    for name in norms:
        norm = graph.producer(name, "BatchNormalization")
        outcome = "kept" if norm is None else _fold(graph, norm, shapes)
        counts[outcome] += 1
        if outcome != "kept":
            graph.commit()
            graph = Rewriter(model)
    return model, {outcome: counts[outcome] for outcome in ("before", "after", "kept")}


def _fold(graph: Rewriter, node: onnx.NodeProto, shapes: Shapes) -> str:
    """Folds one BatchNormalization into a neighbouring layer. Returns the side of this layer, or "kept"."""
    affine = _affine(graph, node)
    if affine is None:
        return "kept"
    scale, shift = affine
    layer = graph.producer(node.input[0], *LAYERS)
    if (
        layer is not None
        and _has_channels_on_axis_1(layer, shapes)
        and graph.has_one_consumer(node.input[0])
        and (folded := _into_producer(graph, layer, scale, shift))
    ):
        folded.output[0] = node.output[0]
        graph.replace(layer)
        graph.replace(node, folded)
        return "before"
    consumer, scale, shift = _consumer(graph, node, shapes, scale, shift)
    if consumer is not None and (folded := _into_consumer(graph, consumer, scale, shift)):
        graph.replace(node)
        graph.replace(consumer, folded)
        for other in (*graph.consumers(node.output[0]), folded):
            other.input[:] = [node.input[0] if name == node.output[0] else name for name in other.input]
        return "after"
    return "kept"


def _affine(graph: Rewriter, node: onnx.NodeProto) -> tuple[Float64, Float64] | None:
    """Returns scale and shift per channel, (C,) float64 each.

    Returns None if a parameter is not a float32 constant, or if the node is in training mode.
    """
    values = [graph.constants.get(name) for name in node.input[1:]]
    if attribute(node, "training_mode", 0) or any(value is None or value.dtype != np.float32 for value in values):
        return None
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in values)
    scale = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    return scale, beta - mean * scale


def _into_producer(graph: Rewriter, layer: onnx.NodeProto, scale: Float64, shift: Float64) -> onnx.NodeProto | None:
    """Returns a copy of the layer that also scales and shifts the outputs.

    Returns None if the weights or the bias cannot be changed, see `_weights`.
    """
    weight, bias = _weights(graph, layer)
    if weight is None or bias is None:
        return None
    axis = _output_axis(layer, weight)
    if layer.op_type == "ConvTranspose":  # (inputs, outputs per group, ...): groups are blocks of axis 0
        blocks = scale.reshape(attribute(layer, "group", 1), 1, -1)
        split = weight.reshape(len(blocks), -1, *weight.shape[1:])
        scaled = (split * blocks.reshape(*blocks.shape, *[1] * (weight.ndim - 2))).reshape(weight.shape)
    else:
        scaled = weight * scale.reshape([-1 if dim == axis else 1 for dim in range(weight.ndim)])
    return _rebuilt(graph, layer, scaled, bias * scale + shift)


def _into_consumer(graph: Rewriter, layer: onnx.NodeProto, scale: Float64, shift: Float64) -> onnx.NodeProto | None:
    """Returns a copy of the layer that also scales and shifts the inputs.

    Returns None if the layer cannot do this, for example because of zero padding.
    """
    weight, bias = _weights(graph, layer)
    if weight is None or bias is None or layer.op_type == "ConvTranspose":
        return None
    if layer.op_type == "Conv":
        if shift.any() and padded(layer):
            return None
        outputs, inputs = weight.shape[:2]
        groups = np.arange(outputs) // (outputs // attribute(layer, "group", 1))
        channels = groups[:, None] * inputs + np.arange(inputs)
        kernel = [1] * (weight.ndim - 2)
        bias_shift = (weight * shift[channels].reshape(outputs, inputs, *kernel)).reshape(outputs, -1).sum(axis=1)
        return _rebuilt(graph, layer, weight * scale[channels].reshape(outputs, inputs, *kernel), bias + bias_shift)
    axis = 1 - _output_axis(layer, weight)
    if weight.shape[axis] != len(scale) or attribute(layer, "transA", 0):
        return None
    shape = [-1 if dim == axis else 1 for dim in range(2)]
    bias_shift = (weight * shift.reshape(shape)).sum(axis=axis) * attribute(layer, "alpha", 1.0)
    return _rebuilt(graph, layer, weight * scale.reshape(shape), bias + bias_shift)


def _weights(graph: Rewriter, layer: onnx.NodeProto) -> tuple[NDArray[np.float64] | None, Float64 | None]:
    """Returns a layer's weights and its (outputs,) bias, both float64.

    Both are None if the weights are computed, not float32 or, in a linear layer, not 2-D. The bias alone is None if
    `layer_bias` returns None.
    """
    weight = graph.constants.get(layer.input[1])
    if weight is None or weight.dtype != np.float32 or (layer.op_type in ("Gemm", "MatMul") and weight.ndim != 2):
        return None, None
    outputs = weight.shape[_output_axis(layer, weight)]
    if layer.op_type == "ConvTranspose":
        outputs *= attribute(layer, "group", 1)
    return weight.astype(np.float64), layer_bias(layer, graph.constants, outputs)


def _output_axis(layer: onnx.NodeProto, weight: NDArray[np.generic]) -> int:
    """Returns the axis of the weights that counts outputs; for a ConvTranspose, the outputs of one group."""
    if layer.op_type == "Conv" or (layer.op_type == "Gemm" and attribute(layer, "transB", 0)):
        return 0
    return 1


def _rebuilt(graph: Rewriter, layer: onnx.NodeProto, weight: NDArray[np.float64], bias: Float64) -> onnx.NodeProto:
    """Returns a copy of a layer with other weights and bias. A MatMul becomes a Gemm, because a MatMul has no bias."""
    folded = onnx.NodeProto()
    folded.CopyFrom(layer)
    if layer.op_type == "MatMul":
        folded.op_type = "Gemm"
    for item in [item for item in folded.attribute if item.name == "beta"]:
        folded.attribute.remove(item)
    values = [graph.constant(f"{layer.output[0]}_weight", weight.astype(np.float32))]
    values.append(graph.constant(f"{layer.output[0]}_bias", bias.astype(np.float32)))
    folded.input[:] = [layer.input[0], *values]
    return folded


def _consumer(
    graph: Rewriter, node: onnx.NodeProto, shapes: Shapes, scale: Float64, shift: Float64
) -> tuple[onnx.NodeProto | None, Float64, Float64]:
    """Finds the only layer that reads a BatchNormalization, through Flatten or Reshape to (N, features) too.

    Returns:
        The layer or None, then scale and shift of each input feature of the layer, (features,) float64 each.
    """
    name = node.output[0]
    while graph.has_one_consumer(name):
        consumer = graph.consumers(name)[0]
        if consumer.input[0] != name:
            break
        if consumer.op_type in LAYERS and _has_channels_on_axis_1(consumer, shapes):
            return consumer, scale, shift
        before, after = shapes.get(name, ()), shapes.get(consumer.output[0], ())
        flat = consumer.op_type in ("Flatten", "Reshape") and len(after) == 2 and after[0] == 1 and len(before) > 1
        if not flat or before[0] != 1 or after[1] != int(np.prod(before[1:])):
            break
        repeats = after[1] // len(scale)
        scale, shift, name = np.repeat(scale, repeats), np.repeat(shift, repeats), consumer.output[0]
    return None, scale, shift


def _has_channels_on_axis_1(layer: onnx.NodeProto, shapes: Shapes) -> bool:
    """True if the layer has its channels on axis 1, like BatchNormalization.

    A MatMul has its channels on the last axis, so its input must be 2-D.
    """
    return layer.op_type != "MatMul" or len(shapes.get(layer.input[0], ())) == 2


plugin = Pass(
    name="batchnorm",
    summary="BatchNorm folded into the weights of the layer before or after it",
    apply=batchnorm,
    tolerance=1e-6,
)
