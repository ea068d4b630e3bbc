"""Functions written out: those of the file itself, and standard operators by the definition that ONNX gives."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import helper, inliner, shape_inference

from lmconv.graph import naming


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a model without functions of its own; a function of another opset is converted to that of the model."""
    return inliner.inline_local_functions(model, convert_version=True) if model.functions else model


def written_out(model: onnx.ModelProto, operators: Iterable[str]) -> onnx.ModelProto:
    """Returns a model in which standard operators are replaced by the nodes of their definition.

    Args:
        model: The model; not changed. All types must be known.
        operators: Operators with a definition in ONNX's standard.
    """
    typed = shape_inference.infer_shapes(model, data_prop=True)
    for graph in naming.graphs(typed.graph):
        known = {value.name for value in (*graph.value_info, *graph.input, *graph.output)}
        graph.value_info.extend(  # the definition of an operator depends on the types of its inputs
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in graph.initializer
            if tensor.name not in known
        )
    names = [("", op) for op in operators]
    result = inliner.inline_selected_functions(typed, names, inline_schema_functions=True)
    for graph in naming.graphs(result.graph):
        del graph.value_info[:]
    return result
