"""Reads an ONNX file without the `onnx` package: the nodes, and which nodes compute in float32.

Reads the required part of Protocol Buffers' wire format directly: https://protobuf.dev/programming-guides/encoding/;
the field numbers are those of onnx.proto.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

FLOAT, FLOAT16 = 1, 10
"""Values of `TensorProto.DataType`."""


@dataclass(frozen=True)
class Node:
    """A node of the main graph; nodes of subgraphs are not read.

    Attributes:
        name: Name of the node; may be empty.
        operator: Type of the operator, for example "Conv".
        inputs: Names of the input values, without empty names.
        outputs: Names of the output values.
        data_type: `TensorProto.DataType` that a Cast or Constant sets for its output; 0 for other nodes.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    data_type: int = 0

    @property
    def label(self) -> str:
        """The node's name, or the name of its first output if the node has no name."""
        return self.name or (self.outputs[0] if self.outputs else "")

    @property
    def layer(self) -> str:
        """Name of the node's layers in TensorRT (`getNodeName` of onnx-tensorrt)."""
        return self.name or (f"node_of_{self.outputs[0]}" if self.outputs else "")


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yields the number and the value of every field of a message: int for a varint, bytes for the other types.

    Raises:
        ValueError: If the bytes are not a valid message.
    """
    position = 0
    try:
        while position < len(message):
            tag, position = _varint(message, position)
            wire_type = tag & 7
            if wire_type == 0:
                value: Any
                value, position = _varint(message, position)
            else:
                size, position = _varint(message, position) if wire_type == 2 else ({1: 8, 5: 4}[wire_type], position)
                value, position = message[position : position + size], position + size
            yield tag >> 3, value
    except (IndexError, KeyError) as error:
        raise ValueError("the graph is not a valid ONNX file") from error
    if position != len(message):
        raise ValueError("the ONNX file is truncated")


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value, shift, position = value | (byte & 127) << shift, shift + 7, position + 1
        if byte < 128:
            return value, position


def _values(message: bytes, number: int) -> list[Any]:
    return [value for field, value in fields(message) if field == number]


def _first(message: bytes, number: int, default: Any) -> Any:
    return next(iter(_values(message, number)), default)


def _graph(onnx: bytes) -> bytes:
    graph: bytes = _first(onnx, 7, b"")
    return graph


def nodes(onnx: bytes) -> list[Node]:
    """Returns the nodes of an ONNX file in the order of the file."""
    return [_node(message) for message in _values(_graph(onnx), 1)]


def _node(message: bytes) -> Node:
    def names(number: int) -> tuple[str, ...]:
        return tuple(name.decode() for name in _values(message, number))

    operator = _first(message, 4, b"").decode()
    attributes = {_first(attribute, 1, b"").decode(): attribute for attribute in _values(message, 5)}
    data_type = 0
    if operator == "Cast" and "to" in attributes:
        data_type = _first(attributes["to"], 3, 0)
    elif operator == "Constant" and "value" in attributes:
        data_type = _first(_first(attributes["value"], 5, b""), 2, 0)
    name = _first(message, 3, b"").decode()
    return Node(name, operator, tuple(filter(None, names(1))), names(2), data_type)


def float32_nodes(onnx: bytes) -> list[Node]:
    """Returns the nodes that read or write float32, without Cast, Constant and Q/DQ nodes.

    In a graph of float16 tensors, these nodes must stay exact.
    """
    types = _declared_types(_graph(onnx))
    exact = []
    for node in nodes(onnx):
        output = _output_type(node, [types.get(name, 0) for name in node.inputs])
        types.update(dict.fromkeys(node.outputs, output))
        node_types = {types.get(name, 0) for name in (*node.inputs, *node.outputs)}
        if FLOAT in node_types and node.operator not in ("Cast", "Constant", "QuantizeLinear", "DequantizeLinear"):
            exact.append(node)
    return exact


def _declared_types(graph: bytes) -> dict[str, int]:
    """Returns the data types of initializers and graph inputs, by name."""
    types = {_first(tensor, 8, b"").decode(): _first(tensor, 2, 0) for tensor in _values(graph, 5)}
    for value in _values(graph, 11):  # path of fields: name, type, tensor_type, elem_type
        types[_first(value, 1, b"").decode()] = _first(_first(_first(value, 2, b""), 1, b""), 1, 0)
    return types


def holds_float16(onnx: bytes) -> bool:
    """True if a graph contains float16 tensors: as constants, as inputs, or as outputs of a Cast."""
    declared = set(_declared_types(_graph(onnx)).values())
    return FLOAT16 in declared | {node.data_type for node in nodes(onnx)}


def is_quantised(nodes: Iterable[Node]) -> bool:
    """True if one of the nodes is a QuantizeLinear or DequantizeLinear."""
    return any(node.operator in ("QuantizeLinear", "DequantizeLinear") for node in nodes)


def _output_type(node: Node, inputs: Sequence[int]) -> int:
    """Returns the float type of a node's outputs: in general, the type of the first float input; 0 for other types."""
    if node.operator in NON_FLOAT_OPERATORS:
        return 0
    if node.operator in ("Cast", "Constant"):
        return node.data_type
    return next((data_type for data_type in inputs if data_type in (FLOAT, FLOAT16)), 0)


NON_FLOAT_OPERATORS = frozenset(
    (
        *("And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor"),
        *("ArgMax", "ArgMin", "NonZero", "QuantizeLinear", "Shape", "Size"),
    )
)
"""Operators with a non-float output for any input type."""


def owner(layer: str, metadata: str, names: Iterable[str]) -> str | None:
    """Returns the name of the ONNX node that a TensorRT layer comes from; None if there is no such node.

    Args:
        layer: Name of the layer.
        metadata: The layer's metadata, in which the parser notes the node; may be empty.
        names: Names of the ONNX nodes' layers.
    """
    noted = re.search(r"\[ONNX Layer: ([^\]]*)\]", metadata or "")
    name = noted[1] if noted else layer
    return name if name in set(names) else None


def names_in(text: str, names: Iterable[str]) -> tuple[str, ...]:
    """Returns the names that occur as whole words in a message of TensorRT."""
    words = set(re.findall(r"[^\s\[\]{}(),;:'\"+]+", text.replace("...", " "))) | set(re.findall(r"[^\s]+", text))
    return tuple(name for name in dict.fromkeys(names) if name and name in words)
