"""Small graphs, a layer at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIZE = 8


class Net:
    """A graph from `input` (N, 3, 8, 8), built from front to back; every method gives the name of a value."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def node(self, op: str, *inputs: str | NDArray[Any], name: str = "", **attributes: Any) -> str:
        """Any operator; an array becomes a constant."""
        out = name or f"{op.lower()}_{len(self.nodes)}"
        names = [each if isinstance(each, str) else self.constant(each, f"{out}.{i}") for i, each in enumerate(inputs)]
        self.nodes.append(helper.make_node(op, names, [out], name=out, **attributes))
        return out

    def constant(self, value: NDArray[Any], name: str) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, *shape: int) -> NDArray[np.float32]:
        """Random filters that keep values around one."""
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
        """A convolution, padded to keep the size; `dead` filters give `constant`, `unread` inputs are not used."""
        weight, bias = self.weight(outputs, inputs, kernel, kernel), self.bias(outputs)
        weight[list(dead)], bias[list(dead)] = 0, constant
        weight[:, list(unread)] = 0
        settings = {"pads": [kernel // 2] * 4, **attributes}
        return self.node("Conv", data, weight, bias, name=name, **settings)

    def head(self, data: str, inputs: int) -> onnx.ModelProto:
        """Ends in one padded convolution that reads everything, so that nothing before it is dead by chance."""
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
        made = onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        )
        kinds = {value.name: value for value in made.graph.value_info}
        for value in made.graph.output:
            if value.name in kinds:
                value.CopyFrom(kinds[value.name])
        return made
