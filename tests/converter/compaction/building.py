"""Small graphs, built layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIZE = 8


class Net:
    """A graph from `input` (N, 3, 8, 8), built from input to output; methods return the name of the new value."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def node(self, op: str, *inputs: str | NDArray[Any], name: str = "", **attributes: Any) -> str:
        """Adds a node; arrays among the inputs become constants."""
        out = name or f"{op.lower()}_{len(self.nodes)}"
        names = [item if isinstance(item, str) else self.constant(item, f"{out}.{i}") for i, item in enumerate(inputs)]
        self.nodes.append(helper.make_node(op, names, [out], name=out, **attributes))
        return out

    def constant(self, value: NDArray[Any], name: str) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, *shape: int) -> NDArray[np.float32]:
        """Random filters that keep values near one."""
        return np.asarray(self.random.normal(size=shape) / np.sqrt(np.prod(shape[1:])), np.float32)

    def bias(self, count: int) -> NDArray[np.float32]:
        return self.random.uniform(0.2, 0.8, count).astype(np.float32)

    def conv(
        self,
        data: str,
        inputs: int,
        outputs: int,
        *,
        name: str,
        kernel: int = 1,
        dead: Sequence[int] = (),
        constant: float = 0.0,
        unread: Sequence[int] = (),
        **attributes: Any,
    ) -> str:
        """Adds a convolution, padded to keep the size.

        Args:
            data: Name of the input.
            inputs: Number of input channels.
            outputs: Number of output channels.
            name: Name of the output.
            kernel: Size of the kernel.
            dead: Output channels with a filter of zeros.
            constant: Bias of the dead channels.
            unread: Input channels with zero weights.
            attributes: Attributes of the node.
        """
        weight, bias = self.weight(outputs, inputs, kernel, kernel), self.bias(outputs)
        weight[list(dead)], bias[list(dead)] = 0, constant
        weight[:, list(unread)] = 0
        settings = {"pads": [kernel // 2] * 4, **attributes}
        return self.node("Conv", data, weight, bias, name=name, **settings)

    def head(self, data: str, inputs: int) -> onnx.ModelProto:
        """Adds a padded convolution that reads every channel, to keep channels alive; returns the graph."""
        out = self.conv(data, inputs, 2, kernel=3, name="head")
        return self.model(out)

    def model(self, *outputs: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            self.constants,
        )
        model = onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        )
        kinds = {value.name: value for value in model.graph.value_info}
        for value in model.graph.output:
            if value.name in kinds:
                value.CopyFrom(kinds[value.name])
        return model
