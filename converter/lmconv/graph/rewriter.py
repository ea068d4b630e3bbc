"""Rewrites the graph of a model: finds the producer and the consumers of a value, and replaces nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lmconv.graph import naming
from lmconv.graph.index import reads


class Rewriter:
    """Collects changes to a model's graph; `commit` writes the changes to the model.

    The name of its first output identifies a node. A rewrite keeps this name if anything may read the output.

    Attributes:
        constants: Initializers by name, as arrays.
        outputs: Names of the graph outputs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._replaced: dict[str, list[onnx.NodeProto]] = {}
        self.constants: dict[str, NDArray[Any]] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self.outputs = {value.name for value in model.graph.output}
        self._producers = {name: node for node in model.graph.node for name in node.output if name}
        self._names = naming.taken(model.graph)
        self._consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(reads(node)):
                self._consumers.setdefault(name, []).append(node)

    def nodes(self, *operators: str) -> list[onnx.NodeProto]:
        """Returns the nodes with one of these standard operators, in graph order, without nodes already replaced."""
        return [
            node
            for node in self._graph.node
            if node.op_type in operators and not node.domain and node.output[0] not in self._replaced
        ]

    def producer(self, name: str, *operators: str) -> onnx.NodeProto | None:
        """Returns the node that computes a value if the node has one of these standard operators, else None."""
        node = self._producers.get(name)
        return node if node is not None and node.op_type in operators and not node.domain else None

    def consumers(self, name: str) -> list[onnx.NodeProto]:
        """Returns the nodes that read a value in the original graph."""
        return self._consumers.get(name, [])

    def has_one_consumer(self, name: str) -> bool:
        """True if exactly one node reads a value and the value is not a graph output."""
        return len(self.consumers(name)) == 1 and name not in self.outputs

    def scalar(self, name: str) -> float | None:
        """Returns the number in a constant that holds exactly one floating-point number, else None."""
        value = self.constants.get(name)
        is_scalar = (
            value is not None and value.size == 1 and value.ndim <= 1 and np.issubdtype(value.dtype, np.floating)
        )
        return float(value.reshape(())) if value is not None and is_scalar else None

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Adds an initializer and returns its name: `name`, with a number appended if `name` is in use."""
        name = self.fresh(name)
        self.constants[name] = value
        self._graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def fresh(self, name: str) -> str:
        """Returns an unused name: `name`, with a number appended if `name` is in use."""
        return naming.fresh(name, self._names)

    def replace(self, node: onnx.NodeProto, *replacements: onnx.NodeProto) -> None:
        """Replaces `node` by other nodes; removes `node` if no replacement is given."""
        self._replaced[node.output[0]] = list(replacements)
        for replacement in replacements:
            self._producers.update(dict.fromkeys(replacement.output, replacement))

    def commit(self) -> None:
        """Writes the changes to the model. Removes nodes and initializers that nothing reads any more."""
        nodes = [replacement for node in self._graph.node for replacement in self._replaced.get(node.output[0], [node])]
        read = set(self.outputs)
        needed = []
        for node in reversed(nodes):
            if read.intersection(node.output):
                read.update(reads(node))
                needed.append(node)
        tensors = [tensor for tensor in self._graph.initializer if tensor.name in read]
        del self._graph.node[:], self._graph.initializer[:], self._graph.value_info[:]
        self._graph.node.extend(reversed(needed))
        self._graph.initializer.extend(tensors)
        naming.distinct_nodes(self._graph)


def make(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    """Returns a node with one output; the node has the same name as its output."""
    return helper.make_node(operator, inputs, [output], name=output, **attributes)
