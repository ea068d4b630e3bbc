"""Runs an ONNX graph one node at a time, for passes that read or change intermediate tensors."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lmconv.graph.constants import NUMPY
from lmconv.graph.index import Graph, reads
from lmconv.types import Float32

if TYPE_CHECKING:
    import onnxruntime

Chunks: TypeAlias = list[NDArray[Any]]
"""One tensor of the graph for all calibration crops: arrays of a few crops each, split along axis 0.

A tensor that is computed from constants alone is one array, which belongs to all crops.
"""

CHUNK = 8
"""Number of crops per array if the batch axis is free."""

ELEMENTS = {
    "float": TensorProto.FLOAT,
    "double": TensorProto.DOUBLE,
} | {name.lower(): number for name, number in TensorProto.DataType.items()}
"""Element type by its name in ONNX Runtime."""
NATIVE = {f"tensor({name})" for name, number in ELEMENTS.items() if number in NUMPY}
"""Types in ONNX Runtime of tensors that numpy has too."""


T = TypeVar("T")
U = TypeVar("U")


def on_all_cores(function: Callable[[T], U], items: Iterable[T]) -> list[U]:
    """Returns the results of a function that spends its time in NumPy or ONNX Runtime, computed in parallel."""
    items = list(items)
    return [function(item) for item in items] if len(items) < 2 else list(_threads().map(function, items))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="lmconv")


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
        Tensors by name: first the network input, then the outputs of each node. Sequences, optional values and
        tensors whose element type numpy does not have (bfloat16) are computed, and not yielded.
    """
    compute = compute or _run_float(graph)
    last_use = {name: index for index, node in enumerate(graph.proto.node) for name in (*reads(node), *node.output)}
    values = {graph.inputs[0]: batches(graph, crops)}
    finish(values)
    yield values
    for index, node in enumerate(graph.proto.node):
        outputs = compute(node, values)
        for name in (*reads(node), *node.output):
            if last_use[name] == index:
                values.pop(name, None)
                values.pop(restored(name), None)
        opaque = {name: chunks for name, chunks in outputs.items() if not isinstance(chunks[0], np.ndarray)}
        tensors = {name: chunks for name, chunks in outputs.items() if name not in opaque}
        finish(tensors)
        yield tensors
        values.update(tensors | opaque)


def batches(graph: Graph, crops: Float32) -> Chunks:
    """Splits crops into arrays of the graph's fixed batch size, or of `CHUNK` crops if the batch axis is free.

    With a fixed batch size, the crops repeat from the first one to fill the last array.
    """
    (value,) = (value for value in graph.proto.input if value.name == graph.inputs[0])
    fixed_batch = value.type.tensor_type.shape.dim[0].dim_value
    if fixed_batch:
        crops = np.resize(crops, (-(-len(crops) // fixed_batch) * fixed_batch, *crops.shape[1:]))
    size = fixed_batch or CHUNK
    return [crops[start : start + size] for start in range(0, len(crops), size)]


def run_node(
    graph: Graph, node: onnx.NodeProto, values: Mapping[str, Chunks], constants: Mapping[str, NDArray[Any]]
) -> dict[str, Chunks]:
    """Runs one node, with its subgraphs, in ONNX Runtime.

    Args:
        graph: The graph of the node, for its opsets.
        node: The node.
        values: Computed inputs by name; may hold other tensors too.
        constants: Constant inputs by name; may hold other constants too.

    Returns:
        The outputs of the node by name; one array each if the node reads constants alone.
    """
    import onnxruntime as ort

    names = dict.fromkeys(reads(node))
    chunks = {name: on_all_cores(to_runtime, values[name]) for name in names if name in values}
    count = max((len(value) for value in chunks.values()), default=1)
    outputs = [name for name in node.output if name]
    node_graph = helper.make_graph(
        [node],
        "node",
        [helper.make_value_info(name, _type(value[0].data_type())) for name, value in chunks.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(constants[name], name) for name in names if name in constants],
    )
    model = helper.make_model(node_graph, opset_imports=graph.opsets, ir_version=10)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1 if count > 1 else 0  # several arrays are computed in parallel
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(index: int) -> list[Any]:
        inputs = {name: value[index % len(value)] for name, value in chunks.items()}
        return [from_runtime(value) for value in session.run_with_ort_values(outputs, inputs)]

    return dict(zip(outputs, map(list, zip(*on_all_cores(run, range(count)), strict=True)), strict=True))


def to_runtime(value: NDArray[Any] | onnxruntime.OrtValue) -> onnxruntime.OrtValue:
    """Returns an array as a value of ONNX Runtime; any other value is one already."""
    import onnxruntime as ort

    return ort.OrtValue.ortvalue_from_numpy(value) if isinstance(value, np.ndarray) else value


def from_runtime(value: onnxruntime.OrtValue) -> Any:
    """Returns a value of ONNX Runtime as an array; unchanged if numpy has no such type."""
    return value.numpy() if value.data_type() in NATIVE else value


def _type(name: str) -> onnx.TypeProto:
    """Returns the type that ONNX Runtime names, for example `tensor(float)` or `seq(tensor(float))`."""
    kind, inner = name.removesuffix(")").split("(", 1)
    if kind == "seq":
        return helper.make_sequence_type_proto(_type(inner))
    return helper.make_tensor_type_proto(ELEMENTS[inner], None)


def has_channels(values: Chunks) -> bool:
    """True if all axes except the first are the same in every array: crops are split along axis 0 alone."""
    return len({chunk.shape[1:] for chunk in values}) == 1


def channel_mean(values: Chunks, axis: int | None = None) -> Float32:
    """Returns the mean of each channel, (C,) float32.

    Args:
        values: The tensor.
        axis: Axis of the channels; by default axis 1 of (N, C, H, W) and the last axis of (..., C).
    """
    channel = axis or (1 if values[0].ndim > 3 else values[0].ndim - 1)
    averaged = tuple(axis for axis in range(values[0].ndim) if axis != channel)
    means = on_all_cores(lambda chunk: chunk.mean(axis=averaged, dtype=np.float64), values)
    return np.average(means, axis=0, weights=[len(chunk) for chunk in values]).astype(np.float32)
