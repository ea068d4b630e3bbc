"""Rounds activations and weights to integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lmconv.graph.execution import Chunks
from lmconv.graph.index import Graph, attribute
from lmconv.quantise.plan import CONVOLUTIONS, output_axis
from lmconv.types import Float32, Float64

POSITIONS = 1024
"""Number of output positions, over all crops, at which the covariance of a convolution's input is sampled."""
DAMPING = 0.01
"""Share of the mean variance added to the diagonal of a covariance before its inversion."""
BLOCK = 64
"""Number of weight columns that are rounded before their errors are passed to all later columns at once."""
LARGEST_WEIGHT = 127
"""Largest magnitude of an int8 weight."""
LARGEST_PAIR = 128
"""Largest sum of two int8 weights of one sign beside uint8 activations on a CPU without AVX512-VNNI."""
SMALLEST_SCALE = 1e-20
"""Scale up to which a tensor or a filter counts as zero. A denormal scale would be slow, and its inverse infinite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """Quantisation of a tensor: real = scale * (integer - zero_point), with integers in [low, high]."""

    scale: float
    zero_point: int
    low: int
    high: int

    def snap(self, x: Float32) -> Float32:
        """Returns the nearest representable value of each element of `x`; float32, any shape."""
        scale = np.float32(self.scale)
        integers = np.rint(x / scale)
        np.clip(integers, self.low - self.zero_point, self.high - self.zero_point, out=integers)
        snapped: Float32 = np.multiply(integers, scale, out=integers)
        return snapped


def make_affine(low: float, high: float, kind: str) -> Affine:
    """Returns the quantisation that covers the observed [low, high] and represents 0 exactly, as zero padding needs.

    No value is clipped. After equalisation the extreme values of a tensor matter for the landmarks: clipping for the
    least L2 or L3 error reduced the accuracy.

    Args:
        low: Smallest observed value.
        high: Largest observed value.
        kind: Integer type, `"uint8"` or `"int8"`.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max(-low, high) / 127 if kind == "int8" else (high - low) / 255))
    scale = scale if scale > SMALLEST_SCALE else 1.0
    if kind == "int8":
        return Affine(scale=scale, zero_point=0, low=-128, high=127)
    return Affine(scale=scale, zero_point=round(-low / scale), low=0, high=255)


@dataclass(slots=True, kw_only=True)
class Layer:
    """An int8 layer.

    Attributes:
        weights: int8 weights, in the shape that the graph has.
        scale: Weight scale of each output channel, (C_out,) float32.
        bias: (C_out,) float32.
        axis: Axis of the output channels in `weights`.
    """

    weights: NDArray[np.int8]
    scale: Float32
    bias: Float32
    axis: int

    def dequantised(self) -> Float32:
        """Returns the float32 weights that the integers represent."""
        real: Float32 = (self.weights * along(self.scale, self.axis, self.weights.ndim)).astype(np.float32)
        return real


def along(vector: NDArray[Any], axis: int, ndim: int) -> NDArray[Any]:
    """Reshapes a (C,) vector to broadcast along `axis` of an array with `ndim` axes."""
    return vector.reshape([-1 if index == axis else 1 for index in range(ndim)])


def quantise_layer(
    graph: Graph, node: onnx.NodeProto, input_affine: Affine, kind: str, covariance: Float64 | None = None
) -> Layer:
    """Rounds a layer's weights to symmetric int8 with a scale per output channel.

    Args:
        graph: Index of the float graph with the float weights.
        node: The layer.
        input_affine: Scale and zero point of the layer's input.
        kind: Integer type of activations, `"uint8"` or `"int8"`.
        covariance: (groups, fan-in, fan-in) float64 covariance of the layer's input, for adaptive rounding; None rounds
            to the nearest integer.
    """
    weights = graph.constants[node.input[1]]
    axis = output_axis(node)
    shape = np.moveaxis(weights, axis, 0).shape
    rows = np.moveaxis(weights, axis, 0).reshape(shape[0], -1).astype(np.float64)
    bias = np.zeros(len(rows), np.float32)
    if len(node.input) > 2:
        bias = bias + graph.constants[node.input[2]].reshape(-1)
    # ONNX Runtime stores a bias as int32 in steps of input scale times weight scale. The lower bound on the weight
    # scale keeps the bias of a nearly dead channel from overflow.
    scale = np.maximum(weight_scale(rows, kind), np.abs(bias) / (input_affine.scale * 2**24)).astype(np.float32)
    scale = np.where(scale > SMALLEST_SCALE, scale, np.float32(1.0))
    integers = round_weights(rows / scale[:, None], covariance).reshape(shape)
    return Layer(weights=np.moveaxis(integers, 0, axis).astype(np.int8), scale=scale, bias=bias, axis=axis)


