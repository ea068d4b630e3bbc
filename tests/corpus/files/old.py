"""Operators whose meaning or form changed since an old opset."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from tests.corpus.nodes import CHANNELS, MAP, Graph, around, constant, vector, weights
from tests.corpus.registry import file

OLD, MIDDLE, ALL = (7, 9), (11, 13, 15, 17), (7, 9, 11, 13, 15, 17, 18, 20, 21, 23)


@file("a plain network", *ALL)
def plain(opset: int) -> onnx.ModelProto:
    return around(opset, lambda graph, x: graph.add("Relu", graph.conv(x, "middle", CHANNELS, CHANNELS)))


@file("Upsample, linear, to twice the size", *OLD)
def upsample_linear(opset: int) -> onnx.ModelProto:
    return around(opset, lambda graph, x: _upsample(graph, x, "linear"))


@file("Upsample, nearest, to twice the size", *OLD)
def upsample_nearest(opset: int) -> onnx.ModelProto:
    return around(opset, lambda graph, x: _upsample(graph, x, "nearest"))


def _upsample(graph: Graph, x: str, mode: str) -> str:
    scales = [1.0, 1.0, 2.0, 2.0]
    if graph.opset < 9:
        return str(graph.add("Upsample", x, mode=mode, scales=scales))
    return str(graph.add("Upsample", x, constant("scales", scales, np.float32), mode=mode))


@file("Resize as in opset 11, by pytorch_half_pixel", 11, 13, 18)
def resize_half_pixel(opset: int) -> onnx.ModelProto:
    return around(opset, lambda graph, x: _resize(graph, x, "pytorch_half_pixel", "linear"))


@file("Resize as in opset 11, asymmetric and nearest with floor", 11, 13, 18)
def resize_asymmetric(opset: int) -> onnx.ModelProto:
    return around(opset, lambda graph, x: _resize(graph, x, "asymmetric", "nearest", nearest_mode="floor"))


@file("Resize with aligned corners, cubic", 11, 13, 18)
def resize_cubic(opset: int) -> onnx.ModelProto:
    return around(opset, lambda graph, x: _resize(graph, x, "align_corners", "cubic", cubic_coeff_a=-0.75))


def _resize(graph: Graph, x: str, coordinates: str, mode: str, **more: Any) -> str:
    scales = constant("scales", [1, 1, 1.5, 1.5], np.float32)
    roi = constant("roi", [], np.float32)
    attributes: dict[str, Any] = {"coordinate_transformation_mode": coordinates, "mode": mode, **more}
    return str(graph.add("Resize", x, roi, scales, **attributes))


@file("Clip with limits as attributes, or as constants", 7, 9, 11, 13)
def clip(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        if opset < 11:
            return str(graph.add("Clip", x, min=0.0, max=0.8))
        low, high = (graph.add("Constant", value=constant("", value, np.float32)) for value in (0.0, 0.8))
        return str(graph.add("Clip", x, low, high))

    return around(opset, construct)


@file("Clip with an upper limit only", 11, 13)
def clip_above(opset: int) -> onnx.ModelProto:
    return around(opset, lambda graph, x: graph.add("Clip", x, "", constant("high", 0.8, np.float32)))


@file("Dropout left in the graph", 7, 9, 11, 13)
def dropout(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        if opset < 12:
            return str(graph.add("Dropout", x, ratio=0.4))
        return str(graph.add("Dropout", x, constant("ratio", 0.4, np.float32)))

    return around(opset, construct)


@file("BatchNormalization behind a convolution", 7, 9, 13, 15)
def batch_norm(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        x = graph.conv(x, "middle", CHANNELS, CHANNELS)
        numbers = [vector("scale", 0.5, 1.5), vector("shift", -0.2, 0.2), vector("mean", -0.2, 0.2)]
        return str(graph.add("BatchNormalization", x, *numbers, vector("variance", 0.5, 1.5), epsilon=1e-3))

    return around(opset, construct)


@file("BatchNormalization in training mode", 15)
def batch_norm_training(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        numbers = [vector("scale", 0.5, 1.5), vector("shift", -0.2, 0.2), vector("mean", -0.2, 0.2)]
        names = graph.add("BatchNormalization", x, *numbers, vector("var", 0.5, 1.5), outputs=3, training_mode=1)
        return str(names[0])

    return around(opset, construct)


@file("Slice with limits as attributes, or as inputs with steps", 7, 9, 11, 13)
def slices(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        if opset < 10:
            return str(graph.add("Slice", x, axes=[2, 3], starts=[1, 0], ends=[-1, 2**31 - 1]))
        limits = {"starts": [-1, 0], "ends": [-(2**31), 2**31 - 1], "axes": [2, 3], "steps": [-1, 2]}
        return str(graph.add("Slice", x, *(constant(name, value) for name, value in limits.items())))

    return around(opset, construct)


@file("Pad with reflection", 7, 9, 11, 13, 18)
def pad(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        sizes = [0, 0, 1, 2, 0, 0, 1, 2]
        if opset < 11:
            return str(graph.add("Pad", x, mode="reflect", pads=sizes))
        return str(graph.add("Pad", x, constant("pads", sizes), mode="reflect"))

    return around(opset, construct)


@file("Squeeze, Unsqueeze and ReduceMean with axes as attributes, or as inputs", 7, 9, 11, 13, 18)
def axes(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        def reshaped(kind: str, x: str, axes: list[int], since: int, **more: int) -> str:
            if opset < since:
                return str(graph.add(kind, x, axes=axes, **more))
            return str(graph.add(kind, x, constant(f"axes{len(graph.nodes)}", axes), **more))

        mean = reshaped("ReduceMean", x, [2, 3], 18, keepdims=1)
        mean = reshaped("Unsqueeze", reshaped("Squeeze", mean, [2, 3], 13), [2, 3], 13)
        return str(graph.add("Mul", x, graph.add("Sigmoid", mean)))

    return around(opset, construct)


@file("Split into unequal parts", 7, 9, 11, 13, 18)
def split(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        sizes = [4, 12]
        if opset < 13:
            one, two = graph.add("Split", x, outputs=2, axis=1, split=sizes)
        else:
            one, two = graph.add("Split", x, constant("sizes", sizes), outputs=2, axis=1)
        return str(graph.add("Concat", two, one, axis=1))

    return around(opset, construct)


@file("Softmax over all axes from the second on, as before opset 13", 7, 9, 11)
def softmax(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        share = graph.add("Softmax", graph.conv(x, "middle", CHANNELS, CHANNELS), axis=1)
        return str(graph.add("Mul", graph.add("Mul", x, share), constant("many", 500.0, np.float32)))

    return around(opset, construct)


@file("TopK with k as attribute, or as input", 7, 9, 11)
def topk(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        if opset < 10:
            values, _ = graph.add("TopK", x, outputs=2, axis=3, k=8)
        else:
            values, _ = graph.add("TopK", x, constant("k", [8]), outputs=2, axis=3)
        return str(values)

    return around(opset, construct)


@file("sizes computed from the input: Shape, Gather, Concat, Reshape", 7, 9, 11, 13, 15, 18)
def computed_sizes(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        count = graph.add("Gather", graph.add("Shape", x), constant("first", 0), axis=0)
        count = (
            graph.add("Unsqueeze", count, axes=[0]) if opset < 13 else graph.add("Unsqueeze", count, constant("a", [0]))
        )
        flat = graph.add("Concat", count, constant("rest", [CHANNELS, MAP * MAP]), axis=0)
        back = graph.add("Concat", count, constant("sides", [CHANNELS, MAP, MAP]), axis=0)
        return str(graph.add("Reshape", graph.add("Relu", graph.add("Reshape", x, flat)), back))

    return around(opset, construct)


@file("LSTM over rows", 7, 9, 11, 14)
def lstm(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        rows = graph.add("ReduceMean", x, axes=[3], keepdims=0)
        sequence = graph.add("Transpose", rows, perm=[2, 0, 1])
        cells = [weights("cell.w", 1, 4 * CHANNELS, CHANNELS), weights("cell.r", 1, 4 * CHANNELS, CHANNELS)]
        result, _ = graph.add("LSTM", sequence, *cells, outputs=2, hidden_size=CHANNELS)
        last = graph.add("Reshape", result, constant("shape", [MAP, -1, CHANNELS, 1]))
        return str(graph.add("Add", x, graph.add("Transpose", last, perm=[1, 2, 0, 3])))

    return around(opset, construct)


@file("weights listed as inputs, as in files before format 4", 7)
def weights_as_inputs(opset: int) -> onnx.ModelProto:
    return around(opset, lambda graph, x: graph.add("LeakyRelu", x, alpha=0.1))


@file("a Gemm on two maps, and a MatMul with the weight first", *MIDDLE)
def products(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        flat = graph.add("Reshape", x, constant("flat", [0, CHANNELS, MAP * MAP]))
        mixed = graph.add("MatMul", weights("mix", CHANNELS, CHANNELS), flat)
        return str(graph.add("Reshape", mixed, constant("back", [0, CHANNELS, MAP, MAP])))

    return around(opset, construct)


@file("a cast to float16 and back, as converters leave it", 9, 11, 13, 15, 17)
def half_inside(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        half = graph.add("Relu", graph.add("Cast", x, to=TensorProto.FLOAT16))
        return str(graph.add("Cast", half, to=TensorProto.FLOAT))

    return around(opset, construct)
