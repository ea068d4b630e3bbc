"""Writes a quantised network as an ONNX graph with Q/DQ nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lmconv.graph.execution import restored
from lmconv.graph.index import Graph, reads
from lmconv.quantise.calibrate import QuantisationParameters
from lmconv.quantise.plan import QuantisationPlan, QuantiserOptions
from lmconv.quantise.rounding import Affine, Layer


@dataclass(frozen=True, slots=True)
class Writer:
    """Nodes and constants of a graph under construction."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)

    def quantise(self, name: str, affine: Affine, kind: str) -> None:
        """Appends a Q/DQ pair after tensor `name`; `kind` is the integer type, `"uint8"` or `"int8"`."""
        scale, zero_point, integers = f"{name}_scale", f"{name}_zero_point", f"{name}_quantized"
        self.constants[scale] = np.array(affine.scale, np.float32)
        self.constants[zero_point] = np.array(affine.zero_point, kind)
        q = helper.make_node("QuantizeLinear", [name, scale, zero_point], [integers], name=f"{name}_q")
        dq = helper.make_node("DequantizeLinear", [integers, scale, zero_point], [restored(name)], name=f"{name}_dq")
        self.nodes.extend([q, dq])

    def layer(self, node: onnx.NodeProto, layer: Layer, weights: str) -> None:
        """Appends a layer that reads its weights through a DQ node; the bias stays float, as TensorRT requires.

        With `weights="float32"` the weights pass a Q node first. The Q node restores the integers: the values are the
        same, rounded once more.
        """
        name = f"{node.output[0]}_weights"
        scale, zero_point = f"{name}_scale", f"{name}_zero_point"
        self.constants.update({scale: layer.scale, zero_point: np.zeros(layer.scale.shape, np.int8)})
        if weights == "int8":
            self.constants[name] = layer.weights
        else:
            reals, name = name, f"{name}_quantized"
            self.constants[reals] = layer.dequantised()
            inputs = [reals, scale, zero_point]
            self.nodes.append(helper.make_node("QuantizeLinear", inputs, [name], name=f"{reals}_q", axis=layer.axis))
        inputs, output = [name, scale, zero_point], restored(name)
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [output], name=f"{name}_dq", axis=layer.axis))
        node.input[:] = [node.input[0], restored(name)]
        if node.op_type != "MatMul":
            self.constants[f"{node.output[0]}_bias"] = layer.bias
            node.input.append(f"{node.output[0]}_bias")
        self.nodes.append(node)


def emit(
    model: onnx.ModelProto,
    graph: Graph,
    plan: QuantisationPlan,
    parameters: QuantisationParameters,
    settings: QuantiserOptions,
) -> onnx.ModelProto:
    """Returns the quantised graph as a model; everything except nodes and constants is copied from `model`."""
    writer = Writer()

    def quantise_all(names: list[str]) -> None:
        for name in [name for name in names if name in plan.tensors]:
            writer.quantise(name, parameters.activations[plan.source.get(name, name)], settings.activations)

    quantise_all(graph.inputs)
    for node in graph.proto.node:
        rewired = plan.rewire(node)
        if node.output[0] in plan.layers:
            writer.layer(rewired, parameters.layers[node.output[0]], settings.weights)
        else:
            if node.output[0] in parameters.biases:
                rewired.input[2] = f"{node.output[0]}_bias"
                writer.constants[rewired.input[2]] = parameters.biases[node.output[0]]
            writer.nodes.append(rewired)
        quantise_all(list(node.output))
    used = dict.fromkeys(name for node in writer.nodes for name in reads(node))
    constants = {name: graph.constants[name] for name in used if name in graph.constants} | writer.constants
    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    for field_to_clear in (quantised.graph.node, quantised.graph.initializer, quantised.graph.value_info):
        del field_to_clear[:]
    quantised.graph.node.extend(writer.nodes)
    quantised.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return quantised
