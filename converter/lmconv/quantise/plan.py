"""Selects the int8 part of a graph: layers, their input activations, and the operators between layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx

from lmconv.graph.execution import restored
from lmconv.graph.index import Graph, attribute
from lmconv.types import Json

WEIGHTED = {"Conv", "Gemm", "MatMul"}
"""Operators with weights."""
COMBINING = {"Add", "AveragePool", "Concat", "GlobalAveragePool", "Mul"}
"""Operators without weights that compute new values from quantised activations."""
CARRYING = {"Flatten", "Identity", "MaxPool", "Reshape", "Resize", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators that move values; input and output share scale and zero point."""
ACTIVATIONS = {"Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Sigmoid"}
"""Activation functions that runtimes can fuse with the layer before."""


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
        float_stem: Number of first layers that stay in float, at most a quarter of all layers.
        float_head: True to keep a fully connected last layer in float: the layer is small, and its errors are errors of
            the landmarks.
        crops: Largest number of crops used, evenly spread.
        float_layers: Output names of layers that stay in float.
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
        readers: Output names of nodes that read quantised activations; all other nodes read the float activations.
        tensors: Names of the activations to quantise.
        source: Source tensor of each tensor that only moves values; both share scale and zero point.
    """

    layers: dict[str, onnx.NodeProto]
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


def plan(graph: Graph, settings: QuantiserOptions) -> QuantisationPlan:
    """Selects layers and tensors: exactly the activations that an int8 operator reads are quantised.

    An activation function therefore stays between its layer and the Q node, where runtimes fuse the function. The
    outputs of the network keep full resolution.
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
        feeds_int8 = tensors.intersection(_after_activation(graph, node))
        if node.output[0] in layers or (feeds_int8 and _is_integer(graph, node, features, settings)):
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
    return QuantisationPlan(layers=layers, readers=readers, tensors=tensors, source=source)


def _features(graph: Graph) -> set[str]:
    """Returns the names of float tensors reached from the inputs through known operators, never a computed shape."""
    supported = WEIGHTED | COMBINING | CARRYING | ACTIVATIONS
    features = {value.name for value in graph.proto.input if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    for node in graph.proto.node:
        inputs = graph.computed(node)
        if node.op_type in supported and not node.domain and inputs and inputs[0] in features:
            features.update(node.output)
    return features


def _is_layer(graph: Graph, node: onnx.NodeProto, features: set[str]) -> bool:
    """True if a node is linear in one activation, with constant float weights and bias."""
    if node.op_type not in WEIGHTED or node.domain or graph.computed(node) != [node.input[0]]:
        return False
    if node.input[0] not in features or graph.constants[node.input[1]].dtype != np.float32:
        return False
    if node.op_type == "Gemm":
        plain = attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0
        return plain and not attribute(node, "transA", 0)
    return node.op_type == "Conv" or graph.constants[node.input[1]].ndim == 2


def _is_integer(graph: Graph, node: onnx.NodeProto, features: set[str], settings: QuantiserOptions) -> bool:
    """True if a node without weights can compute on quantised activations."""
    inputs = graph.computed(node)
    if node.domain or not inputs or not features.issuperset(inputs):
        return False
    if node.op_type in COMBINING:
        return len(inputs) == len(node.input)
    return node.op_type in CARRYING or (node.op_type == "PRelu" and settings.bracket)


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
    """Returns the name of a layer's output, after a Relu or Clip that the next Q node makes superfluous."""
    readers = graph.consumers.get(node.output[0], [])
    superfluous = len(readers) == 1 and readers[0].op_type in ("Clip", "Relu")
    name: str = readers[0].output[0] if superfluous else node.output[0]
    return name


def _after_activation(graph: Graph, node: onnx.NodeProto) -> list[str]:
    """Returns the name of a node's output, and the name after the activation function if one follows."""
    name = node.output[0]
    readers = graph.consumers.get(name, [])
    activated = len(readers) == 1 and readers[0].op_type in ACTIVATIONS
    return [name, readers[0].output[0]] if activated else [name]