def weight_scale(rows: Float64, kind: str) -> Float64:
    """Returns the quantisation step of each output channel, (C_out,), for weights (C_out, fan-in).

    x86 without VNNI adds two uint8 * int8 products in a saturating int16 (`vpmaddubsw`). Beside uint8 activations the
    two largest weights of one sign therefore share 128 steps. The usual remedy, half the range for all weights ("reduce
    range"), costs more accuracy.
    """
    step: Float64 = np.abs(rows).max(axis=1) / LARGEST_WEIGHT
    if kind == "int8" or rows.shape[1] == 1:
        return step
    ranked = np.sort(rows, axis=1)
    pair = np.maximum(ranked[:, -2:].sum(axis=1), -ranked[:, :2].sum(axis=1))
    # Rounding may raise both weights by half a step.
    limited: Float64 = np.maximum(step, pair / (LARGEST_PAIR - 1))
    return limited


def round_weights(rows: Float64, covariance: Float64 | None) -> Float64:
    """Rounds weights (C_out, fan-in), in units of the quantisation step, to integers.

    With the covariance of the input, (groups, fan-in, fan-in), the weights not yet rounded compensate the rounding
    error of each weight (GPTQ, Frantar et al. 2023). No weight moves by more than one step. Without covariance each
    weight is rounded to the nearest integer.
    """
    nearest = np.clip(np.rint(rows), -LARGEST_WEIGHT, LARGEST_WEIGHT)
    if covariance is None:
        return nearest
    groups, fan_in = covariance.shape[:2]
    power = np.trace(covariance, axis1=1, axis2=2) / fan_in + 1e-12
    damped = covariance + DAMPING * power[:, None, None] * np.eye(fan_in)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    weights = rows.reshape(groups, -1, fan_in).copy()
    low, high = np.floor(weights), np.ceil(weights)
    for start in range(0, fan_in, BLOCK):
        stop = min(start + BLOCK, fan_in)
        errors = np.empty((*weights.shape[:2], stop - start))
        for i in range(start, stop):
            rounded = np.clip(np.rint(weights[..., i]), low[..., i], high[..., i])
            errors[..., i - start] = (weights[..., i] - rounded) / upper[:, i, i, None]
            weights[..., i] = rounded
            weights[..., i + 1 : stop] -= errors[..., i - start, None] * upper[:, None, i, i + 1 : stop]
        weights[..., stop:] -= errors @ upper[:, start:stop, stop:]
    return np.clip(weights.reshape(rows.shape), -LARGEST_WEIGHT, LARGEST_WEIGHT)


def input_covariance(
    node: onnx.NodeProto, weights: NDArray[Any], x: Chunks, rng: np.random.Generator
) -> Float64 | None:
    """Covariance of a layer's input at random output positions, (groups, fan-in, fan-in); None if not supported."""
    if node.op_type in CONVOLUTIONS:
        if node.op_type != "Conv" or weights.ndim != 4 or attribute(node, "auto_pad", b"NOTSET") != b"NOTSET":
            return None
        per_crop = -(-POSITIONS // sum(map(len, x)))
        rows = np.concatenate([_patches(node, weights, piece, per_crop, rng) for piece in x])
        samples = rows.reshape(len(rows), attribute(node, "group", 1), -1).transpose(1, 0, 2).astype(np.float64)
    else:
        samples = np.concatenate(x).reshape(1, -1, x[0].shape[-1]).astype(np.float64)
    samples = samples - samples.mean(axis=1, keepdims=True)
    covariance: Float64 = samples.transpose(0, 2, 1) @ samples / samples.shape[1]
    return covariance


def _patches(node: onnx.NodeProto, weights: NDArray[Any], x: Float32, count: int, rng: np.random.Generator) -> Float32:
    """Cuts input patches of a 2-D convolution from (N, C, H, W), `count` per crop: (m, C, kH, kW) float32."""
    top, left, bottom, right = attribute(node, "pads", [0, 0, 0, 0])
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    kernel = np.array(weights.shape[2:])
    stride, dilation = (np.array(attribute(node, name, [1, 1])) for name in ("strides", "dilations"))
    output_size = (padded.shape[2:] - dilation * (kernel - 1) - 1) // stride + 1
    corners = rng.integers(0, output_size, (len(x), min(count, int(output_size.prod())), 2)) * stride
    rows, columns = (corners[..., axis, None] + np.arange(kernel[axis]) * dilation[axis] for axis in range(2))
    crop = np.arange(len(x)).reshape(-1, 1, 1, 1)
    patches: Float32 = padded[crop, :, rows[..., :, None], columns[..., None, :]]
    return np.moveaxis(patches.reshape(-1, *patches.shape[2:]), -1, 1)
