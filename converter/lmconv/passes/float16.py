"""Weights and arithmetic in half precision; inputs, outputs and the last layer stay float32.

Types are propagated by a partition: the last weighted node and all that follows it stay float32, everything before
is float16, and a Cast stands where an edge crosses. Casts in the graph carry the precision to every runtime, strongly
typed TensorRT networks among them.

Rounding weights shifts the mean of what a layer gives, and in a deep network the shifts add up: PFLD's points move by up
to 0.28 px on noise. So the biases are corrected for it, layer after layer, on seeded noise (empirical bias correction:
Nagel et al. 2019, https://arxiv.org/abs/1906.04721); 0.07 px are left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lmconv.errors import GateFailed
from lmconv.quantise import Chunks, Graph, chunked, run_node, schedule
from lmconv.session import noise
from lmconv.types import Float32, Json, Pass, PassContext

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
CORRECTION_INPUTS = 16
CORRECTION_SEED = 2
"""Of the noise that biases are corrected on: neither that of export's own check nor that of verify."""
FLOAT32_INPUTS = {"Resize": (1, 2)}
"""Inputs that the operator's definition fixes to float32: roi and scales of Resize."""


def float16(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Converts a float32 graph.

    Raises:
        GateFailed: A weight is beyond float16's range; it is named.
    """
    graph = model.graph
    kept = _last_layer(graph)
    corrected = _correct_biases(model, kept, noise(context.spec, CORRECTION_INPUTS, CORRECTION_SEED))
    halves = _float_values(model, kept)
    casts: dict[tuple[str, int], str] = {}
    nodes: list[onnx.NodeProto] = []
    for index, node in enumerate(graph.node):
        wanted = TensorProto.FLOAT if index in kept else TensorProto.FLOAT16
        for place, name in enumerate(node.input):
            fixed = place in FLOAT32_INPUTS.get(node.op_type, ())
            node.input[place] = _typed(graph, name, TensorProto.FLOAT if fixed else wanted, halves, casts, nodes)
        if wanted == TensorProto.FLOAT16:
            _retype_attributes(node)
        nodes.append(node)
    for value in graph.output:
        if halves.get(value.name) == TensorProto.FLOAT16:
            raise GateFailed(f"output {value.name} does not depend on a weighted layer: nothing to convert")
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    _drop_unused(graph)
    return model, {"float32": graph.node[-len(kept)].name, "biases corrected": corrected}


def _correct_biases(model: onnx.ModelProto, kept: set[int], inputs: Float32) -> int:
    """Gives each bias what rounding takes from its layer's mean output; changes the model's biases in place.

    Args:
        model: A float32 graph.
        kept: Indices of the nodes that stay float32.
        inputs: (n, 3, H, W) float32.

    Returns:
        How many biases were corrected.
    """
    graph = Graph.of(model)
    rounded = {name: _nearest(value) for name, value in graph.constants.items()}
    exact = {graph.inputs[0]: chunked(graph, inputs)}
    lossy = dict(exact)
    corrected = {}
    for index, (node, finished) in enumerate(schedule(graph)):
        constants = graph.constants if index in kept else rounded
        wanted, given = run_node(node, exact, graph.constants), run_node(node, lossy, constants)
        if node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.input) > 2 and node.input[2] in rounded:
            shift = _channel_means(wanted[node.output[0]]) - _channel_means(given[node.output[0]])
            bias = (constants[node.input[2]] + shift).astype(np.float32)
            corrected[node.input[2]] = bias if index in kept else _nearest(bias)
            given = run_node(node, lossy, {**constants, **corrected})
        exact.update(wanted)
        lossy.update(given)
        for name in finished:
            exact.pop(name, None), lossy.pop(name, None)
    for tensor in model.graph.initializer:
        if tensor.name in corrected:
            tensor.CopyFrom(numpy_helper.from_array(corrected[tensor.name], tensor.name))
    return len(corrected)


def _nearest(values: NDArray[Any]) -> NDArray[Any]:
    """What float16 makes of float32 values of any shape, as float32; other types as they are."""
    return values.astype(np.float16).astype(np.float32) if values.dtype == np.float32 else values


def _channel_means(chunks: Chunks) -> NDArray[np.float64]:
    """(C,) float64: mean of (n, C, ...) values over everything but their channels."""
    values = np.concatenate(chunks)
    return values.mean(axis=(0, *range(2, values.ndim)), dtype=np.float64)


def _last_layer(graph: onnx.GraphProto) -> set[int]:
    """Indices of the last weighted node and of all nodes that depend on it."""
    last = max((index for index, node in enumerate(graph.node) if node.op_type in WEIGHTED), default=-1)
    if last < 0:
        raise GateFailed("the graph has no convolution or linear layer: nothing to convert")
    kept, names = {last}, set(graph.node[last].output)
    for index in range(last + 1, len(graph.node)):
        if names & set(graph.node[index].input):
            kept.add(index)
            names |= set(graph.node[index].output)
    return kept


def _float_values(model: onnx.ModelProto, kept: set[int]) -> dict[str, int]:
    """Element types after the conversion, of every value that is float32 before it."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in [*graph.input, *graph.output, *graph.value_info]:
        types[value.name] = value.type.tensor_type.elem_type
    after: dict[str, int] = {name: TensorProto.FLOAT for name, kind in types.items() if kind == TensorProto.FLOAT}
    for index, node in enumerate(graph.node):
        for output in node.output:
            if output in after and index not in kept:
                after[output] = TensorProto.FLOAT16
    return after


def _typed(
    graph: onnx.GraphProto,
    name: str,
    wanted: int,
    types: dict[str, int],
    casts: dict[tuple[str, int], str],
    nodes: list[onnx.NodeProto],
) -> str:
    """The name of a value in the wanted type: itself, a converted initializer, or a Cast added to `nodes`."""
    if types.get(name, wanted) == wanted:
        return name
    if (name, wanted) not in casts:
        casts[name, wanted] = cast = f"{name}_{'float16' if wanted == TensorProto.FLOAT16 else 'float32'}"
        constant = next((tensor for tensor in graph.initializer if tensor.name == name), None)
        if constant is None:
            nodes.append(helper.make_node("Cast", [name], [cast], name=cast, to=wanted))
        else:
            graph.initializer.append(_half(constant, cast))
    return casts[name, wanted]


def _half(tensor: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    limit = np.finfo(np.float16).max
    if np.abs(values).max(initial=0) > limit:
        raise GateFailed(f"weight {tensor.name} reaches {np.abs(values).max():.3g}, beyond float16's {limit:g}")
    return numpy_helper.from_array(values.astype(np.float16), name)


def _retype_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(_half(attribute.t, attribute.t.name))


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(tensors)


plugin = Pass(
    name="float16",
    summary="half-precision weights and arithmetic; the last layer float32",
    apply=float16,
    tolerance=1e-3,
    required=True,
)
