"""Writes a deformable convolution as bilinear sampling and a 1x1 convolution, for runtimes without DeformConv.

Each output of a K-tap convolution reads K samples of each channel, at positions that offsets move. One GridSample takes
all samples; a 1x1 convolution over (channel, tap) multiplies the samples by the weights. Source of the layout of the
offsets: ONNX's definition of DeformConv; y before x for each tap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from lmconv.opsets.rewriting import Call, Rules, rewrite
from lmconv.types import FLOAT16_ROUNDING, Float32, Json, Pass, PassContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Taps:
    """Sizes of a deformable convolution.

    Attributes:
        channels: Number of input channels.
        groups: Number of groups of channels with their own offsets.
        size: (height, width) of the input.
        out: (height, width) of the output.
        kernel: (height, width) of the kernel.
    """

    channels: int
    groups: int
    size: tuple[int, int]
    out: tuple[int, int]
    kernel: tuple[int, int]

    @property
    def count(self) -> int:
        """Number of taps."""
        return self.kernel[0] * self.kernel[1]


def deformable(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Replaces DeformConv, in subgraphs too. A layer of unknown size stays."""
    return model, {"replaced": dict(sorted(rewrite(model, RULES).items()))}


def _deform_conv(call: Call) -> Sequence[str] | None:
    taps = _taps(call)
    if taps is None:
        return None
    data, weight, offset, bias, mask = (_in_float32(call, index) for index in range(5))
    count, (height, width) = taps.count, taps.out
    split = call.add("Reshape", offset, call.constant([0, taps.groups, count, 2, height, width]))
    moved = call.add("Transpose", split, perm=[0, 1, 2, 4, 5, 3])
    pairs = call.add("Gather", moved, call.constant([1, 0]), axis=-1)  # x before y
    steps = call.constant((2 / np.array(taps.size[::-1])).astype(np.float32))
    grid = call.add("Add", call.add("Mul", pairs, steps), call.constant(_base(call, taps)))
    flat = call.add("Reshape", grid, call.constant([-1, count * height, width, 2]))
    image = call.add("Reshape", data, call.constant([-1, taps.channels // taps.groups, *taps.size]))
    mode = "linear" if call.facts.opset >= 20 else "bilinear"
    samples = call.add("GridSample", image, flat, mode=mode, padding_mode="zeros", align_corners=0)
    if mask:
        mask = call.add("Reshape", mask, call.constant([-1, 1, count * height, width]))
        samples = call.add("Mul", samples, mask)
    columns = call.add("Reshape", samples, call.constant([-1, taps.channels * count, height, width]))
    kernel = call.add("Reshape", weight, call.constant([0, -1, 1, 1]))
    result = call.add("Conv", columns, kernel, *filter(None, [bias]), group=call.get("group", 1))
    return [call.add("CastLike", result, call.input(0)) if call.facts.half else result]


def _in_float32(call: Call, index: int) -> str:
    """Returns an input in float32, in which positions are exact enough; empty if the node omits the input."""
    name = call.input(index)
    return call.add("Cast", name, to=onnx.TensorProto.FLOAT) if name and call.facts.half else name


def _taps(call: Call) -> Taps | None:
    """Returns the sizes of a layer; None if one is unknown or the layer is not two-dimensional."""
    shapes = [call.facts.shapes.get(call.input(index), ()) for index in range(3)]
    data, weight, offset = (shape[1:] for shape in shapes)
    if [len(shape) for shape in (data, weight, offset)] != [3, 3, 3]:
        return None
    sizes = [side for side in (*data, *weight[1:], *offset[1:]) if side is not None]
    if len(sizes) != 7:
        return None
    channels, high, wide, kernel_height, kernel_width, height, width = sizes
    return Taps(
        channels=channels,
        groups=call.get("offset_group", 1),
        size=(high, wide),
        out=(height, width),
        kernel=(kernel_height, kernel_width),
    )


def _base(call: Call, taps: Taps) -> Float32:
    """Returns the positions of the samples without offsets, (taps, height, width, 2) float32.

    x before y; from -1 to 1 across the input, as GridSample takes positions.
    """
    strides, dilations, pads = call.get("strides", [1, 1]), call.get("dilations", [1, 1]), call.get("pads", [0] * 4)
    axes = []
    for axis in range(2):
        starts = np.arange(taps.out[axis]) * strides[axis] - pads[axis]
        position = starts[None] + np.arange(taps.kernel[axis])[:, None] * dilations[axis]
        axes.append((2 * position + 1) / taps.size[axis] - 1)
    y, x = axes  # (kernel height, height), (kernel width, width)
    shape = (*taps.kernel, *taps.out)
    grid = np.stack([np.broadcast_to(x[None, :, None, :], shape), np.broadcast_to(y[:, None, :, None], shape)], -1)
    return grid.reshape(taps.count, *taps.out, 2).astype(np.float32)


RULES: Rules = {("", "DeformConv"): _deform_conv}

plugin = Pass(
    name="deformable",
    summary="DeformConv as GridSample and a 1x1 convolution",
    apply=deformable,
    tolerance=FLOAT16_ROUNDING,
)
