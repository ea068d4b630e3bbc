"""Operators of opset 18 and later."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto
from tests.corpus.nodes import CHANNELS, MAP, Graph, around, constant, vector, weights
from tests.corpus.registry import file


@file("Gelu", 20, 21, 23)
def gelu(opset: int) -> onnx.ModelProto:
    return around(opset, lambda graph, x: graph.add("Gelu", graph.conv(x, "middle", CHANNELS, CHANNELS)))


@file("Gelu, tanh approximation", 20, 23)
def gelu_tanh(opset: int) -> onnx.ModelProto:
    return around(opset, lambda graph, x: graph.add("Gelu", x, approximate="tanh"))


@file("Mish", 18, 21)
def mish(opset: int) -> onnx.ModelProto:
    return around(opset, lambda graph, x: graph.add("Mish", graph.conv(x, "middle", CHANNELS, CHANNELS)))


@file("HardSwish", 15, 18, 21)
def hard_swish(opset: int) -> onnx.ModelProto:
    return around(opset, lambda graph, x: graph.add("HardSwish", graph.conv(x, "middle", CHANNELS, CHANNELS)))


@file("GroupNormalization with a scale per channel", 21, 23)
def group_norm(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        numbers = vector("scale", 0.5, 1.5), vector("shift", -0.2, 0.2)
        return str(graph.add("GroupNormalization", x, *numbers, num_groups=4))

    return around(opset, construct)


@file("LayerNormalization", 17, 18, 21)
def layer_norm(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        last = graph.add("Transpose", x, perm=[0, 2, 3, 1])
        norm = graph.add("LayerNormalization", last, vector("scale", 0.5, 1.5), vector("shift", -0.2, 0.2))
        return str(graph.add("Transpose", norm, perm=[0, 3, 1, 2]))

    return around(opset, construct)


@file("RMSNormalization", 23)
def rms_norm(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        last = graph.add("Transpose", x, perm=[0, 2, 3, 1])
        norm = graph.add("RMSNormalization", last, vector("scale", 0.5, 1.5))
        return str(graph.add("Transpose", norm, perm=[0, 3, 1, 2]))

    return around(opset, construct)


@file("Attention", 23)
def attention(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        flat = graph.add("Reshape", x, constant("flat", [0, CHANNELS, MAP * MAP]))
        tokens = graph.add("Transpose", flat, perm=[0, 2, 1])
        query, key = (graph.add("MatMul", tokens, weights(name, CHANNELS, CHANNELS)) for name in ("query", "key"))
        mixed = graph.add("Attention", query, key, tokens, q_num_heads=2, kv_num_heads=2)
        back = graph.add("Transpose", mixed, perm=[0, 2, 1])
        return str(graph.add("Reshape", back, constant("back", [0, CHANNELS, MAP, MAP])))

    return around(opset, construct)


@file("GridSample", 17, 18, 20)
def grid_sample(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        line = np.linspace(-0.9, 0.8, MAP, dtype=np.float32)
        grid = np.stack(np.meshgrid(line, line[::-1]), -1)[None]
        count = graph.add("Shape", x, start=0, end=1)
        shape = graph.add("Concat", count, constant("sides", [MAP, MAP, 2]), axis=0)
        mode = "linear" if opset >= 20 else "bilinear"
        return str(
            graph.add("GridSample", x, graph.add("Expand", constant("grid", grid, np.float32), shape), mode=mode)
        )

    return around(opset, construct)


@file("Resize with antialiasing", 18, 21)
def antialiased(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        sizes = constant("sizes", [7, 7])
        return str(graph.add("Resize", x, "", "", sizes, mode="linear", antialias=1, axes=[2, 3]))

    return around(opset, construct)


@file("Split by a number of outputs, which do not divide the channels", 18, 21)
def uneven_split(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        parts = graph.add("Split", x, outputs=3, axis=1, num_outputs=3)
        return str(graph.add("Concat", *reversed(parts), axis=1))

    return around(opset, construct)


@file("Pad on named axes, wrapped around", 19, 21)
def wrapped_pad(opset: int) -> onnx.ModelProto:
    return around(
        opset, lambda graph, x: graph.add("Pad", x, constant("p", [1, 1]), "", constant("a", [3]), mode="wrap")
    )


@file("ReduceMean and ReduceMax with axes as inputs", 18, 20, 23)
def reductions(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        mean = graph.add("ReduceMean", x, constant("axes", [1]), keepdims=1)
        largest = graph.add("ReduceMax", x, constant("axes", [1]), keepdims=1)
        return str(graph.add("Mul", x, graph.add("Sigmoid", graph.add("Add", mean, largest))))

    return around(opset, construct)


@file("deformable convolution", 19, 22)
def deformable(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        offsets = graph.conv(x, "offsets", CHANNELS, 18)
        layer = weights("deformed", CHANNELS, CHANNELS, 3, 3)
        return str(graph.add("DeformConv", x, layer, offsets, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))

    return around(opset, construct)


@file("weights in float8 cast to float32", 19, 21)
def float8_weights(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        numbers = np.arange(-8, 8, dtype=np.float32) / 16
        packed = onnx.helper.make_tensor("packed", TensorProto.FLOAT8E4M3FN, [1, CHANNELS, 1, 1], numbers.tolist())
        return str(graph.add("Add", x, graph.add("Cast", packed, to=TensorProto.FLOAT)))

    return around(opset, construct)
