"""Rewrites resampling into products with constant matrices, which every runtime computes alike. Exact up to rounding.

OpenVINO computes some forms of Resize and AveragePool differently from the ONNX standard, see docs/blame.md. Resize and
AveragePool are linear and separable: the output is `A x B`, where A resamples the rows and B the columns. The pass
measures A and B by running the operator on one row and one column at a time, in ONNX Runtime. The pass does not run by
default: a runtime's own kernel is faster.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lmconv.graph.execution import run_node
from lmconv.graph.facts import static_shapes
from lmconv.graph.index import Graph, attribute
from lmconv.graph.rewriter import Rewriter, make
from lmconv.types import Float32, Json, Pass, PassContext

CLOSE = 1e-5
"""Largest difference of the matrices from the operator on random numbers, fractions of the largest output."""


def exact_resampling(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Rewrites each Resize that interpolates and each AveragePool, if sizes are constant and channels stay the same."""
    graph = Rewriter(model)
    nodes = [node for node in graph.nodes("Resize", "AveragePool") if _interpolates(node)]
    shapes, index, changed = static_shapes(model) if nodes else {}, Graph.of(model), []
    for node in nodes:
        before, after = shapes.get(node.input[0], ()), shapes.get(node.output[0], ())
        if len(before) != 4 or len(after) != 4 or before[1] != after[1]:
            continue
        matrices = _matrices(index, _static(index, node, after), before, after)
        if matrices is None:
            continue
        rows, columns = matrices
        name = node.output[0]
        stretched = graph.fresh(f"{name}_columns")
        graph.replace(
            node,
            make("MatMul", [node.input[0], graph.constant(f"{name}_column_weights", columns)], stretched),
            make("MatMul", [graph.constant(f"{name}_row_weights", rows), stretched], name),
        )
        changed.append({"name": name, "operator": node.op_type, "size": [list(before[2:]), list(after[2:])]})
    graph.commit()
    return model, {"layers": changed}


def _interpolates(node: onnx.NodeProto) -> bool:
    """True for an AveragePool, and for a Resize that is not `nearest` and does not crop."""
    if node.op_type == "AveragePool":
        return True
    cropped = attribute(node, "coordinate_transformation_mode", b"") == b"tf_crop_and_resize"
    return attribute(node, "mode", b"nearest") != b"nearest" and not cropped


def _static(graph: Graph, node: onnx.NodeProto, after: tuple[int, ...]) -> onnx.NodeProto:
    """Returns the node with a constant size in place of a computed one."""
    if all(name in graph.constants for name in node.input[1:] if name):
        return node
    static = onnx.NodeProto()
    static.CopyFrom(node)
    size = "exact_resampling_size"
    del static.input[1:]
    static.input.extend(["", "", size])
    kept = [item for item in node.attribute if item.name not in ("axes", "keep_aspect_ratio_policy")]
    del static.attribute[:]
    static.attribute.extend(kept)
    graph.constants[size] = np.array((1, 1, *after[2:]), np.int64)
    return static


def _matrices(
    graph: Graph, node: onnx.NodeProto, before: tuple[int, ...], after: tuple[int, ...]
) -> tuple[Float32, Float32] | None:
    """Returns the rows' matrix (h', h) and the columns' matrix (w, w'); None if the operator is not separable."""
    height, width = before[2:]

    def resampled(images: NDArray[Any]) -> Float32:
        constants = {name: _one_channel(value) for name, value in graph.constants.items() if name in node.input}
        parts = [image[None, None].astype(np.float32) for image in images]
        (chunks,) = run_node(graph, node, {node.input[0]: parts}, constants).values()
        return np.stack([chunk[0, 0] for chunk in chunks])

    by_row = resampled(np.broadcast_to(np.eye(height)[:, :, None], (height, height, width)))
    by_column = resampled(np.broadcast_to(np.eye(width)[:, None, :], (width, height, width)))
    ones, image = resampled(np.stack([np.ones((height, width)), np.random.default_rng(0).random((height, width))]))
    if ones.shape != after[2:] or not np.abs(ones).max() > 0:
        return None
    row, column = np.unravel_index(np.abs(ones).argmax(), ones.shape)
    rows = by_row[:, :, column].T / np.float32(ones[row, column])
    columns = by_column[:, row, :]
    product = rows @ np.random.default_rng(0).random((height, width)).astype(np.float32) @ columns
    if np.abs(product - image).max() > CLOSE * np.abs(image).max():
        return None
    return np.ascontiguousarray(rows), np.ascontiguousarray(columns)


def _one_channel(value: NDArray[Any]) -> NDArray[Any]:
    """Returns sizes or scales of a Resize for a batch and a channel of one."""
    return np.concatenate([np.ones(2, value.dtype), value[2:]]) if value.shape == (4,) else value


plugin = Pass(
    name="exact_resampling",
    summary="Resize and AveragePool as products with constant matrices, where a runtime computes them inexactly",
    apply=exact_resampling,
    tolerance=1e-6,
)
