"""Adds pre- and post-processing to a graph, after every pass, so that no pass rounds a coordinate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import onnx
from onnx import TensorProto, helper

from lmconv.graph import naming
from lmconv.graph.facts import Part
from lmconv.networks.crop_graph import POINTS
from lmconv.types import ModelSpec, TensorSpec

Nodes: TypeAlias = Callable[[ModelSpec, str], Part]
"""Function from a spec and a prefix of names to nodes and their initializers."""

PREFIX = "io"
"""Start of the names of all added values, followed by a number if the network has names with this start."""


def surround(
    model: onnx.ModelProto, spec: ModelSpec, inputs: Sequence[TensorSpec], before: Nodes, after: Nodes | None
) -> onnx.ModelProto:
    """Adds nodes before and after a network.

    Args:
        model: Changed in place. Takes `input` (N, 3, h, w) float32, gives `landmarks` (N, L, 2) float32 in the unit
            `spec.decode`.
        spec: Spec of the network.
        inputs: Inputs of the result.
        before: Nodes from these inputs to `input`.
        after: Nodes from the network's landmarks to `landmarks`; None keeps the network's landmarks.

    Returns:
        The same model.
    """
    graph = model.graph
    for tensor in inputs:  # a network from an ONNX file may have inner values with these names
        naming.vacate(graph, tensor.name)
    prefix = naming.prefix(graph, PREFIX)
    first, last = before(spec, prefix), after(spec, prefix) if after else ([], [])
    if after:
        points = f"{prefix}_{POINTS}"
        naming.rename(graph, "landmarks", points)
        for output in graph.output:
            output.name = "landmarks" if output.name == points else output.name
    body = [*first[0], *graph.node, *last[0]]
    del graph.node[:], graph.input[:]
    graph.node.extend(body)
    graph.input.extend(map(_value_info, inputs))
    for _, tensors in (first, last):
        present = {tensor.name for tensor in graph.initializer}
        graph.initializer.extend(tensor for tensor in tensors if tensor.name not in present)
    naming.distinct_nodes(graph)
    return model


def _value_info(tensor: TensorSpec) -> onnx.ValueInfoProto:
    kind = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}[tensor.dtype]
    return helper.make_tensor_value_info(tensor.name, kind, tensor.shape)
