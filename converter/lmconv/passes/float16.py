"""Half-precision weights and arithmetic. Inputs, outputs, the last layer and overflowing nodes stay float32.

The pass splits the graph in two parts. The last weighted node and all later nodes stay float32; all earlier nodes
become float16. A Cast stands on every edge between the parts. Casts in the graph carry the precision to every runtime,
strongly typed TensorRT networks included. The pass measures the largest magnitude of every tensor on seeded noise, and
on faces if there are any. A node that reads or writes more than a quarter of float16's range stays float32 too, and the
recipe names this node.

Rounding the weights shifts the mean output of a layer, and the shifts add up in a deep network: PFLD's points move by
up to 0.28 px on noise. Therefore the pass makes the errors of each filter cancel, and corrects biases layer after layer
on seeded noise (empirical bias correction: Nagel et al. 2019, https://arxiv.org/abs/1906.04721). 0.07 px remain.
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
from lmconv.graph.facts import LAYERS
from lmconv.graph.index import Graph
from lmconv.inference.session import noise
from lmconv.types import Float32, Json, Pass, PassContext

CORRECTION_PIXELS = 32 * 112 * 112
"""Number of noise pixels for the bias correction, spread over 4 to 32 inputs.

Larger inputs need a smaller batch, because each of these inputs averages over more positions.
"""
CORRECTION_SEED = 2
"""Seed of this noise; neither the seed of export's own check nor the seed of `lmconv verify`."""
LIMIT = float(np.finfo(np.float16).max) / 4
"""Magnitude beyond which a tensor stays float32. Another input may cause larger values than the measured inputs."""
FLOAT32_INPUTS = {"Resize": (1, 2)}
"""Input positions that the definition of an operator fixes to float32: roi and scales of Resize."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorStatistics:
    """Statistics of the tensors of a float32 graph, by name.

    Attributes:
        means: Mean of each channel on noise, (C,) float32; only for outputs of layers with a bias.
        largest: Largest magnitude over all inputs; for constants, the largest magnitude of the constant.
    """

    means: dict[str, Float32] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)


def float16(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Converts a float32 graph to float16.

    Raises:
        GateFailed: The graph has no weighted layer, or an output does not depend on a weighted layer.
    """
    graph = model.graph
    float32_nodes = _last_layer(graph)
    last_layers = ", ".join(
        graph.node[index].name for index in sorted(float32_nodes) if graph.node[index].op_type in LAYERS
    )
    height, width = context.spec.input_size
    count = min(32, max(4, CORRECTION_PIXELS // (height * width)))
    inputs = noise(context.spec, count, CORRECTION_SEED)
    statistics = _statistics(model, [inputs, *([] if context.crops is None else [context.crops[:count]])])
    overflow = _overflowing(graph, statistics) - float32_nodes
    float32_nodes |= overflow
    overflow_names = [graph.node[index].name or graph.node[index].output[0] for index in sorted(overflow)]
    corrected = _round_weights(model, float32_nodes, inputs, statistics.means)
    _retype(model, float32_nodes)
    return model, {"float32": last_layers, "overflow": overflow_names, "biases corrected": corrected}


def _retype(model: onnx.ModelProto, float32_nodes: set[int]) -> None:
    """Changes all nodes to float16 except `float32_nodes` (indices), and inserts the casts between the two parts.

    Raises:
        GateFailed: An output does not depend on a weighted layer.
    """
    graph = model.graph
    types = _types_after(model, float32_nodes)
    casts: dict[tuple[str, int], str] = {}
    nodes: list[onnx.NodeProto] = []
    for index, node in enumerate(graph.node):
        node_type = TensorProto.FLOAT if index in float32_nodes else TensorProto.FLOAT16
        for position, name in enumerate(node.input):
            fixed = position in FLOAT32_INPUTS.get(node.op_type, ())
            node.input[position] = _cast(graph, name, TensorProto.FLOAT if fixed else node_type, types, casts, nodes)
        if node_type == TensorProto.FLOAT16:
            _retype_attributes(node)
        nodes.append(node)
    for value in graph.output:
        if types.get(value.name) == TensorProto.FLOAT16:
            raise GateFailed(
                f"output {value.name} depends on no convolution or linear layer and would become float16",
                hint="export this network in fp32",
            )
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    _drop_unused(graph)


def _statistics(model: onnx.ModelProto, inputs: Sequence[Float32]) -> TensorStatistics:
    """Runs a float32 graph and collects statistics of its tensors.

    Args:
        model: The graph.
        inputs: Batches of inputs, each (n, 3, H, W) float32. Channel means are taken on the first batch alone.
    """
    graph = Graph.of(model)
    biased = {node.output[0] for node in model.graph.node if _has_bias(node, graph)}
    statistics = TensorStatistics()
    for images in inputs:
        for tensors in walk(graph, images):
            for name, chunks in tensors.items():
                if chunks[0].dtype == np.float32:
                    largest = max(_largest(chunk) for chunk in chunks)
                    statistics.largest[name] = max(statistics.largest.get(name, 0.0), largest)
                if name in biased and name not in statistics.means:
                    statistics.means[name] = channel_mean(chunks)
    constants = ((name, value) for name, value in graph.constants.items() if value.dtype == np.float32)
    statistics.largest.update((name, _largest(value)) for name, value in constants)
    return statistics


def _largest(values: NDArray[Any]) -> float:
    """Returns the largest magnitude; infinity if a value is NaN."""
    largest = float(np.abs(values).max(initial=0))
    return np.inf if np.isnan(largest) else largest


def _overflowing(graph: onnx.GraphProto, statistics: TensorStatistics) -> set[int]:
    """Returns the indices of the nodes that read or write a tensor beyond `LIMIT`."""
    beyond = {name for name, largest in statistics.largest.items() if largest > LIMIT}
    return {index for index, node in enumerate(graph.node) if beyond.intersection((*node.input, *node.output))}


def _round_weights(
    model: onnx.ModelProto, float32_nodes: set[int], inputs: Float32, exact_means: Mapping[str, Float32]
) -> int:
    """Rounds weights to float16 values, and corrects biases by the shift that rounding causes in the mean output.

    Args:
        model: A float32 graph. Its initializers are changed in place and stay float32.
        float32_nodes: Indices of the nodes that stay float32; the weights of these nodes are not rounded.
        inputs: (n, 3, H, W) float32.
        exact_means: Channel means of the outputs of layers with a bias, on `inputs`, before rounding.

    Returns:
        Number of corrected biases.
    """
    graph = Graph.of(model)
    exempt = {name for index in float32_nodes for name in model.graph.node[index].output}
    biases = {node.output[0]: node.input[2] for node in model.graph.node if _has_bias(node, graph)}
    rounded: dict[str, NDArray[Any]] = {}

    def compute(node: onnx.NodeProto, values: Mapping[str, Chunks]) -> dict[str, Chunks]:
        name = node.output[0]
        convert = _unchanged if name in exempt else _rounded
        constants = {key: convert(graph.constants[key]) for key in node.input if key in graph.constants}
        outputs = run_node(graph, node, values, constants)
        if name in biases:
            shift = exact_means[name] - channel_mean(outputs[name])
            constants[biases[name]] = convert((graph.constants[biases[name]] + shift).astype(np.float32))
            outputs = run_node(graph, node, values, constants)
        rounded.update(constants)
        return outputs

    for _ in walk(graph, inputs, compute):
        pass
    for tensor in model.graph.initializer:
        if tensor.name in rounded and tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(rounded[tensor.name], tensor.name))
    return len(biases)


def _has_bias(node: onnx.NodeProto, graph: Graph) -> bool:
    """True if a layer has a constant bias that no other node reads."""
    has_bias = node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.input) > 2
    return has_bias and node.input[2] in graph.constants and len(graph.consumers[node.input[2]]) == 1


