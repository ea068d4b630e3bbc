"""Constants of a graph: their values, all of them as initializers, and their types as float32."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from lmconv.graph.naming import graphs

NUMPY = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.FLOAT16,
    TensorProto.BOOL,
    TensorProto.STRING,
    *(TensorProto.DataType.Value(f"{sign}INT{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)),
)
"""Types of tensors that numpy has too."""
TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "output_datatype")
"""Attributes of ONNX's operators that name the type of a result."""


def is_constant(node: onnx.NodeProto) -> bool:
    """True if a node is a Constant of ONNX."""
    return node.op_type == "Constant" and not node.domain


def constant_value(node: onnx.NodeProto) -> NDArray[Any]:
    """Returns the value of a Constant node, for each attribute that ONNX allows; a sparse value becomes dense."""
    (item,) = (item for item in node.attribute if item.name.startswith(("value", "sparse_value")))
    if item.name == "value":
        return numpy_helper.to_array(item.t)
    if item.name == "sparse_value":
        return dense(item.sparse_tensor)
    if item.name.startswith("value_float"):
        return np.array(item.f if item.name == "value_float" else item.floats, np.float32)
    if item.name.startswith("value_int"):
        return np.array(item.i if item.name == "value_int" else item.ints, np.int64)
    return np.array(item.s if item.name == "value_string" else list(item.strings), object)


def tensors_of(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Yields every constant of a graph and its subgraphs: initializers, and tensors among the attributes of nodes."""
    for part in graphs(graph):
        yield from part.initializer
        for sparse in part.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for item in (item for node in part.node for item in node.attribute):
            yield from (item.t, *item.tensors)


def widen(tensor: TensorProto) -> None:
    """Makes a floating-point constant float32, in place; larger numbers become the largest float32."""
    values = numpy_helper.to_array(tensor).astype(np.float64)
    limit = np.finfo(np.float32).max
    clipped = np.where(np.isfinite(values), np.clip(values, -limit, limit), values)
    tensor.CopyFrom(numpy_helper.from_array(clipped.astype(np.float32), tensor.name))


def widen_graph(graph: onnx.GraphProto, kinds: Collection[int]) -> None:
    """Makes all floating-point values and constants of some types float32, in subgraphs too.

    Args:
        graph: Changed in place.
        kinds: Types, as ONNX numbers the types (`TensorProto.DataType`).
    """
    for part in graphs(graph):
        for value in (*part.input, *part.output, *part.value_info):
            if value.type.tensor_type.elem_type in kinds:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        for item in (item for node in part.node for item in node.attribute):
            if item.name in TYPE_ATTRIBUTES and item.i in kinds:
                item.i = TensorProto.FLOAT
    for tensor in tensors_of(graph):
        if tensor.data_type in kinds:
            widen(tensor)


def lift_constants(graph: onnx.GraphProto) -> None:
    """Replaces Constant nodes and sparse initializers of a graph by initializers. Subgraphs keep theirs."""
    values = {node.output[0]: constant_value(node) for node in graph.node if is_constant(node)}
    values |= {sparse.values.name: dense(sparse) for sparse in graph.sparse_initializer}
    nodes = [node for node in graph.node if not is_constant(node)]
    del graph.node[:], graph.sparse_initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())


def dense(sparse: onnx.SparseTensorProto) -> NDArray[Any]:
    """Returns a sparse tensor as an array; the indices are flat, (n,), or one coordinate per axis, (n, rank)."""
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), dense.shape)
    dense.reshape(-1)[flat] = values
    return dense
