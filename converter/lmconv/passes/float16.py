"""Weights and arithmetic in half precision; inputs, outputs and the last layer stay float32, and what would overflow.

Types are propagated by a partition: the last weighted node and all that follows it stay float32, everything before
is float16, and a Cast stands where an edge crosses. Casts in the graph carry the precision to every runtime, strongly
typed TensorRT networks among them. The largest magnitude of every tensor is measured on seeded noise and on faces where
there are any: a node that reads or gives more than a quarter of float16's range stays float32 too, and is named.

Rounding weights shifts the mean of what a layer gives, and in a deep network the shifts add up: PFLD's points move by
up to 0.28 px on noise. So the errors of a filter are made to cancel, and biases are corrected layer after layer, on
seeded noise (empirical bias correction: Nagel et al. 2019, https://arxiv.org/abs/1906.04721); 0.07 px are left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lmconv.errors import GateFailed
from lmconv.graph.execution import Chunks, channel_mean, run_node, walk
from lmconv.graph.index import Graph
from lmconv.inference.session import noise
from lmconv.types import Float32, Json, Pass, PassContext

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
CORRECTION_PIXELS = 32 * 112 * 112
"""Of the noise that biases are corrected on, in 4 to 32 inputs: a larger input averages over more places by itself."""
CORRECTION_SEED = 2
"""Of that noise: neither that of export's own check nor that of verify."""
LIMIT = float(np.finfo(np.float16).max) / 4
"""Magnitude beyond which a tensor stays float32: another input may drive it further than those it is measured on."""
FLOAT32_INPUTS = {"Resize": (1, 2)}
"""Inputs that the operator's definition fixes to float32: roi and scales of Resize."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a float32 graph was seen to compute, by tensor.

    Attributes:
        means: Of each channel, (C,) float32; of layers with a bias, on noise.
        largest: Magnitude.
    """

    means: dict[str, Float32] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)


