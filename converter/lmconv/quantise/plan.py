"""Selects the int8 part of a graph: layers, their input activations, and the operators between layers."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx

from lmconv.graph.execution import restored
from lmconv.graph.index import Graph, attribute, layer_bias, reads, subgraphs
from lmconv.types import Json

WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
"""Operators that multiply by weights."""
CONVOLUTIONS = {"Conv", "ConvTranspose"}
"""Operators whose output channels are on axis 1; the other operators in `WEIGHTED` have them on the last axis."""
COMBINING = {"Add", "AveragePool", "Concat", "GlobalAveragePool", "Mul"}
"""Operators without weights that compute new values from quantised activations."""
CARRYING = {
    "DepthToSpace",
    "Flatten",
    "Gather",
    "Identity",
    "MaxPool",
    "Pad",
    "Reshape",
    "Resize",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}
"""Operators that move values; input and outputs share scale and zero point."""
ACTIVATIONS = {"Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Sigmoid"}
"""Activation functions that runtimes can fuse with the layer before."""
SHAPES = {"Shape", "Size"}
"""Operators whose output depends on the shape of the input alone."""

DECISIONS = {"ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "NonZero", "TopK"}
"""Operators that turn values into indices or masks."""

HEAD = "fully connected head: its errors are errors of the landmarks"
"""Reason of a head that stays in float."""
DECIDES = "feeds an arg-max, a top-k or a comparison: an error chooses another place"
"""Reason of a layer that stays in float by `QuantiserOptions.float_decisions`."""
CHOSEN = "chosen by tune"
"""Reason of a layer in `QuantiserOptions.float_layers`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantiserOptions:
    """Options of the quantiser; the defaults were chosen by cross-validation on PFLD and MobileFaceNet.

    A recipe stores the fields by name.

    Attributes:
        activations: Integer type of activations: `"uint8"` asymmetric, or `"int8"` symmetric.
        balance: Share of a channel's range that equalisation moves into the weights of a dense reader, 0 to 1.
        adaptive_rounding: True to round the weights of a layer together for the least output error; False to round each
            weight to the nearest integer.
        correct_bias: True to correct the bias of every layer by the layer's mean error.
        bracket: True to quantise the output of every int8 layer before any other operator reads the output, except a
            Relu or Clip. A layer that computes a network output then stays in float. ONNX Runtime has an integer kernel
            for a layer only in this form; OpenVINO and TensorRT fuse the next operator instead.
        weights: `"int8"` constants that a DQ node reads, or the same values as `"float32"` constants that pass a Q/DQ
            pair.
        fuse_sums: True to keep the output of a layer in float if only a sum reads the output: one kernel then computes
            both.
        deconvolutions: True if the target has an integer kernel for a dense ConvTranspose of values that are never
            negative.
        float_stem: Number of first layers that stay in float, at most a quarter of all layers.
        float_head: True to keep a fully connected last layer in float: the layer is small, and its errors are errors of
            the landmarks.
        float_decisions: True to keep the layers in float whose values an arg-max, a top-k or a comparison reads.
        crops: Largest number of crops used, evenly spread.
        float_layers: Output names of layers that stay in float.
        rough: True for a graph of which only the speed matters: a single run of a few crops gives all ranges, weights
            are rounded to the nearest integer, and no bias is corrected.
    """

    activations: Literal["uint8", "int8"]
    balance: float = 0.5
    adaptive_rounding: bool = True
    correct_bias: bool = True
    bracket: bool = True
    weights: Literal["int8", "float32"] = "int8"
    fuse_sums: bool = False
    deconvolutions: bool = False
    float_stem: int = 0
    float_head: bool = True
    float_decisions: bool = False
    crops: int = 64
    float_layers: frozenset[str] = frozenset()
    rough: bool = False


