"""Files that are int8 already, or carry pairs of QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper
from tests.corpus.nodes import CHANNELS, Graph, around, constant, vector, weights
from tests.corpus.registry import file


def _rounded(name: str) -> tuple[onnx.TensorProto, float]:
    """Returns int8 weights of a 3x3 convolution, and their scale."""
    values = numpy_helper.to_array(weights(name, CHANNELS, CHANNELS, 3, 3))
    scale = float(np.abs(values).max()) / 127
    return numpy_helper.from_array(np.round(values / scale).astype(np.int8), name), scale


@file("Q/DQ around a convolution, weights stored in int8", 13, 17, 21)
def pairs(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        packed, scale = _rounded("packed")
        numbers = constant("x.scale", 0.02, np.float32), constant("x.zero", 10, np.uint8)
        x = graph.add("DequantizeLinear", graph.add("QuantizeLinear", x, *numbers), *numbers)
        layer = graph.add(
            "DequantizeLinear", packed, constant("w.scale", scale, np.float32), constant("w.zero", 0, np.int8)
        )
        return str(graph.add("Conv", x, layer, vector("bias", -0.1, 0.1), kernel_shape=[3, 3], pads=[1, 1, 1, 1]))

    return around(opset, construct)


@file("Q/DQ of weights that are stored in float32", 13, 17)
def fake_pairs(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        numbers = constant("scale", 0.02, np.float32), constant("zero", 0, np.int8)
        layer = graph.add("QuantizeLinear", weights("layer", CHANNELS, CHANNELS, 3, 3), *numbers)
        layer = graph.add("DequantizeLinear", layer, *numbers)
        return str(graph.add("Conv", x, layer, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))

    return around(opset, construct)


@file("Q/DQ with a scale per channel", 13, 17)
def pairs_per_channel(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        packed, scale = _rounded("packed")
        scales = constant("scales", [scale * (1 + 0.05 * channel) for channel in range(CHANNELS)], np.float32)
        layer = graph.add("DequantizeLinear", packed, scales, constant("zeros", [0] * CHANNELS, np.int8), axis=0)
        return str(graph.add("Conv", x, layer, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))

    return around(opset, construct)


@file("QLinearConv", 13, 17)
def integer_convolution(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        packed, scale = _rounded("packed")
        numbers = constant("x.scale", 0.02, np.float32), constant("x.zero", 10, np.uint8)
        out = constant("y.scale", 0.03, np.float32), constant("y.zero", 128, np.uint8)
        layer = packed, constant("w.scale", scale, np.float32), constant("w.zero", 0, np.int8)
        x = graph.add("QuantizeLinear", x, *numbers)
        x = graph.add("QLinearConv", x, *numbers, *layer, *out, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        return str(graph.add("DequantizeLinear", x, *out))

    return around(opset, construct)


@file("ranges computed at run time: DynamicQuantizeLinear and ConvInteger", 13, 17, slack=200, alone=True)
def dynamic(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        packed, scale = _rounded("packed")
        values, x_scale, zero = graph.add("DynamicQuantizeLinear", x, outputs=3)
        whole = graph.add("ConvInteger", values, packed, zero, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        real = graph.add("Cast", whole, to=onnx.TensorProto.FLOAT)
        return str(graph.add("Mul", real, graph.add("Mul", x_scale, constant("w.scale", scale, np.float32))))

    return around(opset, construct)
