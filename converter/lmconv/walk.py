"""Computes an ONNX graph node by node, for passes that look at or change what is in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lmconv.types import Float32, Float64

Chunks: TypeAlias = list[NDArray[Any]]
"""One value of the graph for all calibration crops, in pieces of a few crops along axis 0."""

CHUNK = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """An index of an ONNX graph; `constants` may be replaced, the nodes may not."""

    proto: onnx.GraphProto
    opsets: list[onnx.OperatorSetIdProto]
    constants: dict[str, NDArray[Any]]
    consumers: dict[str, list[onnx.NodeProto]]
    inputs: list[str]
    outputs: list[str]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Graph:
        """Indexes `model`."""
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                consumers.setdefault(name, []).append(node)
        return cls(
            proto=model.graph,
            opsets=list(model.opset_import),
            constants=constants,
            consumers=consumers,
            inputs=[value.name for value in model.graph.input if value.name not in constants],
            outputs=[value.name for value in model.graph.output],
        )

    def computed(self, node: onnx.NodeProto) -> list[str]:
        """The inputs of `node` that are not constant."""
        return [name for name in node.input if name and name not in self.constants]


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """An attribute's value."""
    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


def reads(node: onnx.NodeProto) -> list[str]:
    """Everything a node reads, what its subgraphs take from outside included; an input left out is not in it."""
    inner = [name for graph in subgraphs(node) for part in graph.node for name in reads(part)]
    return [name for name in (*node.input, *inner) if name]


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs within a node, such as the branches of an If."""
    for item in node.attribute:
        yield from [item.g] if item.type == onnx.AttributeProto.GRAPH else item.graphs


def layer_bias(node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]], outputs: int) -> Float64 | None:
    """(outputs,) float64: what a convolution or linear layer adds; None where that is computed, or of another shape."""
    if len(node.input) < 3 or not node.input[2]:
        return np.zeros(outputs)
    given = constants.get(node.input[2])
    if given is None or (given.size != 1 and given.shape[-1] != given.size) or given.size not in (1, outputs):
        return None
    scale = attribute(node, "beta", 1.0) if node.op_type == "Gemm" else 1.0
    return np.broadcast_to(given.ravel().astype(np.float64) * scale, outputs)


def padded(node: onnx.NodeProto) -> bool:
    """Whether a convolution pads with zeros, or may, as its `auto_pad` says."""
    mode = attribute(node, "auto_pad", b"NOTSET")
    return mode in (b"SAME_UPPER", b"SAME_LOWER") or (mode == b"NOTSET" and any(attribute(node, "pads", [])))


def restored(name: str) -> str:
    """The name of a tensor after its Q/DQ pair; a walk forgets it with the tensor itself."""
    return f"{name}_dequantized"


def _run_float(graph: Graph) -> Callable[[onnx.NodeProto, Mapping[str, Chunks]], dict[str, Chunks]]:
    return lambda node, values: run_node(graph, node, values, graph.constants)


def walk(
    graph: Graph,
    crops: Float32,
    compute: Callable[[onnx.NodeProto, Mapping[str, Chunks]], dict[str, Chunks]] | None = None,
    finish: Callable[[dict[str, Chunks]], None] = lambda made: None,
) -> Iterator[dict[str, Chunks]]:
    """Computes the graph node by node and gives what each makes, holding only what is still needed.

    Args:
        graph: The float graph.
        crops: (n, 3, H, W) float32 network inputs.
        compute: How to compute one node; in float by default.
        finish: May change what a node made before others read it.
    """
    compute = compute or _run_float(graph)
    last = {name: index for index, node in enumerate(graph.proto.node) for name in (*node.input, *node.output)}
    values = {graph.inputs[0]: _pieces(graph, crops)}
    finish(values)
    yield values
    for index, node in enumerate(graph.proto.node):
        made = compute(node, values)
        for name in (*node.input, *node.output):
            if last[name] == index:
                values.pop(name, None)
                values.pop(restored(name), None)
        finish(made)
        yield made
        values.update(made)


def _pieces(graph: Graph, crops: Float32) -> Chunks:
    """Cuts crops to the batch size that the graph is tied to, or to CHUNK; an incomplete last one starts over."""
    fixed = graph.proto.input[0].type.tensor_type.shape.dim[0].dim_value
    if fixed:
        crops = np.resize(crops, (-(-len(crops) // fixed) * fixed, *crops.shape[1:]))
    return [crops[start : start + (fixed or CHUNK)] for start in range(0, len(crops), fixed or CHUNK)]


def run_node(
    graph: Graph, node: onnx.NodeProto, values: Mapping[str, Chunks], constants: Mapping[str, NDArray[Any]]
) -> dict[str, Chunks]:
    """Computes one node in ONNX Runtime: its outputs by name."""
    import onnxruntime as ort

    fed = [name for name in dict.fromkeys(node.input) if name in values]
    kinds = {name: helper.np_dtype_to_tensor_dtype(values[name][0].dtype) for name in fed}
    alone = helper.make_graph(
        [node],
        "node",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
        [numpy_helper.from_array(constants[name], name) for name in dict.fromkeys(node.input) if name in constants],
    )
    model = helper.make_model(alone, opset_imports=graph.opsets, ir_version=10)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    count = max((len(values[name]) for name in fed), default=1)
    results = [session.run(None, {name: values[name][piece] for name in fed}) for piece in range(count)]
    return {name: [result[i] for result in results] for i, name in enumerate(name for name in node.output if name)}


def channel_mean(values: Chunks) -> Float32:
    """Mean per channel of (N, C, H, W) or (..., C) values."""
    channel = 1 if values[0].ndim > 3 else values[0].ndim - 1
    others = tuple(axis for axis in range(values[0].ndim) if axis != channel)
    means = [x.mean(axis=others, dtype=np.float64) for x in values]
    return np.average(means, axis=0, weights=[len(x) for x in values]).astype(np.float32)
