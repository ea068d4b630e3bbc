"""Rewrites squeeze-and-excitation for the blocked layout of ONNX Runtime. Exact up to rounding.

ReduceMean over height and width becomes GlobalAveragePool. A gate (N, C, 1, 1) multiplies (N, C, H, W) by broadcasting.
The blocked layout has no kernel for this product: ONNX Runtime reorders both factors out of the layout, and the product
back again. Therefore Resize repeats the gate to (H, W): Resize and the product of equal shapes have blocked kernels.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from lmconv.graph.facts import static_shapes
from lmconv.graph.index import attribute
from lmconv.graph.rewriter import Rewriter, make
from lmconv.types import Json, Pass, PassContext

SPATIAL = {2, 3}
"""Axes of height and width."""


def gates(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Rewrites means over height and width, and products with a gate that has one value per channel."""
    graph = Rewriter(model)
    shapes = static_shapes(model) if graph.nodes("ReduceMean", "Mul") else {}
    means = 0
    for node in graph.nodes("ReduceMean"):
        if _is_spatial_mean(graph, node, shapes):
            graph.replace(node, make("GlobalAveragePool", [node.input[0]], node.output[0]))
            means += 1
    repeated: dict[str, tuple[int, ...]] = {}
    for node in graph.nodes("Mul"):
        for index, name in enumerate(node.input):
            shape = shapes.get(node.input[1 - index], ())
            if _is_gate(graph, name, shapes.get(name, ()), shape):
                graph.replace(node, *_repeat(graph, node, index, shape, repeated))
    graph.commit()
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    batch_size = batch.dim_value or batch.dim_param
    for name, shape in repeated.items():  # otherwise ONNX Runtime cannot tell that the batch sizes are equal
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch_size or None, *shape[1:]])
        model.graph.value_info.append(value)
    return model, {"means": means, "gates": len(repeated)}


def _is_spatial_mean(graph: Rewriter, node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> bool:
    """True if a ReduceMean averages a 4-D value over height and width, and keeps these axes."""
    axes = graph.constants.get(node.input[1]) if len(node.input) > 1 else None
    rank = len(shapes.get(node.input[0], ()))
    spatial = axes is not None and {int(axis) % 4 for axis in axes.ravel()} == SPATIAL
    return rank == 4 and spatial and attribute(node, "keepdims", 1) == 1


def _is_gate(graph: Rewriter, name: str, shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """True if a layer or activation gives one number per channel, which multiplies a map larger than 1x1."""
    broadcast = len(shape) == len(other) == 4 and shape[1] == other[1] and shape[2:] == (1, 1) != other[2:]
    return broadcast and graph.producer(name, "Sigmoid", "HardSigmoid", "Conv", "Relu", "Clip") is not None


def _repeat(
    graph: Rewriter, node: onnx.NodeProto, index: int, shape: tuple[int, ...], repeated: dict[str, tuple[int, ...]]
) -> list[onnx.NodeProto]:
    """Returns a Resize that repeats the gate, and the new product; records the repeated shape in `repeated`."""
    name = graph.fresh(f"{node.output[0]}_gate")
    repeated[name] = shape
    scales = graph.constant(f"{name}_scales", np.array([1, 1, *shape[2:]], np.float32))
    options = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    product = onnx.NodeProto()
    product.CopyFrom(node)
    product.input[index] = name
    return [make("Resize", [node.input[index], "", scales], name, **options), product]


plugin = Pass(
    name="gates",
    summary="squeeze-and-excitation: global pooling, and gates repeated by Resize instead of broadcast",
    apply=gates,
    tolerance=1e-6,
)
