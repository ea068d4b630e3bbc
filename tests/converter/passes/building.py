"""Small graphs built by hand, and functions that apply a pass to a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lmconv.graph.rewriter import make
from lmconv.types import OPSET, Float32, Json, Pass, PassContext, landmark_spec

SPEC = landmark_spec("small", "onnx", size=(8, 8), landmarks=4)
RANDOM = np.random.default_rng(5)


def normal(*shape: int) -> Float32:
    """Normally distributed numbers, float32."""
    return RANDOM.normal(size=shape).astype(np.float32)


def small(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, NDArray[Any]],
    *,
    shape: Sequence[int | str] = ("N", 8, 6, 6),
    outputs: Sequence[str] = ("y",),
    others: Mapping[str, Sequence[int | str]] = MappingProxyType({}),
) -> onnx.ModelProto:
    """Builds a graph from `x` of this shape, and other inputs, to `outputs`."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims))
            for name, dims in {"x": shape, **others}.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(model)
    del model.graph.output[:]
    values = {value.name: value for value in [*inferred.graph.value_info, *inferred.graph.output]}
    model.graph.output.extend(values[name] for name in outputs)
    onnx.checker.check_model(model, full_check=True)
    return model


def applied(step: Pass, model: onnx.ModelProto) -> tuple[onnx.ModelProto, Json]:
    """Applies a pass to a copy of a graph; asserts that the result is valid."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    result, decisions = step.apply(copy, PassContext(spec=SPEC))
    onnx.checker.check_model(result, full_check=True)
    return result, decisions


def same(step: Pass, model: onnx.ModelProto, *, tolerance: float = 1e-5) -> dict[str, int]:
    """Asserts that a pass changes no output; returns the number of nodes by operator after the pass."""
    result, _ = applied(step, model)
    shape = [dim.dim_value or 3 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    x = normal(*shape)
    for before, after in zip(run(model, x), run(result, x), strict=True):
        np.testing.assert_allclose(after, before, rtol=tolerance, atol=tolerance)
    return kinds(result)


def run(model: onnx.ModelProto, x: Float32) -> list[NDArray[Any]]:
    """Computes all outputs of a graph."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs: list[NDArray[Any]] = session.run(None, {"x": x})
    return outputs


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    """Number of nodes by operator."""
    return dict(Counter(node.op_type for node in model.graph.node))


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """Makes a node; `inputs` are names separated by spaces, and `-` is an omitted input."""
    return make(kind, ["" if name == "-" else name for name in inputs.split()], output, **attributes)