def _unchanged(values: NDArray[Any]) -> NDArray[Any]:
    """Returns the values unchanged; used instead of `_rounded` for float32 nodes."""
    return values


def _rounded(values: NDArray[Any]) -> NDArray[Any]:
    """Rounds float32 values of any shape to float16 values, returned as float32. Other types are unchanged.

    In a weight (two axes or more), the rounding errors of each filter cancel (error diffusion). From the largest to the
    smallest magnitude, each value takes over the sum of the previous errors. Only the error of the smallest value
    remains.
    """
    if values.dtype != np.float32 or values.ndim < 2:
        return values.astype(np.float16).astype(np.float32) if values.dtype == np.float32 else values
    filters = values.reshape(len(values), -1)
    result, error = np.zeros_like(filters), np.zeros(len(filters))
    rows = np.arange(len(filters))
    for column in np.argsort(-np.abs(filters), axis=1, kind="stable").T:
        target = np.where(filters[rows, column] == 0, 0, filters[rows, column] + error)
        result[rows, column] = target.astype(np.float16)
        error += filters[rows, column] - result[rows, column]
    return result.reshape(values.shape)


def _last_layer(graph: onnx.GraphProto) -> set[int]:
    """Returns the indices of the weighted nodes that no other weighted node depends on, and of all later nodes.

    Most networks have one such weighted node; a detector has one in each head.
    """
    weighted = {index for index, node in enumerate(graph.node) if node.op_type in LAYERS}
    if not weighted:
        raise GateFailed(
            "the graph has no convolution or linear layer to convert to float16", hint="export this network in fp32"
        )
    ancestors: set[str] = set()  # values that a weighted node depends on
    last = set()
    for index, node in reversed(list(enumerate(graph.node))):
        feeds_weighted = bool(ancestors.intersection(node.output))
        if index in weighted and not feeds_weighted:
            last.add(index)
        if feeds_weighted or index in weighted:
            ancestors.update(node.input)
    descendants: set[str] = set()
    for index, node in enumerate(graph.node):
        if index in last or descendants.intersection(node.input):
            last.add(index)
            descendants.update(node.output)
    return last


