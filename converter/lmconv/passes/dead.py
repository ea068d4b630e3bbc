"""Removes nodes, outputs and initializers that nothing needs. Exact, except that a runtime may fuse more afterwards.

The pass removes graph outputs that the spec does not name, and everything that only these outputs need. Unread
extra outputs of a node (the indices of MaxPool, the mask of Dropout) are removed too, because runtimes then treat the
operator as the plain variant. The pass also removes Identity and, outside training, Dropout.
"""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from lmconv.graph.index import attribute, reads
from lmconv.graph.rewriter import Rewriter
from lmconv.types import Json, Pass, PassContext

OPTIONAL = ("Dropout", "LSTM", "GRU", "RNN", "MaxPool", "BatchNormalization", "LayerNormalization")
"""Operators whose outputs after the first are optional. All outputs of Split, TopK and training are required."""


def dead(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Removes unneeded parts. The decisions count the removed graph outputs, nodes and initializers."""
    graph = model.graph
    before = len(graph.output), len(graph.node), len(graph.initializer)
    named = {tensor.name for tensor in context.spec.outputs}
    outputs = [value for value in graph.output if value.name in named] or list(graph.output)
    if len(outputs) < len(graph.output):
        del graph.output[:]
        graph.output.extend(outputs)
    _trim(graph)
    _bypass(graph)
    Rewriter(model).commit()
    after = len(graph.output), len(graph.node), len(graph.initializer)
    kinds = ("outputs", "nodes", "initializers")
    return model, {kind: old - new for kind, old, new in zip(kinds, before, after, strict=True)}


def _bypass(graph: onnx.GraphProto) -> None:
    """Makes the consumers of Identity and Dropout read the input of these nodes instead.

    A node that produces a graph output, or a value that a subgraph reads, stays.
    """
    outputs = {value.name for value in graph.output}
    captured = {name for node in graph.node for name in set(reads(node)) - set(node.input)}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    replacements: dict[str, str] = {}
    for node in graph.node:
        node.input[:] = [replacements.get(name, name) for name in node.input]
        if node.output[0] not in outputs | captured and not node.domain and _is_identity(node, constants):
            replacements[node.output[0]] = node.input[0]


def _is_identity(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """True if the node returns its first input unchanged."""
    if node.op_type == "Identity":
        return True
    if node.op_type != "Dropout" or any(node.output[1:]):
        return False
    training = node.input[2] if len(node.input) > 2 else ""
    tensor = constants.get(training)
    return not training or (tensor is not None and not numpy_helper.to_array(tensor).any())


def _trim(graph: onnx.GraphProto) -> None:
    """Removes trailing optional outputs of nodes that nothing reads."""
    read = {name for node in graph.node for name in reads(node)} | {value.name for value in graph.output}
    for node in graph.node:
        optional = node.op_type in OPTIONAL and not node.domain and not attribute(node, "training_mode", 0)
        while optional and len(node.output) > 1 and node.output[-1] not in read:
            del node.output[-1]


plugin = Pass(
    name="dead",
    summary="unread nodes, outputs and initializers; Identity and Dropout",
    apply=dead,
    tolerance=1e-6,
)
