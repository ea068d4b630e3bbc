"""Writes a quantised network as an ONNX graph with Q/DQ nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lmconv.graph.execution import restored
from lmconv.graph.index import Graph
from lmconv.quantise.calibrate import Numbers
from lmconv.quantise.plan import Plan, Settings
from lmconv.quantise.rounding import Affine, Layer


@dataclass(frozen=True, slots=True)
class Writer:
    """Nodes and constants of a graph under construction."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)

    def quantise(self, name: str, affine: Affine, kind: str) -> None:
        """Appends a Q/DQ pair after tensor `name`; `kind` is the integer type, `"uint8"` or `"int8"`."""
        step = [f"{name}_scale", f"{name}_zero_point"]
        self.constants[step[0]] = np.array(affine.scale, np.float32)
        self.constants[step[1]] = np.array(affine.zero_point, kind)
        made = [f"{name}_quantized", restored(name)]
        self.nodes.append(helper.make_node("QuantizeLinear", [name, *step], made[:1], name=f"{name}_q"))
        self.nodes.append(helper.make_node("DequantizeLinear", [made[0], *step], made[1:], name=f"{name}_dq"))

    def layer(self, node: onnx.NodeProto, layer: Layer, weights: str) -> None:
        """Appends a layer that reads its weights through a DQ node; the bias stays float, as TensorRT requires.

        With `weights="float32"` the weights pass a Q node first. The Q node restores the integers: the values are the
        same, rounded once more.
        """
        name = f"{node.output[0]}_weights"
        step = [f"{name}_scale", f"{name}_zero_point"]
        self.constants.update({step[0]: layer.scale, step[1]: np.zeros(layer.scale.shape, np.int8)})
        if weights == "int8":
            self.constants[name] = layer.weights
        else:
            given, name = name, f"{name}_quantized"
            self.constants[given] = layer.dequantised()
            self.nodes.append(
                helper.make_node("QuantizeLinear", [given, *step], [name], name=f"{given}_q", axis=layer.axis)
            )
        self.nodes.append(
            helper.make_node("DequantizeLinear", [name, *step], [restored(name)], name=f"{name}_dq", axis=layer.axis)
        )
        node.input[:] = [node.input[0], restored(name)]
        if node.op_type != "MatMul":
            self.constants[f"{node.output[0]}_bias"] = layer.bias
            node.input.append(f"{node.output[0]}_bias")
        self.nodes.append(node)


def emit(model: onnx.ModelProto, graph: Graph, chosen: Plan, numbers: Numbers, settings: Settings) -> onnx.ModelProto:
    """Returns the quantised graph as a model; everything except nodes and constants is copied from `model`."""
    writer = Writer()

    def quantise_all(names: list[str]) -> None:
        for name in [name for name in names if name in chosen.tensors]:
            writer.quantise(name, numbers.activations[chosen.source.get(name, name)], settings.activations)

    quantise_all(graph.inputs)
    for node in graph.proto.node:
        reading = chosen.rewire(node)
        if node.output[0] in chosen.layers:
            writer.layer(reading, numbers.layers[node.output[0]], settings.weights)
        else:
            if node.output[0] in numbers.biases:
                reading.input[2] = f"{node.output[0]}_bias"
                writer.constants[reading.input[2]] = numbers.biases[node.output[0]]
            writer.nodes.append(reading)
        quantise_all(list(node.output))
    used = dict.fromkeys(name for node in writer.nodes for name in node.input)
    constants = {name: graph.constants[name] for name in used if name in graph.constants} | writer.constants
    written = onnx.ModelProto()
    written.CopyFrom(model)
    for emptied in (written.graph.node, written.graph.initializer, written.graph.value_info):
        del emptied[:]
    written.graph.node.extend(writer.nodes)
    written.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return written
