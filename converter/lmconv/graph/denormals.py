"""Denormal numbers among the constants of a graph: their count, and zero in their place.

A denormal number is smaller than the smallest normal number of its type: 1.18e-38 for float32 (IEEE 754-2019, 3.4).
Intel CPUs compute denormal numbers in microcode, many times slower. A factor or a summand so small changes no result of
a normal size. But zero is another divisor, another argument of a logarithm, another side of a comparison. A constant
therefore becomes zero only if every path from the constant ends in a sum with other numbers (`SUMS`) or at an output of
the network. Operators of `PROPORTIONAL` pass a small number on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, numpy_helper

from lmconv.graph.facts import LAYERS, copied
from lmconv.graph.index import attribute, subgraphs
from lmconv.graph.naming import graphs, nodes_of

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)
"""Types whose denormal numbers count. Denormal float16 numbers convert to normal float32 numbers (docs/passes.md)."""
ALL = range(1 << 16)
"""Positions of all inputs of an operator."""
PROPORTIONAL: Mapping[str, range | tuple[int | str, ...]] = {
    **dict.fromkeys(
        [
            "Abs",
            "Add",
            "Celu",
            "Clip",
            "Concat",
            "Elu",
            "Erf",
            "Gelu",
            "HardSwish",
            "Identity",
            "Max",
            "Min",
            "Mish",
            "Mul",
            "Neg",
            "Relu",
        ],
        ALL,
    ),
    **dict.fromkeys(["Selu", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tanh"], ALL),
    **dict.fromkeys(
        ["AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "MaxPool", "Resize", "Upsample"], (0,)
    ),
    **dict.fromkeys(["Dropout", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"], (0,)),
    **dict.fromkeys(
        ["DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Reshape", "Slice"], (0,)
    ),
    **dict.fromkeys(["SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"], (0,)),
    "Pad": (0, 2),
    "Where": (1, 2),
    "PRelu": (0, 1),
    "LeakyRelu": (0, "alpha"),
    "BatchNormalization": (0, 1, 2, 3),
    "LayerNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "RMSNormalization": (1,),
}
"""Inputs and attributes for which a result is about as small as the number, or does not depend on it."""
SUMS: Mapping[str, range | tuple[int | str, ...]] = {
    "Conv": (0, 1, 2),
    "ConvTranspose": (0, 1, 2),
    "DeformConv": (0, 1, 3),
    "Gemm": (0, 1, 2, "alpha", "beta"),
    "MatMul": (0, 1),
    **dict.fromkeys(["GRU", "LSTM", "RNN"], (0, 1, 2, 3)),
    **dict.fromkeys(["Exp", "HardSigmoid", "LogSoftmax", "QuantizeLinear", "Sigmoid", "Softmax", "Softplus"], (0,)),
}
"""Inputs and attributes that are added to numbers of a normal size: other products, or the 1 of an exponential."""
EPSILONS: Mapping[str, int] = {
    "BatchNormalization": 4,
    "LayerNormalization": 0,
    "InstanceNormalization": 0,
    "GroupNormalization": 0,
    "RMSNormalization": 0,
}
"""Input of a normalisation to which `epsilon` is added before a root is taken."""
SAFE_EPSILON = 1e-12
"""Smallest such `epsilon` beside which a denormal number vanishes."""

Place: TypeAlias = tuple[onnx.NodeProto, int | str]
"""A node, and the position of an input or the name of an attribute; for an output of a subgraph, its name."""
After: TypeAlias = Mapping[str, NDArray[Any]]
"""Constants with zeros in place of their smallest numbers, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A floating-point constant of a graph or a subgraph.

    Attributes:
        name: Name of the value; empty for an attribute.
        values: The numbers, float32 or float64, of any shape.
        write: Replaces the numbers in the graph.
        place: The node of an attribute; None for a value.
    """

    name: str
    values: NDArray[Any]
    write: Callable[[NDArray[Any]], None]
    place: Place | None = None


def is_denormal(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Returns True for each denormal number of an array; independent of the processor's mode for denormal numbers."""
    info = np.finfo(values.dtype)
    bits = np.dtype(f"u{values.dtype.itemsize}")
    magnitude = np.ascontiguousarray(values).view(bits) & ~np.asarray(-0.0, values.dtype).view(bits)
    return np.asarray((magnitude != 0) & (magnitude < np.asarray(info.tiny, values.dtype).view(bits))).reshape(
        values.shape
    )


