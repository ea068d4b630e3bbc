"""Float16 in the definitions of ONNX operators: inputs that stay float32, and attributes that name a type."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import TensorProto, defs, numpy_helper

from lmconv.graph.facts import LAYERS, QUANTISERS
from lmconv.graph.index import subgraphs

WEIGHTED = (*LAYERS, "DeformConv", "Einsum", "GRU", "LSTM", "RNN")
"""Operators that multiply by weights, in float16 with enough digits for the sums."""


def key(node: onnx.NodeProto) -> str:
    """Returns the first output that a node has; this name identifies the node."""
    return next(str(name) for name in node.output if name)


def fixed_inputs(node: onnx.NodeProto, opsets: Iterable[onnx.OperatorSetIdProto]) -> set[int] | None:
    """Returns the positions of the inputs that ONNX allows in float32 and not in float16, for example scales of Resize.

    Returns:
        The positions; None if the whole node stays float32: ONNX does not define the operator, or the node has a
        subgraph, or is part of a Q/DQ pair.
    """
    version = next((entry.version for entry in opsets if entry.domain == node.domain), 0)
    if not defs.has(node.op_type, version, node.domain) or any(subgraphs(node)) or node.op_type in QUANTISERS:
        return None
    declared = defs.get_schema(node.op_type, version, node.domain).inputs
    return {
        position
        for position in range(len(node.input))
        for types in [declared[min(position, len(declared) - 1)].types]  # the last input may be any number of inputs
        if "tensor(float)" in types and "tensor(float16)" not in types
    }


def retype_attributes(node: onnx.NodeProto) -> None:
    """Changes float32 to float16 in attributes: the type of a Cast, and the value of a constant."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(float16_copy(attribute.t, attribute.t.name))


def float16_copy(tensor: TensorProto, name: str) -> TensorProto:
    """Returns a float16 copy of a tensor under another name."""
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float16"), name)
