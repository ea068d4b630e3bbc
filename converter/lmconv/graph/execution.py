"""Runs an ONNX graph one node at a time, for passes that read or change intermediate tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lmconv.graph.index import Graph
from lmconv.types import Float32

Chunks: TypeAlias = list[NDArray[Any]]
"""One tensor of the graph for all calibration crops: arrays of a few crops each, split along axis 0."""

CHUNK = 8
"""Number of crops per array if the batch axis is free."""


def restored(name: str) -> str:
    """Returns the name of a tensor after its Q/DQ pair. `walk` drops both tensors at the same time."""
    return f"{name}_dequantized"


def _run_float(graph: Graph) -> Callable[[onnx.NodeProto, Mapping[str, Chunks]], dict[str, Chunks]]:
    """Returns the default `compute` of `walk`: the unchanged node with the constants of the graph."""
    return lambda node, values: run_node(graph, node, values, graph.constants)


def walk(
    graph: Graph,
    crops: Float32,
    compute: Callable[[onnx.NodeProto, Mapping[str, Chunks]], dict[str, Chunks]] | None = None,
    finish: Callable[[dict[str, Chunks]], None] = lambda outputs: None,
) -> Iterator[dict[str, Chunks]]:
    """Runs the graph node by node. Keeps only the tensors that a later node still reads.

    Args:
        graph: The float graph.
        crops: (n, 3, H, W) float32 network inputs.
        compute: Function that returns the outputs of one node by name. By default, the node is computed in float.
        finish: Function that may change the outputs of a node before other nodes read them.

    Yields:
        Tensors by name: first the network input, then the outputs of each node.
    """
    compute = compute or _run_float(graph)
    last_use = {name: index for index, node in enumerate(graph.proto.node) for name in (*node.input, *node.output)}
    values = {graph.inputs[0]: _chunks(graph, crops)}
    finish(values)
    yield values
    for index, node in enumerate(graph.proto.node):
        outputs = compute(node, values)
        for name in (*node.input, *node.output):
            if last_use[name] == index:
                values.pop(name, None)
                values.pop(restored(name), None)
        finish(outputs)
        yield outputs
        values.update(outputs)


def _chunks(graph: Graph, crops: Float32) -> Chunks:
    """Splits crops into arrays of the graph's fixed batch size, or of `CHUNK` crops if the batch axis is free.

    With a fixed batch size, the crops repeat from the first one to fill the last array.
    """
    fixed_batch = graph.proto.input[0].type.tensor_type.shape.dim[0].dim_value
    if fixed_batch:
        crops = np.resize(crops, (-(-len(crops) // fixed_batch) * fixed_batch, *crops.shape[1:]))
    size = fixed_batch or CHUNK
    return [crops[start : start + size] for start in range(0, len(crops), size)]


def run_node(
    graph: Graph, node: onnx.NodeProto, values: Mapping[str, Chunks], constants: Mapping[str, NDArray[Any]]
) -> dict[str, Chunks]:
    """Runs one node in ONNX Runtime.

    Args:
        graph: The graph of the node, for its opsets.
        node: The node.
        values: Computed inputs by name; may hold other tensors too.
        constants: Constant inputs by name; may hold other constants too.

    Returns:
        The outputs of the node by name.
    """
    import onnxruntime as ort

    inputs = [name for name in dict.fromkeys(node.input) if name in values]
    types = {name: helper.np_dtype_to_tensor_dtype(values[name][0].dtype) for name in inputs}
    node_graph = helper.make_graph(
        [node],
        "node",
        [helper.make_tensor_value_info(name, type_, None) for name, type_ in types.items()],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
        [numpy_helper.from_array(constants[name], name) for name in dict.fromkeys(node.input) if name in constants],
    )
    model = helper.make_model(node_graph, opset_imports=graph.opsets, ir_version=10)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    count = max((len(values[name]) for name in inputs), default=1)
    results = [session.run(None, {name: values[name][chunk] for name in inputs}) for chunk in range(count)]
    outputs = [name for name in node.output if name]
    return {name: [result[index] for result in results] for index, name in enumerate(outputs)}


def channel_mean(values: Chunks, axis: int | None = None) -> Float32:
    """Returns the mean of each channel, (C,) float32.

    Args:
        values: A tensor.
        axis: Axis of the channels; by default that of (N, C, H, W) or (..., C).
    """
    channel = axis if axis is not None else 1 if values[0].ndim > 3 else values[0].ndim - 1
    averaged = tuple(axis for axis in range(values[0].ndim) if axis != channel)
    means = [chunk.mean(axis=averaged, dtype=np.float64) for chunk in values]
    return np.average(means, axis=0, weights=[len(chunk) for chunk in values]).astype(np.float32)
