"""Graphs in float16 and float64 become graphs in float32, which every pass and target can use.

ONNX Runtime has few float16 kernels for CPUs. It computes most float16 operators in float32, and rounds to float16
where an operator with a float16 kernel follows or computes. The graph that ONNX Runtime executes shows these places. In
the float32 graph each place is a pair of Cast, to float16 and back; all other values are float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lmconv.graph import naming
from lmconv.graph.constants import TYPE_ATTRIBUTES, widen_graph
from lmconv.inference.ort import OrtSession
from lmconv.sources.onnx_files.image import MOVES
from lmconv.sources.onnx_files.original import Original

if TYPE_CHECKING:
    import onnx

FLOAT, FLOAT16, DOUBLE = 1, 10, 11
"""Types of ONNX's TensorProto.DataType."""
OTHER = (FLOAT16, DOUBLE)
"""Types that become float32."""
EXACT = {
    *(*MOVES, "Constant", "ConstantOfShape", "Expand", "Tile", "Pad", "GatherElements", "GatherND", "DepthToSpace"),
    *("SpaceToDepth", "Relu", "Neg", "Abs", "Max", "Min", "Clip", "Where", "MaxPool", "ReduceMax", "ReduceMin"),
    *("If", "Loop"),
}
"""Operators whose results are numbers of their inputs, up to the sign: in float16 nothing is rounded."""
INSERTED = "InsertedPrecisionFreeCast_"
"""Start of the names that ONNX Runtime gives to a Cast of its own, and to the result of this Cast."""
TOLERANCE = 3e-6
"""Largest difference from the unchanged file, fractions of the largest output."""


def in_float32(model: onnx.ModelProto, original: Original) -> onnx.ModelProto:
    """Returns a model in float32 that computes the outputs of a file; `model` itself if the result would differ.

    Args:
        model: Content of the file, all opsets.
        original: The file in ONNX Runtime.
    """
    if not any(kind in OTHER for part in naming.graphs(model.graph) for kind in _kinds(part)):
        return model
    try:
        result = _widened(_as_computed(model) if FLOAT16 in set(_kinds(model.graph)) else model)
        with OrtSession(result.SerializeToString()) as session:
            return result if original.agrees(session, TOLERANCE) else model
    except Exception:  # ONNX Runtime and ONNX raise errors of several libraries; the file stays as it is
        return model


def _kinds(graph: onnx.GraphProto) -> Iterator[int]:
    """Yields the types of the values and constants that a graph declares, and of the results of Cast."""
    for value in (*graph.input, *graph.output):
        yield value.type.tensor_type.elem_type
    for tensor in graph.initializer:
        yield tensor.data_type
    for node in graph.node:
        for item in node.attribute:
            yield item.t.data_type
            yield item.i if item.name in TYPE_ATTRIBUTES else 0


def _as_computed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a model with the operators that ONNX Runtime executes for it, without optimisation."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "executed.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


def _widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of a model in float32, with a pair of Cast behind each operator that rounds to float16."""
    from onnx import shape_inference

    result = shape_inference.infer_shapes(model)
    taken = naming.taken(result.graph)
    half = {
        value.name
        for graph in naming.graphs(result.graph)
        for value in (*graph.input, *graph.output, *graph.value_info)
        if value.type.tensor_type.elem_type == FLOAT16
    }
    widen_graph(result.graph, OTHER)
    for graph in naming.graphs(result.graph):
        nodes = [part for node in graph.node for part in (node, *_rounded(node, half, taken))]
        del graph.node[:]
        graph.node.extend(nodes)
    for node in naming.nodes_of(result):
        if node.op_type == "Cast":  # ONNX Runtime removes a Cast named INSERTED, although the Cast rounds
            node.name = ""
    for name in sorted(taken):
        if name.startswith(INSERTED):
            naming.rename(result.graph, name, naming.fresh(name.removeprefix(INSERTED), taken))
    return result


def _rounded(node: onnx.NodeProto, half: set[str], taken: set[str]) -> Iterator[onnx.NodeProto]:
    """Yields pairs of Cast, to float16 and back, for the float16 outputs of a node that rounds; renames these outputs.

    Args:
        node: The node, in float32; changed in place.
        half: Names of the values in float16.
        taken: Names in use.
    """
    from onnx import helper

    if node.op_type in EXACT or (node.op_type == "Cast" and node.input[0] in half):
        return
    for index, name in enumerate(node.output):
        if name in half:
            exact, rounded = (naming.fresh(f"{name}_{kind}", taken) for kind in ("float32", "float16"))
            node.output[index] = exact
            yield helper.make_node("Cast", [exact], [rounded], to=FLOAT16)
            yield helper.make_node("Cast", [rounded], [name], to=FLOAT)
