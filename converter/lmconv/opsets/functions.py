"""Functions written out: functions of the file, and standard operators by their definition in ONNX."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import defs, helper, inliner, shape_inference

from lmconv.errors import InputError
from lmconv.graph import naming
from lmconv.graph.index import subgraphs
from lmconv.opsets.versions import STANDARD, opset_of, reason


def inlined(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Returns a model without functions of its own; a function of another opset is converted to the opset of the model.

    Args:
        model: The model; may be changed.
        name: The file, for messages.

    Raises:
        InputError: A function cannot be inlined.
    """
    if not model.functions:
        return model
    _complete(model)
    opset = opset_of(model)
    other = [function.name for function in model.functions if not _relabelled(function, opset)]
    try:
        if not other:
            return inliner.inline_local_functions(model)
        typed = shape_inference.infer_shapes(model)  # a conversion needs the types of values
        return inliner.inline_local_functions(typed, convert_version=True)
    except Exception as error:  # the inliner raises types of its compiled module
        message = f"{name}: its functions cannot be inlined: {reason(error)}"
        hint = f"export the network without functions, or with functions of opset {opset}"
        raise InputError(message + (f" (of another opset: {', '.join(other)})" if other else ""), hint=hint) from error


def _complete(model: onnx.ModelProto) -> None:
    """Gives every call of a function its default attributes, which the inliner ignores."""
    defaults = {(function.domain, function.name): function.attribute_proto for function in model.functions}
    nodes = list(naming.nodes_of(model))
    for function in model.functions:
        for node in function.node:
            nodes += [node, *(item for graph in subgraphs(node) for part in naming.graphs(graph) for item in part.node)]
    for node in nodes:
        given = {item.name for item in node.attribute}
        missing = [item for item in defaults.get((node.domain, node.op_type), ()) if item.name not in given]
        node.attribute.extend(missing)


def _complete_standard(node: onnx.NodeProto, opset: int) -> None:
    """Gives a standard operator its default attributes, which the inliner ignores."""
    given = {item.name for item in node.attribute}
    for name, item in defs.get_schema(node.op_type, opset).attributes.items():
        if name not in given and item.default_value.name:
            node.attribute.append(item.default_value)


def _relabelled(function: onnx.FunctionProto, opset: int) -> bool:
    """Declares that a function has an opset if the operators of its nodes are the same; False if one differs."""
    entries = [entry for entry in function.opset_import if entry.domain in STANDARD]
    for entry in entries:
        nodes = [node for node in function.node if node.domain in STANDARD]
        if entry.version != opset and not all(_unchanged(node, entry.version, opset) for node in nodes):
            return False
        entry.version = opset
    return True


def _unchanged(node: onnx.NodeProto, before: int, after: int) -> bool:
    """True if an operator without subgraphs is the same in two opsets."""
    if any(subgraphs(node)) or not defs.has(node.op_type, after):
        return False
    versions = {defs.get_schema(node.op_type, opset).since_version for opset in (before, after)}
    return len(versions) == 1


def written_out(model: onnx.ModelProto, operators: Iterable[str]) -> onnx.ModelProto:
    """Returns a model in which standard operators are replaced by the nodes of their definition.

    Args:
        model: The model; not changed. All types must be known.
        operators: Operators with a definition in ONNX's standard.
    """
    typed = shape_inference.infer_shapes(model, data_prop=True)
    names = {("", op) for op in operators}
    for graph in naming.graphs(typed.graph):
        for node in graph.node:
            if (node.domain, node.op_type) in names:
                _complete_standard(node, opset_of(model))
        known = {value.name for value in (*graph.value_info, *graph.input, *graph.output)}
        graph.value_info.extend(  # the definition of an operator depends on the types of its inputs
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in graph.initializer
            if tensor.name not in known
        )
    result = inliner.inline_selected_functions(typed, sorted(names), inline_schema_functions=True)
    for graph in naming.graphs(result.graph):
        del graph.value_info[:]
    return result