def float16(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Converts a float32 graph.

    Raises:
        GateFailed: There is no layer to convert.
    """
    graph = model.graph
    kept = _last_layer(graph)
    last = ", ".join(graph.node[index].name for index in sorted(kept) if graph.node[index].op_type in WEIGHTED)
    height, width = context.spec.input_size
    count = min(32, max(4, CORRECTION_PIXELS // (height * width)))
    inputs = noise(context.spec, count, CORRECTION_SEED)
    seen = _observe(model, [inputs, *([] if context.crops is None else [context.crops[:count]])])
    overflow = _overflowing(graph, seen) - kept
    kept |= overflow
    named = [graph.node[index].name or graph.node[index].output[0] for index in sorted(overflow)]
    corrected = _round_weights(model, kept, inputs, seen.means)
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
    return model, {"float32": last, "overflow": named, "biases corrected": corrected}


def _observe(model: onnx.ModelProto, inputs: Sequence[Float32]) -> Seen:
    """Computes a float32 graph on inputs, each (n, 3, H, W) float32; means are those on the first."""
    graph = Graph.of(model)
    biased = {node.output[0] for node in model.graph.node if _has_bias(node, graph)}
    seen = Seen()
    for images in inputs:
        for made in walk(graph, images):
            for name, chunks in made.items():
                if chunks[0].dtype == np.float32:
                    largest = max(_largest(chunk) for chunk in chunks)
                    seen.largest[name] = max(seen.largest.get(name, 0.0), largest)
                if name in biased and name not in seen.means:
                    seen.means[name] = channel_mean(chunks)
    constants = ((name, value) for name, value in graph.constants.items() if value.dtype == np.float32)
    seen.largest.update((name, _largest(value)) for name, value in constants)
    return seen


def _largest(values: NDArray[Any]) -> float:
    """The largest magnitude; infinite where something is not a number."""
    found = float(np.abs(values).max(initial=0))
    return np.inf if np.isnan(found) else found


def _overflowing(graph: onnx.GraphProto, seen: Seen) -> set[int]:
    """Indices of the nodes that read or give what is beyond the limit."""
    beyond = {name for name, largest in seen.largest.items() if largest > LIMIT}
    return {index for index, node in enumerate(graph.node) if beyond.intersection((*node.input, *node.output))}


def _round_weights(model: onnx.ModelProto, kept: set[int], inputs: Float32, exact: Mapping[str, Float32]) -> int:
    """Rounds all weights but those of `kept` to float16 values, and gives biases what that takes from the mean output.

    Args:
        model: A float32 graph; its initializers are changed in place, and stay float32.
        kept: Indices of the nodes that stay float32.
        inputs: (n, 3, H, W) float32.
        exact: Means of what layers with a bias give on these inputs before that.

    Returns:
        How many biases were corrected.
    """
    graph = Graph.of(model)
    exempt = {name for index in kept for name in model.graph.node[index].output}
    biases = {node.output[0]: node.input[2] for node in model.graph.node if _has_bias(node, graph)}
    rounded: dict[str, NDArray[Any]] = {}

    def compute(node: onnx.NodeProto, values: Mapping[str, Chunks]) -> dict[str, Chunks]:
        name = node.output[0]
        fit = _same if name in exempt else _rounded
        constants = {key: fit(graph.constants[key]) for key in node.input if key in graph.constants}
        made = run_node(graph, node, values, constants)
        if name in biases:
            shift = exact[name] - channel_mean(made[name])
            constants[biases[name]] = fit((graph.constants[biases[name]] + shift).astype(np.float32))
            made = run_node(graph, node, values, constants)
        rounded.update(constants)
        return made

    for _ in walk(graph, inputs, compute):
        pass
    for tensor in model.graph.initializer:
        if tensor.name in rounded and tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(rounded[tensor.name], tensor.name))
    return len(biases)


def _has_bias(node: onnx.NodeProto, graph: Graph) -> bool:
    biased = node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.input) > 2
    return biased and node.input[2] in graph.constants and len(graph.consumers[node.input[2]]) == 1


def _same(values: NDArray[Any]) -> NDArray[Any]:
    return values


def _rounded(values: NDArray[Any]) -> NDArray[Any]:
    """Float16 values for float32 ones of any shape, as float32; other types as they are.

    In a weight, the rounding errors of each filter cancel: largest first, each value takes over the error of those
    before it, so that what is left is that of the smallest (error diffusion).
    """
    if values.dtype != np.float32 or values.ndim < 2:
        return values.astype(np.float16).astype(np.float32) if values.dtype == np.float32 else values
    filters = values.reshape(len(values), -1)
    result, error = np.zeros_like(filters), np.zeros(len(filters))
    rows = np.arange(len(filters))
    for column in np.argsort(-np.abs(filters), axis=1, kind="stable").T:
        wanted = np.where(filters[rows, column] == 0, 0, filters[rows, column] + error)
        result[rows, column] = wanted.astype(np.float16)
        error += filters[rows, column] - result[rows, column]
    return result.reshape(values.shape)


def _last_layer(graph: onnx.GraphProto) -> set[int]:
    """Indices of the weighted nodes that no other comes after, and of all nodes that depend on them.

    One it is in most networks; each of a detector's heads has one.
    """
    weighted = {index for index, node in enumerate(graph.node) if node.op_type in WEIGHTED}
    if not weighted:
        raise GateFailed("the graph has no convolution or linear layer: nothing to convert")
    feeding: set[str] = set()  # values that a weighted node depends on
    last = set()
    for index, node in reversed(list(enumerate(graph.node))):
        before = bool(feeding.intersection(node.output))
        if index in weighted and not before:
            last.add(index)
        if before or index in weighted:
            feeding.update(node.input)
    names: set[str] = set()
    for index, node in enumerate(graph.node):
        if index in last or names.intersection(node.input):
            last.add(index)
            names.update(node.output)
    return last


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
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name)


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
    summary="half-precision weights and arithmetic; the last layer float32, and what would overflow",
    apply=float16,
    tolerance=3e-3,  # 1e-4 of trained networks; deep ones with random weights reach 1.2e-3, however they are rounded
    required=True,
    uses=("crops",),
)
