"""Operators in training mode, as ONNX Runtime computes them: BatchNormalization with statistics of the batch, Dropout.

ONNX Runtime removes a Dropout before it runs a graph, in training mode too, unless the Dropout reads an input of the
graph, computes an output of the graph, or something reads its mask. Such a Dropout stays, and is random.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from lmconv.graph import naming
from lmconv.graph.index import attribute
from lmconv.opsets.rewriting import Call, Rule, Rules
from lmconv.opsets.versions import STANDARD, opset_of

SINCE_TRAINING_MODE = 14
"""Opset that gave BatchNormalization its attribute `training_mode`. Five outputs meant training mode before."""


DYNAMIC = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")
"""Operators that quantise a tensor by its range, the whole batch included."""


def batchwide(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Returns the nodes that compute statistics over the whole batch, subgraphs included."""
    opset = opset_of(model)
    return [node for node in naming.nodes_of(model) if node.op_type in DYNAMIC or _is_trained(node, opset)]


def _is_trained(node: onnx.NodeProto, opset: int) -> bool:
    """True for a BatchNormalization in training mode."""
    if node.op_type != "BatchNormalization" or node.domain not in STANDARD:
        return False
    return bool(attribute(node, "training_mode", 0)) if opset >= SINCE_TRAINING_MODE else len(node.output) == 5


def training(ends: set[str]) -> Rules:
    """Returns the rules for a graph.

    Args:
        ends: Names of the inputs and outputs of the graph.
    """

    def batchnorm(call: Call) -> Sequence[str] | None:
        if not _is_trained(call.node, call.facts.opset) or any(call.is_read(index) for index in range(1, 5)):
            return None
        return [_normalised(call)]

    def dropout(call: Call) -> Sequence[str] | None:
        mode = call.known(2)
        if mode is None or not mode.any() or call.is_read(1) or ends & {call.input(0), call.node.output[0]}:
            return None
        return [call.input(0)]

    rules: dict[tuple[str, str], Rule] = {("", "BatchNormalization"): batchnorm, ("", "Dropout"): dropout}
    return rules


def _normalised(call: Call) -> str:
    """Adds nodes that normalise each channel by its mean and variance over the batch and all positions."""
    shape = call.constant([1, -1, 1])
    flat = call.add("Reshape", call.input(0), call.constant([0, 0, -1]))
    centred = call.add("Sub", flat, call.mean(flat, [0, 2]))
    variance = call.mean(call.add("Mul", centred, centred), [0, 2])
    deviation = call.add("Sqrt", call.add("Add", variance, call.constant(call.get("epsilon", 1e-5))))
    scale, bias = (call.add("Reshape", call.input(index), shape) for index in (1, 2))
    scaled = call.add("Add", call.add("Mul", call.add("Div", centred, deviation), scale), bias)
    return call.add("Reshape", scaled, call.add("Shape", call.input(0)))
