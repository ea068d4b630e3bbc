"""Facts about ONNX graphs (parameters, FLOPs, shapes), and nodes written as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, shape_inference

Part: TypeAlias = tuple[list[onnx.NodeProto], list[TensorProto]]
"""Nodes, and the initializers that these nodes read."""

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that multiply by weights."""
QUANTISERS = ("QuantizeLinear", "DequantizeLinear")


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of the model that the caller may change."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def initializers(model: onnx.ModelProto) -> dict[str, TensorProto]:
    """Returns the initializers by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def parameters(model: onnx.ModelProto) -> int:
    """Counts the weights of a graph: elements of all initializers except int64 (shapes), scales and zero points."""
    scales_and_zero_points = {
        name for node in model.graph.node if node.op_type in QUANTISERS for name in node.input[1:]
    }
    weights = (
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type != TensorProto.INT64 and tensor.name not in scales_and_zero_points
    )
    return sum(prod(tensor.dims) for tensor in weights)


def flops(model: onnx.ModelProto, size: tuple[int, int] | None = None) -> int:
    """Returns the FLOPs for one input: two per multiply-accumulate of Conv, ConvTranspose, Gemm and MatMul.

    Args:
        model: The model.
        size: (height, width) of the input in pixels, used if the graph leaves height and width free.
    """
    return sum(2 * macs for macs in layer_macs(model.graph.node, static_shapes(model, size)).values())


def layer_macs(nodes: Iterable[onnx.NodeProto], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Returns the multiply-accumulates of each Conv, ConvTranspose, Gemm and MatMul for one input.

    Args:
        nodes: Nodes of the graph.
        shapes: Shapes by name for a batch of one; a layer with an unknown shape is left out.

    Returns:
        Number of multiply-accumulates by the name of the layer's output.
    """
    return dict(_macs(nodes, shapes))


def _macs(nodes: Iterable[onnx.NodeProto], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, int]]:
    """Yields the entries of `layer_macs`."""
    for node in nodes:
        if node.op_type not in LAYERS or len(node.input) < 2:
            continue
        out, data, weight = (shapes.get(name) for name in (node.output[0], *node.input[:2]))
        if out is None or weight is None or data is None:  # unknown shape, for example of a value from a sequence
            continue
        if node.op_type == "Conv":
            yield node.output[0], prod(out) * prod(weight[1:])
        elif node.op_type == "ConvTranspose":
            yield node.output[0], prod(data) * prod(weight[1:])
        elif data:
            yield node.output[0], prod(out) * data[-1]


def static_shapes(model: onnx.ModelProto, size: tuple[int, int] | None = None) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all values for a batch of one, as far as shape inference finds them.

    Args:
        model: The model; not changed.
        size: (height, width) of the input in pixels, used if the graph leaves height and width free.
    """
    copy = copied(model)
    set_batch(copy, 1)
    if size:
        _, _, *dims = copy.graph.input[0].type.tensor_type.shape.dim
        for dim, side in zip(dims, size, strict=False):
            dim.dim_value = dim.dim_value or side
        for value in copy.graph.output:  # the declared shape may differ for this input size
            value.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(copy, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in [*inferred.input, *inferred.output, *inferred.value_info]:
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes


def set_batch(model: onnx.ModelProto, batch: int | str) -> None:
    """Sets the batch axis of every input and output to a number, or to a name for a free axis.

    Removes the shapes of all intermediate values, because these shapes may contain the old batch size.
    """
    for value in [*model.graph.input, *model.graph.output]:
        dim = value.type.tensor_type.shape.dim[0]
        if isinstance(batch, int):
            dim.dim_value = batch
        else:
            dim.dim_param = batch
    del model.graph.value_info[:]


def parse_nodes(body: str, constants: Mapping[str, object], names: Mapping[str, str], prefix: str) -> Part:
    """Parses nodes that are written as text.

    Args:
        body: Lines of ONNX's textual syntax. Names in capitals, like `ZERO`, are constants.
        constants: Values of the constants by name. Integers become int64 initializers, other values float32.
            Constants that `body` does not use are left out.
        names: Names in the graph, by the name in the text.
        prefix: Prefix of every name that is not in `names`.

    Returns:
        The nodes, and the initializers that these nodes read.
    """
    parsed = onnx.parser.parse_graph(f"nodes () => () {{ {body} }}")  # a prefix may have any letters
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
