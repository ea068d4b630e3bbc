"""Types and layouts of the image, and pre-processing inside the file."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from tests.corpus.nodes import Graph, constant
from tests.corpus.registry import POINTS, SIDE, file

BOTH = (13, 17)


def _last(images: NDArray[np.float32]) -> NDArray[np.float32]:
    return images.transpose(0, 2, 3, 1)


@file("NHWC float32, transposed inside", *BOTH, feed=_last)
def channels_last(opset: int) -> onnx.ModelProto:
    graph = Graph(opset)
    output = graph.head(graph.stem(graph.add("Transpose", "image", perm=[0, 3, 1, 2])))
    return graph.model(output, inputs=(("image", TensorProto.FLOAT, ["N", SIDE, SIDE, 3]),))


@file("NHWC uint8, cast and divided inside", *BOTH, white=255, feed=lambda images: _last(images).astype(np.uint8))
def bytes_last(opset: int) -> onnx.ModelProto:
    graph = Graph(opset)
    pixels = graph.add("Transpose", graph.add("Cast", "image", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    output = graph.head(graph.stem(graph.add("Div", pixels, constant("most", 255, np.float32))))
    return graph.model(output, inputs=(("image", TensorProto.UINT8, ["N", SIDE, SIDE, 3]),))


@file("NCHW uint8", *BOTH, white=255, feed=lambda images: images.astype(np.uint8))
def bytes_first(opset: int) -> onnx.ModelProto:
    graph = Graph(opset)
    pixels = graph.add("Cast", "image", to=TensorProto.FLOAT)
    output = graph.head(graph.stem(graph.add("Mul", pixels, constant("part", 1 / 255, np.float32))))
    return graph.model(output, inputs=(("image", TensorProto.UINT8, [1, 3, SIDE, SIDE]),), outputs=_one(output))


def _one(output: str) -> list[tuple[str, int, list[int]]]:
    return [(output, TensorProto.FLOAT, [1, 2 * POINTS])]


@file("float16 input and output", *BOTH, slack=100, feed=lambda images: images.astype(np.float16))
def half(opset: int) -> onnx.ModelProto:
    graph = Graph(opset)
    output = graph.add("Cast", graph.head(graph.stem(graph.add("Cast", "image", to=1))), to=TensorProto.FLOAT16)
    outputs = [(output, TensorProto.FLOAT16, ["N", 2 * POINTS])]
    return graph.model(output, inputs=(("image", TensorProto.FLOAT16, ["N", 3, SIDE, SIDE]),), outputs=outputs)


@file("mean and deviation subtracted and divided inside", *BOTH)
def normalised(opset: int) -> onnx.ModelProto:
    graph = Graph(opset)
    mean = constant("mean", np.array([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1), np.float32)
    deviation = constant("std", np.array([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1), np.float32)
    output = graph.head(graph.stem(graph.add("Div", graph.add("Sub", "image", mean), deviation)))
    return graph.model(output)


@file("channels exchanged inside (RGB to BGR)", *BOTH)
def exchanged(opset: int) -> onnx.ModelProto:
    graph = Graph(opset)
    return graph.model(graph.head(graph.stem(graph.add("Gather", "image", constant("order", [2, 1, 0]), axis=1))))
