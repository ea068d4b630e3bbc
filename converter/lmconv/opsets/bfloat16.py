"""Constants in bfloat16 as float32, which holds every bfloat16 number exactly."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from lmconv.graph import naming
from lmconv.graph.index import attribute


def widen(model: onnx.ModelProto) -> int:
    """Turns all bfloat16 constants of a model into float32, in place.

    A model that computes in bfloat16 (a node casts to bfloat16) is not changed: its rounding is part of the network.

    Returns:
        Number of constants changed.
    """
    graphs = list(naming.graphs(model.graph))
    nodes = [node for graph in graphs for node in graph.node]
    if any(node.op_type == "Cast" and attribute(node, "to", 0) == TensorProto.BFLOAT16 for node in nodes):
        return 0
    tensors = [tensor for graph in graphs for tensor in graph.initializer]
    tensors += [item.t for node in nodes for item in node.attribute if item.type == AttributeProto.TENSOR]
    narrow = [tensor for tensor in tensors if tensor.data_type == TensorProto.BFLOAT16]
    for tensor in narrow:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    if narrow:
        for graph in graphs:
            del graph.value_info[:]
    return len(narrow)
