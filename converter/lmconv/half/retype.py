"""Writes the types of a graph: float16 nodes, float32 nodes, and a Cast on every edge between the two parts."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from lmconv.graph import naming
from lmconv.graph.facts import initializers
from lmconv.graph.index import reads, subgraphs
from lmconv.half.observe import Observed
from lmconv.half.operators import fixed_inputs, float16_copy, retype_attributes

FLOAT, FLOAT16 = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)


def retype(model: onnx.ModelProto, float32_nodes: set[int], observed: Observed) -> None:
    """Changes all nodes to float16 except `float32_nodes` (indices), and inserts the casts between the two parts.

    Values that were float16 before stay float16. Casts that change nothing any more are removed.
    """
    writer = _Writer(model, observed)
    for index, node in enumerate(model.graph.node):
        if index in float32_nodes:
            writer.float32(node)
        else:
            writer.float16(node, fixed_inputs(node, model.opset_import) or set())
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(writer.nodes)
    _drop_unused(model.graph)


class _Writer:
    """Nodes of the converted graph, in order.

    Attributes:
        nodes: The nodes so far.
    """

    def __init__(self, model: onnx.ModelProto, observed: Observed) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._graph = model.graph
        self._observed = observed
        self._constants = initializers(model)
        self._taken = naming.taken(model.graph)
        self._halves: set[str] = {name for name, kind in observed.types.items() if kind == np.float16}
        self._casts: dict[tuple[str, int], str] = {}
        self._same: dict[str, str] = {}  # name of an equal value, by the output of a Cast without effect

    def float32(self, node: onnx.NodeProto) -> None:
        """Appends a node whose float32 inputs stay float32, in its subgraphs too."""
        names = {name: self._as(name, FLOAT) for name in reads(node) if self._observed.is_float32(name)}
        node.input[:] = [names.get(name, self._same.get(name, name)) for name in node.input]
        for graph in subgraphs(node):
            naming.reread(graph, self._same | names)
        self._append(node)

    def float16(self, node: onnx.NodeProto, fixed: set[int]) -> None:
        """Appends a node that becomes float16; its inputs at the positions `fixed` stay float32."""
        for position, name in enumerate(node.input):
            type_ = FLOAT if position in fixed else FLOAT16
            is_real = self._observed.is_float32(name)
            node.input[position] = self._as(name, type_) if is_real else self._same.get(name, name)
        retype_attributes(node)
        outputs = [name for name in node.output if self._observed.is_float32(name)]
        self._halves.update(name for name in outputs if name not in self._observed.unchanged)
        self._append(node)

    def _append(self, node: onnx.NodeProto) -> None:
        """Appends a node; leaves out a Cast whose input has the wanted type already."""
        is_output = any(value.name == node.output[0] for value in self._graph.output)
        to_half = node.op_type == "Cast" and not node.domain and helper.get_node_attr_value(node, "to") == FLOAT16
        if to_half and not is_output and node.input[0] in self._halves:
            self._same[node.output[0]] = node.input[0]
        else:
            self.nodes.append(node)

    def _as(self, name: str, type_: int) -> str:
        """Returns the name of a float32 value in one of the types float32 and float16.

        The name is the name of the value itself, of a converted initializer, or of the output of a new Cast.
        """
        name = self._same.get(name, name)
        if (name in self._halves) == (type_ == FLOAT16):
            return name
        if (name, type_) not in self._casts:
            self._casts[name, type_] = cast = naming.fresh(
                f"{name}_{'float16' if type_ == FLOAT16 else 'float32'}", self._taken
            )
            self._halves.update([cast] if type_ == FLOAT16 else [])
            if name in self._constants:
                self._graph.initializer.append(float16_copy(self._constants[name], cast))
            else:
                self.nodes.append(helper.make_node("Cast", [name], [cast], name=cast, to=type_))
        return self._casts[name, type_]


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Removes initializers that neither a node nor an output reads."""
    used = {name for node in graph.node for name in reads(node)} | {value.name for value in graph.output}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(tensors)
