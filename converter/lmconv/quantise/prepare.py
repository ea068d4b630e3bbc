"""Brings a float graph to the form that the quantiser reads: float32 weights as initializers, under unused names."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from lmconv.graph import naming
from lmconv.graph.constants import lift_constants, widen_graph
from lmconv.graph.execution import run_node
from lmconv.graph.facts import copied
from lmconv.graph.index import Graph, reads
from lmconv.quantise.all_axes import write_all_axes

SUFFIXES = ("_scale", "_zero_point", "_quantized", "_dequantized", "_weights", "_bias")
"""Ends of the names that the quantiser gives to new values."""
NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
"""Types that become float32, because the quantiser reads float32."""


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of a graph with the same inputs and outputs in the form that the quantiser reads."""
    model = copied(model)
    lift_constants(model.graph)
    widen_graph(model.graph, NARROW)
    _fold(model)
    write_all_axes(model)
    _plain_gemms(model)
    _vacate_names(model.graph)
    return model


def _fold(model: onnx.ModelProto) -> None:
    """Replaces every node that reads constants alone by its result; a node that fails alone stays."""
    graph, kept = Graph.of(model), []
    for node in model.graph.node:
        if reads(node) and graph.constants.keys() >= set(reads(node)) and not set(node.output) & set(graph.outputs):
            with contextlib.suppress(Exception):  # ONNX Runtime raises types of its compiled module
                results = {name: chunks[0] for name, chunks in run_node(graph, node, {}, graph.constants).items()}
                tensors = [numpy_helper.from_array(value, name) for name, value in results.items()]
                graph.constants.update(results)
                model.graph.initializer.extend(tensors)
                continue
        kept.append(node)
    if len(kept) < len(model.graph.node):
        del model.graph.node[:]
        model.graph.node.extend(kept)


def _plain_gemms(model: onnx.ModelProto) -> None:
    """Multiplies alpha and beta of every Gemm into its constants."""
    graph, names = Graph.of(model), naming.taken(model.graph)
    for node in (node for node in model.graph.node if node.op_type == "Gemm" and not node.domain):
        for item in (item for item in node.attribute if item.name in ("alpha", "beta") and item.f != 1.0):
            place = 1 if item.name == "alpha" else 2
            constant = graph.constants.get(node.input[place]) if len(node.input) > place else None
            if constant is not None:
                name = naming.fresh(node.input[place], names)
                model.graph.initializer.append(numpy_helper.from_array(constant * np.float32(item.f), name))
                node.input[place], item.f = name, 1.0


def _vacate_names(graph: onnx.GraphProto) -> None:
    """Renames every value whose name the quantiser would write, for example `x_scale`.

    A bias called `x_bias` keeps its name if the layer that writes `x` is its only reader: the new bias replaces it.
    """
    names = naming.taken(graph)
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in reads(node):
            readers.setdefault(name, set()).add(node.output[0])
    clashes = [
        name + suffix
        for name in sorted(names - {""})
        for suffix in SUFFIXES
        if name + suffix in names and readers.get(name + suffix, set()) - {name}
    ]
    naming.vacate(graph, *clashes)
