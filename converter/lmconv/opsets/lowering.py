"""Lowers a model to an older opset, for a runtime that reads no later one.

ONNX's own converter does not lower new operators, and does not name the node that prevents the conversion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import defs, shape_inference

from lmconv.errors import InputError, first_line
from lmconv.graph import naming
from lmconv.opsets.functions import written_out
from lmconv.opsets.rewriting import Call, rewrite
from lmconv.opsets.versions import label, opset_of, set_opset

CHANGED: Mapping[str, int] = {"GroupNormalization": 21}
"""Opsets at which an operator got another meaning, although its attributes and inputs have the old names."""
MODES = {"linear": "bilinear", "cubic": "bicubic"}
"""Names of GridSample's modes before opset 20."""


def lowered(model: onnx.ModelProto, opset: int, name: str) -> onnx.ModelProto:
    """Returns a model of an opset or an earlier one that computes the same.

    Args:
        model: The model; may be changed.
        opset: Latest opset of the result.
        name: The network, for messages.

    Raises:
        InputError: The opset has no operator for a node; the message names the node.
    """
    if opset_of(model) <= opset:
        return model
    before, hint = opset_of(model), f"export the network with opset {opset}, or without this operator"
    defined = {node.op_type for node in _too_new(model, opset) if _defined(node.op_type, before)}
    if defined:
        model = written_out(model, defined)
    rewrite(model, {("", "GridSample"): _grid_sample} if opset < 20 else {})
    for node in _too_new(model, opset):
        raise InputError(f"{name}: {label(node)}, of opset {before}, has no equivalent in opset {opset}", hint=hint)
    set_opset(model, opset)
    try:
        shape_inference.infer_shapes(model, check_type=True)
    except Exception as error:  # inference raises types of its compiled module
        message = f"{name}: opset {opset} lacks a type of opset {before}: {first_line(error)}"
        raise InputError(message, hint=hint) from error
    return model


def _too_new(model: onnx.ModelProto, opset: int) -> list[onnx.NodeProto]:
    """Returns the nodes that an older opset does not have, or not in this form, subgraphs included."""
    nodes = naming.nodes_of(model)
    return [node for node in nodes if not node.domain and not _fits(node, opset_of(model), opset)]


def _fits(node: onnx.NodeProto, opset: int, older: int) -> bool:
    """True if an operator has the same meaning in an older opset, with the attributes and inputs of a node."""
    if defs.get_schema(node.op_type, opset).since_version <= older:
        return True
    if CHANGED.get(node.op_type, 0) > older or not defs.has(node.op_type, older):
        return False
    schema = defs.get_schema(node.op_type, older)
    if schema.deprecated or schema.max_input < len(node.input) or schema.max_output < len(node.output):
        return False
    mode = next((item.s.decode() for item in node.attribute if item.name == "mode"), "")
    renamed = node.op_type == "GridSample" and older < 20 and mode in MODES
    return not renamed and all(item.name in schema.attributes for item in node.attribute)


def _defined(op: str, opset: int) -> bool:
    """True if ONNX defines an operator by other operators."""
    schema: Any = defs.get_schema(op, opset)
    return bool(schema.has_function or schema.has_context_dependent_function)


def _grid_sample(call: Call) -> Sequence[str] | None:
    """Gives the mode of a GridSample its name before opset 20."""
    mode = call.get("mode", "linear")
    settings = call.settings | {"mode": MODES.get(mode, mode)}
    return [call.add("GridSample", *call.trimmed(2), **settings)]
