"""Replaces nodes of a model, in its subgraphs too, by other nodes that compute the same."""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from lmconv.graph import naming
from lmconv.graph.constants import constant_value, is_constant
from lmconv.graph.index import reads, subgraphs
from lmconv.opsets.versions import STANDARD, opset_of

MICROSOFT = "com.microsoft"
"""Domain of the operators that ONNX Runtime adds."""
MEAN_INPUT = 18
"""Opset from which the axes of ReduceMean are an input. Earlier, the axes were an attribute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts about a model that the rules use.

    Attributes:
        taken: All names in use; grows with new names.
        read: Names of the values that a node or an output of a graph reads.
        shapes: Shapes by name, as far as ONNX's shape inference finds them; a free axis is None.
        half: True if the model has float16 tensors.
        opset: Version of the standard operators.
    """

    taken: set[str]
    read: set[str]
    shapes: Mapping[str, tuple[int | None, ...]]
    half: bool
    opset: int

    def rank(self, name: str) -> int | None:
        """Returns the number of axes of a value; None if unknown."""
        return len(self.shapes[name]) if name in self.shapes else None


@dataclass(slots=True, kw_only=True)
class Call:
    """A node to replace, and its replacement.

    Attributes:
        node: The node.
        constants: Constants that the node can read, by name.
        facts: Facts about the model.
        nodes: New nodes, in order.
        tensors: New initializers.
        settings: Attributes of the node; a text is `bytes`.
    """

    node: onnx.NodeProto
    constants: Mapping[str, TensorProto]
    facts: Facts
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: list[TensorProto] = field(default_factory=list)
    settings: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.settings = {item.name: helper.get_attribute_value(item) for item in self.node.attribute}

    def input(self, index: int) -> str:
        """Returns the name of an input; empty if the node omits the input."""
        return self.node.input[index] if len(self.node.input) > index else ""

    def trimmed(self, count: int) -> list[str]:
        """Returns the first `count` inputs, without omitted inputs at the end."""
        names = list(self.node.input[:count])
        while names and not names[-1]:
            names.pop()
        return names

    def get(self, name: str, default: Any) -> Any:
        """Returns an attribute; a text as `str`."""
        value = self.settings.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def is_read(self, index: int) -> bool:
        """True if a node or an output of a graph reads an output."""
        return len(self.node.output) > index and self.node.output[index] in self.facts.read

    def known(self, index: int) -> NDArray[Any] | None:
        """Returns the value of a constant input; None if the input is computed or omitted."""
        tensor = self.constants.get(self.input(index))
        return None if tensor is None else numpy_helper.to_array(tensor)

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one output and returns the name of the output."""
        (name,) = self.add_several(1, op, *inputs, **attributes)
        return name

    def add_several(self, count: int, op: str, *inputs: str, **attributes: Any) -> list[str]:
        """Adds a node and returns the names of its `count` outputs."""
        names = [self.fresh(op.lower()) for _ in range(count)]
        self.nodes.append(helper.make_node(op, inputs, names, name=names[0], **attributes))
        return names

    def constant(self, value: Any) -> str:
        """Adds an initializer and returns its name; Python's integers become int64, and Python's floats float32."""
        array = np.asarray(value)
        if not isinstance(value, np.ndarray | np.generic):
            array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        name = self.fresh("constant")
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def number(self, value: float | NDArray[np.float32], like: str) -> str:
        """Adds a constant of the type of the value `like`: float32, or in a model with float16 the type at run time."""
        name = self.constant(np.asarray(value, np.float32))
        return self.add("CastLike", name, like) if self.facts.half else name

    def mean(self, value: str, axes: Sequence[int]) -> str:
        """Adds the mean of a value over some axes, which stay with length 1; a negative axis counts from the end."""
        if self.facts.opset < MEAN_INPUT:
            return self.add("ReduceMean", value, axes=list(axes))
        return self.add("ReduceMean", value, self.constant(list(axes)))

    def swapped(self, index: int) -> str | None:
        """Adds a transposition of the last two axes of an input; None if the rank of the input is unknown."""
        name = self.input(index)
        rank = self.facts.rank(name) or 0
        return self.add("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2]) if rank > 1 else None

    def fresh(self, word: str) -> str:
        """Returns an unused name that ends in `word`."""
        return naming.fresh(f"{next(filter(None, self.node.output))}_{word}", self.facts.taken)


Rule: TypeAlias = Callable[[Call], Sequence[str] | None]
"""Adds the new nodes to a call, and returns the values that replace the outputs of the node, in order; None keeps the
node. An empty name, or a missing one at the end, stands for an unread output."""
Rules: TypeAlias = Mapping[tuple[str, str], Rule]
"""Rule by domain and operator."""


def rewrite(model: onnx.ModelProto, rules: Rules) -> Counter[str]:
    """Replaces nodes in place.

    Returns:
        Number of replaced nodes by operator.
    """
    changed: Counter[str] = Counter()
    if any(_key(node) in rules for node in naming.nodes_of(model)):
        _rewrite(model.graph, rules, ChainMap(), _facts(model), changed)
    return changed


def _key(node: onnx.NodeProto) -> tuple[str, str]:
    return "" if node.domain in STANDARD else node.domain, node.op_type


def _facts(model: onnx.ModelProto) -> Facts:
    graphs = list(naming.graphs(model.graph))
    read = {value.name for graph in graphs for value in graph.output}
    read.update(name for node in model.graph.node for name in reads(node))
    shapes: dict[str, tuple[int | None, ...]] = {}
    half = False
    for graph in naming.graphs(inferred(model).graph):
        for tensor in graph.initializer:
            shapes[tensor.name] = tuple(tensor.dims)
            half |= tensor.data_type == TensorProto.FLOAT16
        for value in (*graph.input, *graph.value_info, *graph.output):
            half |= value.type.tensor_type.elem_type == TensorProto.FLOAT16
            if value.type.tensor_type.HasField("shape"):
                dims = value.type.tensor_type.shape.dim
                shapes[value.name] = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)
    taken = naming.taken(model.graph)
    return Facts(taken=taken, read=read, shapes=shapes, half=half, opset=opset_of(model))


def inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with inferred types and shapes; the model itself if ONNX's shape inference fails."""
    try:
        return shape_inference.infer_shapes(model)
    except Exception:  # inference raises types of its compiled module
        return model


