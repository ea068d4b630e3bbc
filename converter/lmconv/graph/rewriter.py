"""A graph while a pass rewrites it: who makes and who reads a value, and nodes in place of others."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lmconv.graph import naming
from lmconv.graph.index import reads


class Rewriter:
    """Collects changes to a model's graph; `commit` writes them.

    A node is known by the name of its first output, which a rewrite keeps wherever something may read it.

    Attributes:
        constants: The initializers, as arrays.
        outputs: Names of the graph's outputs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._replaced: dict[str, list[onnx.NodeProto]] = {}
        self.constants: dict[str, NDArray[Any]] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self.outputs = {value.name for value in model.graph.output}
        self._makers = {name: node for node in model.graph.node for name in node.output if name}
        self._names = naming.taken(model.graph)
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(reads(node)):
                self._readers.setdefault(name, []).append(node)

    def nodes(self, *kinds: str) -> list[onnx.NodeProto]:
        """The nodes with one of these standard operators, in order, apart from those replaced meanwhile."""
        return [
            node
            for node in self._graph.node
            if node.op_type in kinds and not node.domain and node.output[0] not in self._replaced
        ]

    def maker(self, name: str, *kinds: str) -> onnx.NodeProto | None:
        """The node that computes a value, if it has one of these standard operators."""
        node = self._makers.get(name)
        return node if node is not None and node.op_type in kinds and not node.domain else None

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that read a value in the graph as it was."""
        return self._readers.get(name, [])

    def private(self, name: str) -> bool:
        """Whether one node alone reads a value, and it is no output of the graph."""
        return len(self.readers(name)) == 1 and name not in self.outputs

    def scalar(self, name: str) -> float | None:
        """The number that a constant holds, where it holds one number of floating point."""
        value = self.constants.get(name)
        single = value is not None and value.size == 1 and value.ndim <= 1 and np.issubdtype(value.dtype, np.floating)
        return float(value.reshape(())) if value is not None and single else None

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Adds an initializer under a name like this one; gives its name."""
        name = self.fresh(name)
        self.constants[name] = value
        self._graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def fresh(self, name: str) -> str:
        """A name like this one that nothing else has."""
        return naming.fresh(name, self._names)

    def replace(self, node: onnx.NodeProto, *others: onnx.NodeProto) -> None:
        """Puts `others`, if any, where `node` stands."""
        self._replaced[node.output[0]] = list(others)
        for other in others:
            self._makers.update(dict.fromkeys(other.output, other))

    def commit(self) -> None:
        """Writes the changes; nodes and initializers that nothing reads any more go."""
        nodes = [other for node in self._graph.node for other in self._replaced.get(node.output[0], [node])]
        read = set(self.outputs)
        kept = []
        for node in reversed(nodes):
            if read.intersection(node.output):
                read.update(reads(node))
                kept.append(node)
        tensors = [tensor for tensor in self._graph.initializer if tensor.name in read]
        del self._graph.node[:], self._graph.initializer[:], self._graph.value_info[:]
        self._graph.node.extend(reversed(kept))
        self._graph.initializer.extend(tensors)
        naming.distinct_nodes(self._graph)


def make(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    """A node with one output, named after it."""
    return helper.make_node(kind, inputs, [output], name=output, **attributes)
