"""An index of an ONNX graph: constants, readers, attributes, subgraphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lmconv.types import Float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """An index of an ONNX graph; `constants` may be replaced, the nodes may not."""

    proto: onnx.GraphProto
    opsets: list[onnx.OperatorSetIdProto]
    constants: dict[str, NDArray[Any]]
    consumers: dict[str, list[onnx.NodeProto]]
    inputs: list[str]
    outputs: list[str]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Graph:
        """Indexes `model`."""
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                consumers.setdefault(name, []).append(node)
        return cls(
            proto=model.graph,
            opsets=list(model.opset_import),
            constants=constants,
            consumers=consumers,
            inputs=[value.name for value in model.graph.input if value.name not in constants],
            outputs=[value.name for value in model.graph.output],
        )

    def computed(self, node: onnx.NodeProto) -> list[str]:
        """The inputs of `node` that are not constant."""
        return [name for name in node.input if name and name not in self.constants]


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """An attribute's value."""
    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


def reads(node: onnx.NodeProto) -> list[str]:
    """Everything a node reads, what its subgraphs take from outside included; an input left out is not in it."""
    inner = [name for graph in subgraphs(node) for part in graph.node for name in reads(part)]
    return [name for name in (*node.input, *inner) if name]


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs within a node, such as the branches of an If."""
    for item in node.attribute:
        yield from [item.g] if item.type == onnx.AttributeProto.GRAPH else item.graphs


def layer_bias(node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]], outputs: int) -> Float64 | None:
    """(outputs,) float64: what a convolution or linear layer adds; None where that is computed, or of another shape."""
    if len(node.input) < 3 or not node.input[2]:
        return np.zeros(outputs)
    given = constants.get(node.input[2])
    if given is None or (given.size != 1 and given.shape[-1] != given.size) or given.size not in (1, outputs):
        return None
    scale = attribute(node, "beta", 1.0) if node.op_type == "Gemm" else 1.0
    return np.broadcast_to(given.ravel().astype(np.float64) * scale, outputs)


def padded(node: onnx.NodeProto) -> bool:
    """Whether a convolution pads with zeros, or may, as its `auto_pad` says."""
    mode = attribute(node, "auto_pad", b"NOTSET")
    return mode in (b"SAME_UPPER", b"SAME_LOWER") or (mode == b"NOTSET" and any(attribute(node, "pads", [])))