def _rewrite(
    graph: onnx.GraphProto, rules: Rules, outside: ChainMap[str, TensorProto], facts: Facts, changed: Counter[str]
) -> None:
    constants = outside.new_child(_constants(graph))
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for inner in subgraphs(node):
            _rewrite(inner, rules, constants, facts, changed)
        rule = rules.get(_key(node))
        call = Call(node=node, constants=constants, facts=facts)
        values = rule(call) if rule else None
        if values is None:
            nodes.append(node)
            continue
        changed[node.op_type] += 1
        nodes += _placed(call, values)
        graph.initializer.extend(call.tensors)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _constants(graph: onnx.GraphProto) -> MutableMapping[str, TensorProto]:
    """Returns the initializers and the values of the Constant nodes of a graph, without its subgraphs."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in filter(is_constant, graph.node):
        value = constant_value(node)
        if value.dtype != object:
            found[node.output[0]] = numpy_helper.from_array(value, node.output[0])
    return found


def _placed(call: Call, values: Sequence[str]) -> list[onnx.NodeProto]:
    """Returns the new nodes of a call, with the names of the outputs of the replaced node."""
    nodes = call.nodes
    computed = {name for node in nodes for name in node.output}
    for value, output in zip(values, call.node.output, strict=False):
        if not value or not output:
            continue
        if value not in computed:
            nodes.append(helper.make_node("Identity", [value], [output], name=output))
            continue
        for node in nodes:
            node.name = output if node.output[0] == value else node.name
            for names in (node.input, node.output):
                names[:] = [output if name == value else name for name in names]
    return nodes
