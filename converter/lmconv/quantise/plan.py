"""What becomes int8: layers, the activations they read, and the operators in between."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx

from lmconv.graph.execution import restored
from lmconv.graph.index import Graph, attribute
from lmconv.types import Json

WEIGHTED = {"Conv", "Gemm", "MatMul"}
COMBINING = {"Add", "AveragePool", "Concat", "GlobalAveragePool", "Mul"}
CARRYING = {"Flatten", "Identity", "MaxPool", "Reshape", "Resize", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
ACTIVATIONS = {"Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Sigmoid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to quantise; the defaults were chosen by cross-validation on PFLD and MobileFaceNet.

    Attributes:
        activations: `"uint8"` asymmetric, or `"int8"` symmetric.
        balance: Share of a channel's range that equalisation moves into the weights of a dense reader, 0 to 1.
        adaptive_rounding: Whether weights are rounded together, for the layer's output, rather than to the nearest.
        correct_bias: Whether the mean error of every layer goes to its bias.
        bracket: Whether all that a layer computes is quantised before anything reads it, Relu and Clip apart, and what
            cannot be is no int8 layer. ONNX Runtime has an integer kernel for a layer only then; OpenVINO and TensorRT
            would rather fuse what follows.
        weights: `"int8"`, which a DQ node reads, or the same values as `"float32"`, which pass a Q/DQ pair.
        fuse_sums: Whether a layer that only a sum reads gives it float values, as one kernel computes both.
        float_stem: How many of the first layers stay float, at most a quarter of them all.
        float_head: Whether a fully connected last layer stays float: it is small, and its errors are the landmarks'.
        crops: Most crops used, evenly spread.
        float_layers: Layers that stay float, by the name of their output.
    """

    activations: Literal["uint8", "int8"]
    balance: float = 0.5
    adaptive_rounding: bool = True
    correct_bias: bool = True
    bracket: bool = True
    weights: Literal["int8", "float32"] = "int8"
    fuse_sums: bool = False
    float_stem: int = 0
    float_head: bool = True
    crops: int = 64
    float_layers: frozenset[str] = frozenset()


def read(given: Json, settings: Settings) -> Settings:
    """Settings with those replaced that a recipe gives."""
    changes: Json = {name: frozenset(value) if isinstance(value, list) else value for name, value in given.items()}
    return replace(settings, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What becomes int8.

    Attributes:
        layers: Nodes with int8 weights, by the name of their output.
        readers: Nodes that read quantised activations, by the name of their output; all others read the float ones.
        tensors: Activations to quantise.
        source: For a tensor that only moves another's values, that other one: they share scale and zero point.
    """

    layers: dict[str, onnx.NodeProto]
    readers: set[str]
    tensors: set[str]
    source: dict[str, str]

    def rewire(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """A copy of `node` that reads quantised activations where it should."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if node.output[0] in self.readers:
            copy.input[:] = [restored(name) if name in self.tensors else name for name in node.input]
        return copy


def plan(graph: Graph, settings: Settings) -> Plan:
    """Chooses layers and tensors: what an int8 operator reads is quantised, and nothing else.

    So an activation function stays between its layer and the Q node, where runtimes fuse it, and the outputs of the
    network keep full resolution.
    """
    features = _features(graph)
    layers = {node.output[0]: node for node in graph.proto.node if _is_layer(graph, node, features)}
    if settings.float_head and len(layers) > 1 and next(reversed(layers.values())).op_type != "Conv":
        layers.popitem()
    stem = list(layers)[: min(settings.float_stem, len(layers) // 4)]
    layers = {name: node for name, node in layers.items() if name not in settings.float_layers.union(stem)}
    if settings.bracket:
        layers = {name: node for name, node in layers.items() if _fused(graph, node) not in graph.outputs}
    tensors: set[str] = set()
    readers: set[str] = set()
    for node in reversed(graph.proto.node):
        wanted = tensors.intersection(_after_activation(graph, node))
        if node.output[0] in layers or (wanted and _is_integer(graph, node, features, settings)):
            fused = _summed(graph, node, layers) if settings.fuse_sums else ""
            tensors.update(name for name in graph.computed(node) if name != fused)
            readers.add(node.output[0])
    if settings.bracket:
        for node in layers.values():
            name = _fused(graph, node)
            tensors.add(name)
            readers.update(reader.output[0] for reader in graph.consumers[name])
    source: dict[str, str] = {}
    for node in graph.proto.node:
        if node.op_type in CARRYING and node.output[0] in tensors and node.output[0] in readers:
            source[node.output[0]] = source.get(node.input[0], node.input[0])
    return Plan(layers=layers, readers=readers, tensors=tensors, source=source)


def _features(graph: Graph) -> set[str]:
    """Float tensors reached from the inputs through operators we know: never a computed shape."""
    known = WEIGHTED | COMBINING | CARRYING | ACTIVATIONS
    features = {value.name for value in graph.proto.input if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    for node in graph.proto.node:
        read = graph.computed(node)
        if node.op_type in known and not node.domain and read and read[0] in features:
            features.update(node.output)
    return features


def _is_layer(graph: Graph, node: onnx.NodeProto, features: set[str]) -> bool:
    """Whether a node is linear in one activation, with constant float weights and bias."""
    if node.op_type not in WEIGHTED or node.domain or graph.computed(node) != [node.input[0]]:
        return False
    if node.input[0] not in features or graph.constants[node.input[1]].dtype != np.float32:
        return False
    if node.op_type == "Gemm":
        plain = attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0
        return plain and not attribute(node, "transA", 0)
    return node.op_type == "Conv" or graph.constants[node.input[1]].ndim == 2


def _is_integer(graph: Graph, node: onnx.NodeProto, features: set[str], settings: Settings) -> bool:
    """Whether a node without weights computes on quantised activations."""
    read = graph.computed(node)
    if node.domain or not read or not features.issuperset(read):
        return False
    if node.op_type in COMBINING:
        return len(read) == len(node.input)
    return node.op_type in CARRYING or (node.op_type == "PRelu" and settings.bracket)


def _summed(graph: Graph, node: onnx.NodeProto, layers: dict[str, onnx.NodeProto]) -> str:
    """Which operand of a sum the layer that makes it computes together with the sum; else nothing.

    Of two layers it is the later one: the other is there when it runs.
    """
    if node.op_type != "Add":
        return ""
    alone = [name for name in layers if name in node.input and len(graph.consumers[name]) == 1]
    return next((name for name in reversed(alone) if name not in graph.outputs), "")


def _fused(graph: Graph, node: onnx.NodeProto) -> str:
    """What a layer's output is called after the Relu or Clip that a Q node makes superfluous."""
    following = graph.consumers.get(node.output[0], [])
    alone = len(following) == 1 and following[0].op_type in ("Clip", "Relu")
    name: str = following[0].output[0] if alone else node.output[0]
    return name


def _after_activation(graph: Graph, node: onnx.NodeProto) -> list[str]:
    """A node's output, and what its activation function makes of it."""
    name = node.output[0]
    following = graph.consumers.get(name, [])
    alone = len(following) == 1 and following[0].op_type in ACTIVATIONS
    return [name, following[0].output[0]] if alone else [name]
