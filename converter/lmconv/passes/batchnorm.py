"""Folds BatchNormalization into the weights of the layer before or after it. Exact up to rounding.

Runtimes and onnxsim fold a BatchNormalization into a dense convolution before it. This pass also folds into a preceding
Gemm, MatMul, depthwise, grouped or transposed convolution, and into a following layer, through Flatten and Reshape too.
A following layer must read normalised values only. Zero padding therefore prevents the fold, unless the shift is zero.
A BatchNormalization between two non-linearities stays.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from numpy.typing import NDArray

from lmconv.graph.facts import static_shapes
from lmconv.graph.index import attribute, layer_bias, padded
from lmconv.graph.rewriter import Rewriter
from lmconv.types import Float64, Json, Pass, PassContext

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
Shapes = dict[str, tuple[int, ...]]


def batchnorm(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Folds each BatchNormalization that can be folded, in graph order.

    The decisions count the folds into the layer before, the folds into the layer after, and the kept nodes.
    """
    graph = Rewriter(model)
    norms = [node.output[0] for node in graph.nodes("BatchNormalization")]
    shapes = static_shapes(model) if norms else {}
    done: Counter[str] = Counter()
    for name in norms:
        norm = graph.maker(name, "BatchNormalization")
        how = "kept" if norm is None else _fold(graph, norm, shapes)
        done[how] += 1
        if how != "kept":
            graph.commit()
            graph = Rewriter(model)
    return model, {how: done[how] for how in ("before", "after", "kept")}


def _fold(graph: Rewriter, node: onnx.NodeProto, shapes: Shapes) -> str:
    """Folds one BatchNormalization into a neighbouring layer. Returns the side of this layer, or "kept"."""
    affine = _affine(graph, node)
    if affine is None:
        return "kept"
    scale, shift = affine
    layer = graph.maker(node.input[0], *LAYERS)
    if (
        layer is not None
        and _takes(layer, shapes)
        and graph.private(node.input[0])
        and (folded := _into_maker(graph, layer, scale, shift))
    ):
        folded.output[0] = node.output[0]
        graph.replace(layer)
        graph.replace(node, folded)
        return "before"
    reader, scale, shift = _reader(graph, node, shapes, scale, shift)
    if reader is not None and (folded := _into_reader(graph, reader, scale, shift)):
        graph.replace(node)
        graph.replace(reader, folded)
        for other in (*graph.readers(node.output[0]), folded):
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


def _into_maker(graph: Rewriter, layer: onnx.NodeProto, scale: Float64, shift: Float64) -> onnx.NodeProto | None:
    """Returns a copy of the layer that also scales and shifts its outputs.

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


def _into_reader(graph: Rewriter, layer: onnx.NodeProto, scale: Float64, shift: Float64) -> onnx.NodeProto | None:
    """Returns a copy of the layer that also scales and shifts its inputs.

    Returns None if the layer cannot do this, for example because a shift does not commute with zero padding.
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
        places = [1] * (weight.ndim - 2)
        moved = (weight * shift[channels].reshape(outputs, inputs, *places)).reshape(outputs, -1).sum(axis=1)
        return _rebuilt(graph, layer, weight * scale[channels].reshape(outputs, inputs, *places), bias + moved)
    axis = 1 - _output_axis(layer, weight)
    if weight.shape[axis] != len(scale) or attribute(layer, "transA", 0):
        return None
    along = [-1 if dim == axis else 1 for dim in range(2)]
    moved = (weight * shift.reshape(along)).sum(axis=axis) * attribute(layer, "alpha", 1.0)
    return _rebuilt(graph, layer, weight * scale.reshape(along), bias + moved)


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


def _rebuilt(
    graph: Rewriter, layer: onnx.NodeProto, weight: NDArray[np.float64], bias: Float64
) -> onnx.NodeProto | None:
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


def _reader(
    graph: Rewriter, node: onnx.NodeProto, shapes: Shapes, scale: Float64, shift: Float64
) -> tuple[onnx.NodeProto | None, Float64, Float64]:
    """Finds the only layer that reads a BatchNormalization, through Flatten or Reshape to (N, features) too.

    Returns:
        The layer, None if there is no such layer; then scale and shift of each input feature of the layer.
    """
    name = node.output[0]
    while graph.private(name):
        reader = graph.readers(name)[0]
        if reader.input[0] != name:
            break
        if reader.op_type in LAYERS and _takes(reader, shapes):
            return reader, scale, shift
        before, after = shapes.get(name, ()), shapes.get(reader.output[0], ())
        flat = reader.op_type in ("Flatten", "Reshape") and len(after) == 2 and after[0] == 1 and len(before) > 1
        if not flat or before[0] != 1 or after[1] != int(np.prod(before[1:])):
            break
        repeats = after[1] // len(scale)
        scale, shift, name = np.repeat(scale, repeats), np.repeat(shift, repeats), reader.output[0]
    return None, scale, shift


def _takes(layer: onnx.NodeProto, shapes: Shapes) -> bool:
    """True if the layer has its channels on axis 1, like BatchNormalization.

    A MatMul has its channels on the last axis, so its input must be 2-D.
    """
    return layer.op_type != "MatMul" or len(shapes.get(layer.input[0], ())) == 2


plugin = Pass(
    name="batchnorm",
    summary="BatchNorm into the layer before or after it, dense or not",
    apply=batchnorm,
    tolerance=1e-6,
)
