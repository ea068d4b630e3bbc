"""Building blocks of the hand-written ONNX files: seeded weights, layers of any opset, and the model around them."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tests.corpus.registry import POINTS, SIDE

CHANNELS = 16
"""Channels of the stem, whose map is half the height and width of the input."""
MAP = SIDE // 2
IR = {7: 3, 9: 4, 11: 6, 13: 7, 14: 7, 15: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}
"""Version of the file format of each opset."""


def weights(name: str, *shape: int) -> TensorProto:
    """Returns seeded weights of a layer; the name decides the numbers."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    scale = 1.4 / np.sqrt(max(1, int(np.prod(shape[1:]))))
    return numpy_helper.from_array((random.standard_normal(shape) * scale).astype(np.float32), name)


def constant(name: str, value: Any, dtype: Any = np.int64) -> TensorProto:
    """Returns an initializer."""
    return numpy_helper.from_array(np.array(value, dtype), name)


def vector(name: str, low: float, high: float, count: int = CHANNELS) -> TensorProto:
    """Returns seeded numbers between two limits."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    return numpy_helper.from_array(random.uniform(low, high, count).astype(np.float32), name)


class Graph:
    """A graph that grows node by node.

    Attributes:
        opset: Opset of the file.
        nodes: Nodes so far.
        initializers: Weights so far.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []

    def add(self, kind: str, *inputs: str | TensorProto, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; tensors among its inputs become initializers. Returns the name of its output, or the names."""
        names = []
        for value in inputs:
            if not isinstance(value, str):
                self.initializers += [] if value.name in {known.name for known in self.initializers} else [value]
            names.append(value if isinstance(value, str) else value.name)
        made = [f"v{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, names, made, name=f"n{len(self.nodes)}", **attributes))
        return made[0] if outputs == 1 else made

    def conv(
        self, x: str, name: str, inputs: int, outputs: int, stride: int = 1, kind: str = "Conv", **more: Any
    ) -> str:
        """Adds a 3x3 convolution with bias."""
        size: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [stride, stride], "pads": [1, 1, 1, 1]}
        bias = vector(f"{name}.b", -0.1, 0.1, outputs)
        return str(self.add(kind, x, weights(f"{name}.w", outputs, inputs, 3, 3), bias, **size, **more))

    def stem(self, x: str = "image") -> str:
        """Adds a convolution and a ReLU: (N, 3, 32, 32) to (N, 16, 16, 16)."""
        return str(self.add("Relu", self.conv(x, "stem", 3, CHANNELS, 2)))

    def head(self, x: str, channels: int = CHANNELS, points: int = POINTS) -> str:
        """Adds a convolution, a mean and a dense layer: (N, channels, h, w) to (N, 2L) around 0.5."""
        x = self.add("Relu", self.conv(x, "body", channels, 32, 2))
        x = self.add("Flatten", self.add("GlobalAveragePool", x), axis=1)
        dense = numpy_helper.to_array(weights("dense.w", 2 * points, 32)) * 0.3
        bias = vector("dense.b", 0.3, 0.7, 2 * points)
        options = {"broadcast": 1} if self.opset < 7 else {}
        return str(self.add("Gemm", x, numpy_helper.from_array(dense, "dense.w"), bias, transB=1, **options))

    def model(
        self,
        output: str,
        *,
        inputs: Sequence[tuple[str, int, Sequence[Any]]] = (("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE]),),
        outputs: Sequence[tuple[str, int, Sequence[Any]]] | None = None,
        domains: Iterable[tuple[str, int]] = (),
        functions: Sequence[onnx.FunctionProto] = (),
    ) -> onnx.ModelProto:
        """Returns the model; below file format 4 every initializer is an input, as that format demands."""
        described = outputs or [(output, TensorProto.FLOAT, ["N", 2 * POINTS])]
        values = [helper.make_tensor_value_info(*value) for value in inputs]
        if IR[self.opset] < 4:
            values += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in self.initializers]
        graph = helper.make_graph(
            self.nodes, "net", values, [helper.make_tensor_value_info(*value) for value in described], self.initializers
        )
        imports = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(*domain) for domain in domains)]
        return helper.make_model(graph, opset_imports=imports, ir_version=IR[self.opset], functions=list(functions))


def around(opset: int, construct: Any, channels: int = CHANNELS, **options: Any) -> onnx.ModelProto:
    """Returns a model with a construct, a function (graph, name of a map) to the name of its result, in the middle."""
    graph = Graph(opset)
    return graph.model(graph.head(construct(graph, graph.stem()), channels), **options)


def floats(values: NDArray[Any], name: str) -> TensorProto:
    """Returns an initializer of float32."""
    return numpy_helper.from_array(np.asarray(values, np.float32), name)
