"""Small facts about ONNX graphs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, shape_inference

Part: TypeAlias = tuple[list[onnx.NodeProto], list[TensorProto]]
"""Nodes, and the initializers that they read."""

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QUANTISERS = ("QuantizeLinear", "DequantizeLinear")


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that can be changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def parameters(model: onnx.ModelProto) -> int:
    """How many weights a graph holds: its numeric initializers but shapes (int64), scales and zero points."""
    helpers = {name for node in model.graph.node if node.op_type in QUANTISERS for name in node.input[1:]}
    counted = (
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type != TensorProto.INT64 and tensor.name not in helpers
    )
    return sum(prod(tensor.dims) for tensor in counted)


def flops(model: onnx.ModelProto, size: tuple[int, int] | None = None) -> int:
    """Floating-point operations of one input: two per multiply-accumulate of Conv, ConvTranspose, Gemm and MatMul.

    Where the input may have any size, they are those of one with this (height, width).
    """
    return sum(2 * macs for macs in layer_macs(model.graph.node, static_shapes(model, size)).values())


def layer_macs(nodes: Iterable[onnx.NodeProto], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Multiply-accumulates of one input, by the output of each Conv, ConvTranspose, Gemm and MatMul."""
    return dict(_macs(nodes, shapes))


def _macs(nodes: Iterable[onnx.NodeProto], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, int]]:
    for node in nodes:
        if node.op_type not in LAYERS or len(node.input) < 2:
            continue
        out, data, weight = (shapes.get(name) for name in (node.output[0], *node.input[:2]))
        if out is None or weight is None or data is None:  # such as of what comes from a sequence
            continue
        if node.op_type == "Conv":
            yield node.output[0], prod(out) * prod(weight[1:])
        elif node.op_type == "ConvTranspose":
            yield node.output[0], prod(data) * prod(weight[1:])
        elif data:
            yield node.output[0], prod(out) * data[-1]


def static_shapes(model: onnx.ModelProto, size: tuple[int, int] | None = None) -> dict[str, tuple[int, ...]]:
    """Shapes of all values for one input (N = 1), where shape inference finds them; see `flops` for `size`."""
    one = onnx.ModelProto()
    one.CopyFrom(model)
    set_batch(one, 1)
    if size:
        _, _, *sides = one.graph.input[0].type.tensor_type.shape.dim
        for dim, side in zip(sides, size, strict=False):
            dim.dim_value = dim.dim_value or side
        for value in one.graph.output:  # they may have other sizes then than it says of them
            value.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(one, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in [*inferred.input, *inferred.output, *inferred.value_info]:
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes


def set_batch(model: onnx.ModelProto, batch: int | str) -> None:
    """Fixes the batch axis of every input and output, or frees it under a name; forgets the shapes in between."""
    for value in [*model.graph.input, *model.graph.output]:
        dim = value.type.tensor_type.shape.dim[0]
        if isinstance(batch, int):
            dim.dim_value = batch
        else:
            dim.dim_param = batch
    del model.graph.value_info[:]


def nodes(body: str, constants: Mapping[str, object], names: Mapping[str, str], prefix: str) -> Part:
    """Nodes written as text.

    Args:
        body: Lines of ONNX's textual syntax. Names in capitals are constants, `ZERO` and such.
        constants: Their values: whole numbers become int64, others float32. Those not used are left out.
        names: What some values of the text are called in the graph.
        prefix: Put before every other name.

    Returns:
        The nodes and the initializers that they read.
    """
    parsed = onnx.parser.parse_graph(f"{prefix} () => () {{ {body} }}")
    used = {name for node in parsed.node for name in node.input}
    for node in parsed.node:
        for field in (node.input, node.output):
            field[:] = [names.get(name) or f"{prefix}_{name.lower()}{'_' * name.isupper()}" for name in field]
        node.name = node.output[0]
    arrays = {name: np.asarray(value) for name, value in constants.items() if name in used}
    tensors = [
        numpy_helper.from_array(
            value.astype(np.int64 if value.dtype.kind == "i" else np.float32), f"{prefix}_{name.lower()}_"
        )
        for name, value in arrays.items()
    ]
    return list(parsed.node), tensors