def _types_after(model: onnx.ModelProto, float32_nodes: set[int]) -> dict[str, int]:
    """Returns the element type after the conversion of every value that is float32 before the conversion."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in [*graph.input, *graph.output, *graph.value_info]:
        types[value.name] = value.type.tensor_type.elem_type
    after: dict[str, int] = {name: TensorProto.FLOAT for name, type_ in types.items() if type_ == TensorProto.FLOAT}
    for index, node in enumerate(graph.node):
        for output in node.output:
            if output in after and index not in float32_nodes:
                after[output] = TensorProto.FLOAT16
    return after


def _cast(
    graph: onnx.GraphProto,
    name: str,
    type_: int,
    types: dict[str, int],
    casts: dict[tuple[str, int], str],
    nodes: list[onnx.NodeProto],
) -> str:
    """Returns the name under which a value has the element type `type_`.

    This is the value itself, a converted initializer, or the output of a Cast that is appended to `nodes`.
    """
    if types.get(name, type_) == type_:
        return name
    if (name, type_) not in casts:
        casts[name, type_] = cast = f"{name}_{'float16' if type_ == TensorProto.FLOAT16 else 'float32'}"
        constant = next((tensor for tensor in graph.initializer if tensor.name == name), None)
        if constant is None:
            nodes.append(helper.make_node("Cast", [name], [cast], name=cast, to=type_))
        else:
            graph.initializer.append(_float16_copy(constant, cast))
    return casts[name, type_]


def _float16_copy(tensor: TensorProto, name: str) -> TensorProto:
    """Returns a float16 copy of a tensor under another name."""
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name)


def _retype_attributes(node: onnx.NodeProto) -> None:
    """Changes float32 to float16 in attributes: the type of a Cast, and the value of a Constant."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(_float16_copy(attribute.t, attribute.t.name))


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Removes initializers that no node reads."""
    used = {name for node in graph.node for name in node.input}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(tensors)


plugin = Pass(
    name="float16",
    summary="half-precision weights and arithmetic; the last layer and overflowing nodes stay float32",
    apply=float16,
    tolerance=3e-3,  # trained networks reach 1e-4; deep networks with random weights 1.2e-3 with any rounding
    required=True,
    uses=("crops",),
)