def count(model: onnx.ModelProto) -> int:
    """Counts the denormal numbers among the float32 and float64 constants of a model, subgraphs included."""
    return sum(int(is_denormal(constant.values).sum()) for constant in constants(model.graph))


def flushed(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Sets denormal constants to zero where zero gives the same result.

    Returns:
        A copy of the model and the number of denormal numbers that became zero; the model itself if there are none.
    """
    if not count(model):
        return model, 0
    copy = copied(model)
    changed = flush(copy)
    return (copy, changed) if changed else (model, 0)


def flush(model: onnx.ModelProto) -> int:
    """Does the same as `flushed` in place; returns the number of denormal numbers that became zero."""
    changed = 0
    for constant, zeros, obstacle in _denormal_constants(model):
        if obstacle is None:
            constant.write(zeros)
            changed += int(is_denormal(constant.values).sum())
    return changed


def kept(model: onnx.ModelProto) -> dict[str, str]:
    """Returns the constants whose denormal numbers stay, each with the node for which zero is another number."""
    found = ((constant.name, obstacle) for constant, _, obstacle in _denormal_constants(model) if obstacle)
    return {name or label(node): label(node) for name, node in found}


def _denormal_constants(model: onnx.ModelProto) -> list[tuple[Constant, NDArray[Any], onnx.NodeProto | None]]:
    """Returns each constant with denormal numbers, the numbers with zeros instead, and `Readers.obstacle`."""
    found = [constant for constant in constants(model.graph) if is_denormal(constant.values).any()]
    zeros = [np.where(is_denormal(part.values), part.values.dtype.type(0), part.values) for part in found]
    after = {constant.name: array for constant, array in zip(found, zeros, strict=True)}
    readers = Readers(model) if found else None
    return [
        (constant, array, readers.obstacle(constant.name, after, constant.place) if readers else None)
        for constant, array in zip(found, zeros, strict=True)
    ]


def constants(graph: onnx.GraphProto) -> Iterator[Constant]:
    """Yields the float32 and float64 constants of a graph and its subgraphs.

    Constants are initializers, sparse initializers, values of Constant nodes, and numbers in the attributes of nodes.
    """
    for part in graphs(graph):
        for tensor in (*part.initializer, *(sparse.values for sparse in part.sparse_initializer)):
            if tensor.data_type in FLOATS:
                yield _tensor(tensor, tensor.name)
        for node in part.node:
            name = node.output[0] if node.op_type == "Constant" and not node.domain else ""
            for item in node.attribute:
                yield from _attribute(node, item, name)


def _tensor(tensor: TensorProto, name: str, place: Place | None = None) -> Constant:
    def write(values: NDArray[Any]) -> None:
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))

    return Constant(name=name, values=numpy_helper.to_array(tensor), write=write, place=place)


def _attribute(node: onnx.NodeProto, item: AttributeProto, name: str) -> Iterator[Constant]:
    """Yields the numbers of an attribute; `name` is the name of the value if the node is a Constant."""
    place = None if name else (node, item.name)
    if item.type == AttributeProto.TENSOR and item.t.data_type in FLOATS:
        yield _tensor(item.t, name, place)
    elif item.type == AttributeProto.SPARSE_TENSOR and item.sparse_tensor.values.data_type in FLOATS:
        yield _tensor(item.sparse_tensor.values, name, place)
    elif item.type == AttributeProto.FLOAT:

        def write(values: NDArray[Any]) -> None:
            item.f = float(values)

        yield Constant(name=name, values=np.array(item.f, np.float32), write=write, place=place)
    elif item.type == AttributeProto.FLOATS:

        def write_all(values: NDArray[Any]) -> None:
            item.floats[:] = values.tolist()

        yield Constant(name=name, values=np.array(item.floats, np.float32), write=write_all, place=place)


class Readers:
    """The nodes that read each value of a model, and its initializers.

    Args:
        model: The model; its nodes must not change.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._places: dict[str, list[Place]] = {}
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in nodes_of(model):
            for position, name in enumerate(node.input):
                self._places.setdefault(name, []).append((node, position))
            for value in (value for inner in subgraphs(node) for value in inner.output):
                self._places.setdefault(value.name, []).append((node, value.name))

    def obstacle(self, name: str, after: After, place: Place | None = None) -> onnx.NodeProto | None:
        """Returns a node for which zeros in place of the smallest numbers of a constant are other numbers; else None.

        Args:
            name: Name of the constant.
            after: This and other constants with zeros in place of their smallest numbers.
            place: Place of the constant if the constant is an attribute.
        """
        pending = [place] if place else list(self._places.get(name, []))
        followed = {name}
        while pending:
            node, where = pending.pop()
            if not self._harmless(node, where):
                return node
            if self._passes_on(node, where, after):
                names = set(node.output) - followed
                followed |= names
                pending += [place for name in sorted(names) for place in self._places.get(name, [])]
        return None

    def _harmless(self, node: onnx.NodeProto, where: int | str) -> bool:
        """True if an operator computes about the same from zero as from a denormal number."""
        if node.domain:
            return False
        if where == EPSILONS.get(node.op_type):
            return bool(attribute(node, "epsilon", 1e-5) >= SAFE_EPSILON)
        if node.op_type == "Cast":
            return bool(attribute(node, "to", 0) != TensorProto.BOOL)
        if node.op_type in ("Div", "Pow") and where == 0:
            other = self._array(node.input[1])
            return other is not None and bool(
                (np.abs(other) >= SAFE_EPSILON if node.op_type == "Div" else other >= 1).all()
            )
        kinds = (PROPORTIONAL, SUMS)
        return node.op_type == "If" or any(where in places.get(node.op_type, ()) for places in kinds)

    def _array(self, name: str) -> NDArray[Any] | None:
        """Returns the numbers of an initializer; None for every other value."""
        return numpy_helper.to_array(self._weights[name]) if name in self._weights else None

    def _passes_on(self, node: onnx.NodeProto, where: int | str, after: After) -> bool:
        """True if a channel of the node's result may become zero.

        A filter with another weight, or with a bias, stays a filter; a filter that becomes zero gives zero.
        """
        if node.op_type not in LAYERS or where not in (1, 2):
            return node.op_type not in SUMS
        arrays = {name: self._array(name) for name in node.input[1:] if name}
        parameters = {name: values for name, values in arrays.items() if values is not None}
        if len(parameters) < len(arrays):
            return False
        changed = [after.get(name, values) for name, values in parameters.items()]
        return bool((_live(node, *parameters.values()) & ~_live(node, *changed)).any())


def _live(node: onnx.NodeProto, weights: NDArray[Any], *bias: NDArray[Any]) -> NDArray[np.bool_]:
    """Returns (outputs,) bool: True for the filters of a layer that are not zero."""
    live = np.asarray(filters(node, weights).any(axis=1))
    for values in bias:
        live = np.asarray(live | (values.ravel() != 0 if values.size in (1, len(live)) else values.any()))
    return live


def filters(node: onnx.NodeProto, weights: NDArray[Any]) -> NDArray[Any]:
    """Returns the weights of a Conv, ConvTranspose, Gemm or MatMul, one row an output: (outputs, weights)."""
    if node.op_type == "Conv":
        return weights.reshape(len(weights), -1)
    if node.op_type == "ConvTranspose":  # (inputs, outputs of a group, ...): groups are blocks of axis 0
        groups = attribute(node, "group", 1)
        split = weights.reshape(groups, len(weights) // groups, weights.shape[1], -1)
        return np.moveaxis(split, 2, 1).reshape(groups * weights.shape[1], -1)
    if node.op_type == "Gemm" and attribute(node, "transB", 0):
        return weights
    return np.moveaxis(weights, -1, 0).reshape(weights.shape[-1], -1) if weights.ndim > 1 else weights.reshape(1, -1)


def label(node: onnx.NodeProto) -> str:
    """Returns name and operator of a node."""
    return f"{node.name or node.output[0]} ({node.op_type})"
