"""Values of Constant nodes, and Constant nodes as initializers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

NUMPY = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.FLOAT16,
    TensorProto.BOOL,
    TensorProto.STRING,
    *(TensorProto.DataType.Value(f"{sign}INT{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)),
)
"""Types of tensors that numpy has too."""


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
