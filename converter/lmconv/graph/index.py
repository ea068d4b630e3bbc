"""Index of an ONNX graph: constants, consumers, attributes and subgraphs."""

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
    """Index of an ONNX graph. Entries of `constants` may be replaced; the nodes must not change.

    Attributes:
        proto: The indexed graph.
        opsets: Opset imports of the model.
        constants: Initializers by name, as arrays.
        consumers: Nodes that read a value, themselves or in their subgraphs, by the name of the value.
        inputs: Names of the graph inputs that are not initializers.
        outputs: Names of the graph outputs.
    """

    proto: onnx.GraphProto
    opsets: list[onnx.OperatorSetIdProto]
    constants: dict[str, NDArray[Any]]
    consumers: dict[str, list[onnx.NodeProto]]
    inputs: list[str]
    outputs: list[str]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Graph:
        """Builds the index of a model's graph."""
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(reads(node)):
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
        """Returns the names of the inputs of `node` that are computed, not constant."""
        return [name for name in node.input if name and name not in self.constants]


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Returns the value of an attribute, or `default` if the node does not have the attribute."""
    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


def reads(node: onnx.NodeProto) -> list[str]:
    """Returns the names of all values that a node reads, and that the nodes of its subgraphs read.

    An omitted optional input has no name and is not returned.
    """
    nested = [name for graph in subgraphs(node) for inner in graph.node for name in reads(inner)]
    return [name for name in (*node.input, *nested) if name]


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yields the graphs among the attributes of a node, for example the branches of an If."""
    for item in node.attribute:
        yield from [item.g] if item.type == onnx.AttributeProto.GRAPH else item.graphs


def layer_bias(node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]], outputs: int) -> Float64 | None:
    """Returns the bias of a convolution or linear layer.

    Args:
        node: The layer. The `beta` of a Gemm is multiplied into the bias.
        constants: Constants of the graph by name.
        outputs: Number of outputs of the layer.

    Returns:
        (outputs,) float64, zeros if the layer has no bias; None if the bias is computed, or is neither one number nor
        one number per output.
    """
    if len(node.input) < 3 or not node.input[2]:
        return np.zeros(outputs)
    bias = constants.get(node.input[2])
    if bias is None or (bias.size != 1 and bias.shape[-1] != bias.size) or bias.size not in (1, outputs):
        return None
    scale = attribute(node, "beta", 1.0) if node.op_type == "Gemm" else 1.0
    return np.broadcast_to(bias.ravel().astype(np.float64) * scale, outputs)


def padded(node: onnx.NodeProto) -> bool:
    """True if a convolution pads its input with zeros, or may do so because `auto_pad` is SAME_UPPER or SAME_LOWER."""
    mode = attribute(node, "auto_pad", b"NOTSET")
    return mode in (b"SAME_UPPER", b"SAME_LOWER") or (mode == b"NOTSET" and any(attribute(node, "pads", [])))
