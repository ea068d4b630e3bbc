"""Appends nodes at the end of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx


def append(graph: onnx.GraphProto, op: str, data: str, out: str, **constants: list[int]) -> str:
    """Appends a node with constants as its further inputs.

    Args:
        graph: Changed in place.
        op: Operator.
        data: Name of the first input.
        out: Name of the output and of the node; no value may have this name yet.
        constants: Further inputs, in order, int64; the key becomes the end of the initializer's name.

    Returns:
        `out`.
    """
    from onnx import helper, numpy_helper

    from lmconv.graph import naming

    taken = naming.taken(graph)
    names = [naming.fresh(f"{out}_{key}", taken) for key in constants]
    for name, value in zip(names, constants.values(), strict=True):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    graph.node.append(helper.make_node(op, [data, *names], [out], name=out))
    return out