def read(recipe_settings: Json, settings: QuantiserOptions) -> QuantiserOptions:
    """Returns `settings` with the values of `recipe_settings`, which come from a recipe; lists become sets."""
    changes: Json = {
        name: frozenset(value) if isinstance(value, list) else value for name, value in recipe_settings.items()
    }
    return replace(settings, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisationPlan:
    """The int8 part of a graph.

    Attributes:
        layers: Nodes with int8 weights, by output name.
        floats: Reason of each layer that stays in float, by output name; includes the layers of subgraphs.
        readers: Output names of nodes that read quantised activations; all other nodes read the float activations.
        tensors: Names of the activations to quantise.
        source: Source tensor of each tensor that only moves values; both share scale and zero point. A tensor that is
            not in `tensors` has the values of its source, without a Q/DQ pair of its own.
    """

    layers: dict[str, onnx.NodeProto]
    floats: dict[str, str]
    readers: set[str]
    tensors: set[str]
    source: dict[str, str]

    def rewire(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Returns a copy of `node` that reads quantised activations if the node is one of `readers`."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if node.output[0] in self.readers:
            copy.input[:] = [restored(name) if name in self.tensors else name for name in node.input]
        return copy


def plan(graph: Graph, settings: QuantiserOptions, tensors: Collection[str]) -> QuantisationPlan:
    """Selects layers and tensors: exactly the activations that an int8 operator reads are quantised.

    An activation function therefore stays between its layer and the Q node, where runtimes fuse the function. The
    outputs of the network keep full resolution. An operator that is not int8 stops nothing: it reads and writes float
    values, and the next layer quantises what it reads.

    Args:
        graph: The float graph.
        settings: Options of the quantiser.
        tensors: Names of the float32 tensors with channels, see `ActivationStatistics.ranges`.
    """
    features = _features(graph).intersection(tensors)
    layers, floats = _layers(graph, settings, features)
    quantised, readers = _activations(graph, settings, features, layers)
    source: dict[str, str] = {}
    for node in graph.proto.node:
        if node.output[0] in readers and _moves_values(graph, node):
            start = source.get(node.input[0], node.input[0])
            source.update(dict.fromkeys(quantised.intersection(node.output), start))
            if node.op_type == "Slice" and not settings.bracket:
                # OpenVINO 2026.4 moves the pair before a Slice past it; a second pair behind a Slice ends its process
                # with a segmentation fault in networks of GhostNet's kind.
                quantised.difference_update(node.output)
    return QuantisationPlan(layers=layers, floats=floats, readers=readers, tensors=quantised, source=source)


def _features(graph: Graph) -> set[str]:
    """Returns the names of all values that depend on the values of the network's input, not on its shape alone."""
    features = set(graph.inputs)
    for node in graph.proto.node:
        if node.op_type not in SHAPES and features.intersection(reads(node)):
            features.update(node.output)
    return features


def _layers(
    graph: Graph, settings: QuantiserOptions, features: set[str]
) -> tuple[dict[str, onnx.NodeProto], dict[str, str]]:
    """Returns the int8 layers, and the reasons of the float layers, by output name."""
    floats = {
        inner.output[0]: f"inside {node.op_type}"
        for node in graph.proto.node
        for nested in subgraphs(node)
        for inner in nested_layers(nested)
    }
    layers: dict[str, onnx.NodeProto] = {}
    for node in graph.proto.node:
        if node.op_type in WEIGHTED and not node.domain:
            if reason := _obstacle(graph, node, settings, features):
                floats[node.output[0]] = reason
            else:
                layers[node.output[0]] = node
    if settings.float_head and len(layers) > 1 and next(reversed(layers.values())).op_type not in CONVOLUTIONS:
        floats[layers.popitem()[0]] = HEAD
    if settings.float_decisions:
        floats |= {name: DECIDES for name in _deciding(graph, features) if name in layers}
    stem = list(layers)[: min(settings.float_stem, len(layers) // 4)]
    floats |= dict.fromkeys(stem, "float stem of the target") | {
        name: CHOSEN for name in layers if name in settings.float_layers
    }
    if settings.bracket:
        written = (name for name in layers if _fused(graph, layers[name]) in graph.outputs)
        floats = dict.fromkeys(written, "writes an output of the network") | floats
    return {name: node for name, node in layers.items() if name not in floats}, floats


def _deciding(graph: Graph, features: set[str]) -> set[str]:
    """Returns the names of all values that a decision depends on, back to the last layer before the decision."""
    waiting = {name for node in graph.proto.node if node.op_type in DECISIONS for name in reads(node)} & features
    found = set()
    for node in reversed(graph.proto.node):
        if waiting.intersection(node.output):
            found.update(node.output)
            if node.op_type not in WEIGHTED:
                waiting.update(features.intersection(reads(node)))
    return found


def nested_layers(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yields the layers of a subgraph and of its own subgraphs."""
    for node in graph.node:
        if node.op_type in WEIGHTED and not node.domain:
            yield node
        for inner in subgraphs(node):
            yield from nested_layers(inner)


def _activations(
    graph: Graph, settings: QuantiserOptions, features: set[str], layers: dict[str, onnx.NodeProto]
) -> tuple[set[str], set[str]]:
    """Returns the activations to quantise, and the output names of their readers."""
    tensors: set[str] = set()
    readers: set[str] = set()
    for node in reversed(graph.proto.node):
        feeds_int8 = tensors.intersection(_after_activation(graph, node))
        if node.output[0] in layers or (feeds_int8 and _is_integer(graph, node, features, settings)):
            fused = _summed(graph, node, layers) if settings.fuse_sums else ""
            tensors.update(name for name in features.intersection(node.input) if name != fused)
            readers.add(node.output[0])
    extra = _bracketed(graph, layers, readers) if settings.bracket else _averages(graph, features, readers)
    for name in extra:
        tensors.add(name)
        direct = (node for node in graph.consumers.get(name, []) if name in node.input)
        readers.update(node.output[0] for node in direct if not any(subgraphs(node)))
    return tensors, readers


def _bracketed(graph: Graph, layers: dict[str, onnx.NodeProto], readers: set[str]) -> list[str]:
    """Returns the outputs that are quantised before any node reads them: of int8 layers, and of int8 Splits."""
    splits = [node for node in graph.proto.node if node.op_type == "Split" and node.output[0] in readers]
    return [*(_fused(graph, node) for node in layers.values()), *(name for node in splits for name in node.output)]


def _averages(graph: Graph, features: set[str], readers: set[str]) -> list[str]:
    """Returns the outputs of every AveragePool of dequantised values.

    OpenVINO 2026.4 averages the integers, and rounds the averages to the scale of its input unless a Q node follows.
    """
    dequantised: set[str] = set()
    averages = []
    for node in graph.proto.node:
        carries = node.op_type in ("AveragePool", "Concat") or _moves_values(graph, node)
        if (carries and node.output[0] in readers) or (node.op_type in ACTIVATIONS and node.input[0] in dequantised):
            dequantised.update(node.output)
        if node.op_type == "AveragePool" and node.input[0] in dequantised and node.output[0] in features:
            averages.append(node.output[0])
            dequantised.update(node.output)
    return averages


def _obstacle(graph: Graph, node: onnx.NodeProto, settings: QuantiserOptions, features: set[str]) -> str:
    """Returns the reason why a layer cannot be int8; empty if the layer is linear in one activation."""
    data, weights = node.input[0], graph.constants.get(node.input[1])
    if weights is None:
        return "weights on the left" if data in graph.constants else "weights are computed"
    if data not in features:
        return "input is no float32 tensor with channels"
    if weights.dtype != np.float32:
        return f"weights are {weights.dtype}"
    if node.op_type in ("Gemm", "MatMul") and weights.ndim != 2:
        return f"weights have {weights.ndim} axes"
    if node.op_type == "Gemm" and (
        attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0 or attribute(node, "transA", 0)
    ):
        return "Gemm with alpha, beta or transA"
    if layer_bias(node, graph.constants, weights.shape[output_axis(node)]) is None:
        return "bias is not one constant per output"
    return _without_kernel(graph, node, settings) if node.op_type == "ConvTranspose" else ""


def _without_kernel(graph: Graph, node: onnx.NodeProto, settings: QuantiserOptions) -> str:
    """Returns the reason why a ConvTranspose has no integer kernel; empty if it has one."""
    if not settings.deconvolutions:
        return "the target has no integer kernel for ConvTranspose"
    if attribute(node, "group", 1) != 1:
        return "the target has no integer kernel for a ConvTranspose with groups"
    return "" if _never_negative(graph, node.input[0]) else "ConvTranspose of values that may be negative"


def output_axis(node: onnx.NodeProto) -> int:
    """Returns the axis of the output channels in the weights of a layer."""
    return 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1


def channel_axis(node: onnx.NodeProto, ndim: int) -> int:
    """Returns the axis of the channels in the output of a layer."""
    return 1 if node.op_type in CONVOLUTIONS else ndim - 1


def _never_negative(graph: Graph, name: str) -> bool:
    """True if the operator that computes a value shows that no element is negative."""
    node = next((node for node in graph.proto.node if name in node.output), None)
    if node is None or node.domain:
        return False
    if node.op_type == "Clip":
        low = graph.constants.get(node.input[1]) if len(node.input) > 1 else None
        return low is not None and float(low) >= 0
    if node.op_type in ("AveragePool", "GlobalAveragePool") or _moves_values(graph, node):
        return _never_negative(graph, node.input[0])
    return node.op_type in ("HardSigmoid", "Relu", "Sigmoid", "Softmax")


def _is_integer(graph: Graph, node: onnx.NodeProto, features: set[str], settings: QuantiserOptions) -> bool:
    """True if a node without weights can compute on quantised activations."""
    if node.domain or not node.input or node.input[0] not in features:
        return False
    if node.op_type in CARRYING:
        return _moves_values(graph, node) and features.isdisjoint(node.input[1:])
    if not features.issuperset(graph.computed(node)):
        return False
    if node.op_type in COMBINING:
        return len(graph.computed(node)) == len(node.input)
    return settings.bracket and node.op_type == "PRelu"


def _moves_values(graph: Graph, node: onnx.NodeProto) -> bool:
    """True if every value that a node writes is a value that the node reads, or zero."""
    if node.op_type not in CARRYING or node.domain:
        return False
    if node.op_type == "Resize":
        return bool(attribute(node, "mode", b"nearest") != b"cubic")
    if node.op_type == "Pad" and len(node.input) > 2 and node.input[2]:
        value = graph.constants.get(node.input[2])
        return value is not None and not np.any(value)
    return True


def _summed(graph: Graph, node: onnx.NodeProto, layers: dict[str, onnx.NodeProto]) -> str:
    """Returns the operand of a sum whose layer computes the sum in the same kernel, or "" if no layer does.

    If two layers write the operands, the later layer computes the sum: the result of the earlier layer is available by
    then.
    """
    if node.op_type != "Add":
        return ""
    candidates = [name for name in layers if name in node.input and len(graph.consumers[name]) == 1]
    return next((name for name in reversed(candidates) if name not in graph.outputs), "")


def _fused(graph: Graph, node: onnx.NodeProto) -> str:
    """Returns the name of a layer's output after the nodes that its kernel computes too.

    The kernel adds a constant bias per output to a MatMul; the next Q node makes a Relu or Clip superfluous.
    """
    name: str = node.output[0]
    if node.op_type == "MatMul" and (total := _only_reader(graph, name, "Add")):
        bias = next((graph.constants[term] for term in total.input if term in graph.constants), None)
        name = total.output[0] if bias is not None and bias.shape[-1:] == (bias.size,) else name
    superfluous = _only_reader(graph, name, "Clip", "Relu")
    return superfluous.output[0] if superfluous else name


def _only_reader(graph: Graph, name: str, *operators: str) -> onnx.NodeProto | None:
    """Returns the only node that reads a value if the node has one of these operators, else None."""
    readers = graph.consumers.get(name, [])
    return readers[0] if len(readers) == 1 and readers[0].op_type in operators and name not in graph.outputs else None


def _after_activation(graph: Graph, node: onnx.NodeProto) -> list[str]:
    """Returns the names of a node's outputs, and the names after the activation functions that follow."""
    names: list[str] = list(node.output)
    for name in node.output:
        readers = graph.consumers.get(name, [])
        if len(readers) == 1 and readers[0].op_type in ACTIVATIONS:
            names.append(readers[0].output[0])
    return names
