"""Raises a model from an older opset to the lowest opset of the hub, with the numbers that ONNX Runtime computes.

ONNX's converter raises most operators. Rules of this module correct the few operators whose numbers the converter
changes, and write out the operators that the converter refuses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, version_converter

from lmconv.errors import InputError
from lmconv.graph import naming
from lmconv.graph.index import reads
from lmconv.opsets.rewriting import Call, Rule, Rules, inferred, rewrite
from lmconv.opsets.versions import STANDARD, label, opset_of, reason
from lmconv.types import OPSET

RESIZE = 11
"""Opset that gave Resize its transformation of coordinates. Earlier, Resize and Upsample were asymmetric."""
AXIS_ALONE = 13
"""Opset from which Hardmax computes along one axis. Earlier, Hardmax flattened the axes from `axis` on."""
MASK = 12
"""Opset from which the mask of an inactive Dropout is true. Earlier, ONNX Runtime gives false."""
BATCHED_SCAN = 8
"""Opset whose Scan has a batch axis before the scanned axis."""


def raised(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Returns a model of opset 18 that computes the same; a model of opset 18 or later is returned unchanged.

    Args:
        model: The model; may be changed. Its initializers are not among the inputs of the graph.
        name: The file, for messages.

    Raises:
        InputError: A node cannot be raised; the message names the node.
    """
    opset = opset_of(model)
    if opset >= OPSET:
        return model
    if opset == BATCHED_SCAN and (scan := _first(model, "Scan")) is not None:
        raise _refusal(scan, name, opset, "its batch axis is before the scanned axis")
    rewrite(model, _before(opset))
    # Up to IR 3 weights are listed as inputs, and the converter looks for weights in this list only.
    model.ir_version = max(model.ir_version, 4)
    try:
        result = version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter raises RuntimeError and its own ConvertError
        raise _refusal(_culprit(model), name, opset, reason(error)) from error
    rewrite(result, _after(opset))
    return result


def _before(opset: int) -> Rules:
    """Returns the rules for the graph before ONNX's conversion."""
    rules: dict[tuple[str, str], Rule] = {}
    if opset < AXIS_ALONE:
        rules["", "Hardmax"] = _hardmax
    if opset < 9:
        rules["", "BatchNormalization"] = _batchnorm_per_position
    if 10 <= opset < MASK:
        rules["", "Dropout"] = _dropout
    return rules


def _after(opset: int) -> Rules:
    """Returns the rules for the graph after ONNX's conversion."""
    rules: dict[tuple[str, str], Rule] = {}
    if opset < RESIZE:
        rules["", "Resize"] = _resize
    return rules


def _hardmax(call: Call) -> Sequence[str]:
    """Flattens the axes from `axis` on, as Hardmax did before opset 13."""
    flat = call.add("Flatten", call.input(0), axis=call.get("axis", 1))
    return [call.add("Reshape", call.add("Hardmax", flat, axis=1), call.add("Shape", call.input(0)))]


def _batchnorm_per_position(call: Call) -> Sequence[str] | None:
    """Writes out BatchNormalization with statistics per position (`spatial` 0)."""
    if call.get("spatial", 1):
        return None
    data, scale, bias, mean, variance = (call.input(index) for index in range(5))
    deviation = call.add("Sqrt", call.add("Add", variance, call.constant(call.get("epsilon", 1e-5))))
    factor = call.add("Div", scale, deviation)
    return [call.add("Add", call.add("Mul", call.add("Sub", data, mean), factor), bias)]


def _dropout(call: Call) -> Sequence[str] | None:
    """Returns the input, and a mask that is false everywhere."""
    data = call.input(0)
    return [data, call.add("Less", data, data)] if call.is_read(1) else None


def _resize(call: Call) -> Sequence[str]:
    """Gives a Resize the coordinates of operators before opset 11: Upsample and Resize.

    To the nearest value, ONNX Runtime rounds down along an axis that grows, and up along an axis that shrinks.
    """
    mode, scales = call.get("mode", "nearest"), call.known(2)
    value = call.input(0)
    if mode != "nearest" or scales is None or not (scales < 1).any():
        parts = [("floor", call.input(2))]
    else:
        down, up = np.where(scales < 1, scales, 1), np.where(scales < 1, 1, scales)
        parts = [("ceil", call.constant(down.astype(np.float32)))]
        if (up > 1).any():
            parts.append(("floor", call.constant(up.astype(np.float32))))
    for rounding, factors in parts:
        settings = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
        settings |= {"nearest_mode": rounding} if mode == "nearest" else {}
        value = call.add("Resize", value, "", factors, **settings)
    return [value]


def _refusal(node: onnx.NodeProto | None, name: str, opset: int, why: str) -> InputError:
    """Returns the error for a model that cannot be raised because of a node; None for an unknown node."""
    where = "its graph" if node is None else label(node)
    return InputError(
        f"{name}: {where}, of opset {opset}, cannot be brought to opset {OPSET}: {why}",
        hint=f"export the network with opset {OPSET} or later, or without this operator",
    )


def _first(model: onnx.ModelProto, op: str) -> onnx.NodeProto | None:
    """Returns the first node of a standard operator, subgraphs included."""
    return next((node for node in naming.nodes_of(model) if node.op_type == op and node.domain in STANDARD), None)


def _culprit(model: onnx.ModelProto) -> onnx.NodeProto | None:
    """Returns the first node that ONNX's converter refuses alone."""
    for graph in naming.graphs(inferred(model).graph):
        known = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            names = dict.fromkeys(reads(node))
            alone = helper.make_graph(
                [node],
                "alone",
                [known.get(item, onnx.ValueInfoProto(name=item)) for item in names if item not in tensors],
                [known.get(item, onnx.ValueInfoProto(name=item)) for item in node.output if item],
                [tensors[item] for item in names if item in tensors],
            )
            part = helper.make_model(alone, opset_imports=model.opset_import, ir_version=model.ir_version)
            try:
                version_converter.convert_version(part, OPSET)
            except Exception:  # as in `raised`
                culprit: onnx.NodeProto = node
                return culprit
    return None
