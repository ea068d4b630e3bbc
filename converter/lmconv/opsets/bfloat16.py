"""Constants in bfloat16 as float32, which holds every bfloat16 number exactly."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from lmconv.graph import naming
from lmconv.graph.constants import tensors_of, widen
from lmconv.graph.index import attribute


def widen_constants(model: onnx.ModelProto) -> int:
    """Turns all bfloat16 constants of a model into float32, in place.

    A model with a Cast to bfloat16 computes in bfloat16, and is not changed: the rounding is part of the network.

    Returns:
        Number of constants changed.
    """
    casts = (node for node in naming.nodes_of(model) if node.op_type == "Cast")
    if any(attribute(node, "to", 0) == TensorProto.BFLOAT16 for node in casts):
        return 0
    narrow = [tensor for tensor in tensors_of(model.graph) if tensor.data_type == TensorProto.BFLOAT16]
    for tensor in narrow:
        widen(tensor)
    for graph in naming.graphs(model.graph) if narrow else ():
        del graph.value_info[:]
    return len(narrow)
