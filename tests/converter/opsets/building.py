"""Models with one input `x` and one output `y`, written in a line or two, and runs of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lmconv.inference.ort import OrtSession

node = helper.make_node


def model(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str] = (2, 4, 6, 6),
    *,
    opset: int = 18,
    domains: Sequence[str] = (),
    **constants: Any,
) -> onnx.ModelProto:
    """Returns a model from `x`, float32 of a shape, to `y`, float32 of any shape.

    Args:
        nodes: Nodes of the graph.
        shape: Shape of `x`.
        opset: Version of the standard operators.
        domains: Other domains that the model imports.
        constants: Initializers by name.
    """
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name)
            for name, value in constants.items()
        ],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Returns seeded normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def computed(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Runs a model in ONNX Runtime; returns its output `y`."""
    with OrtSession(model.SerializeToString()) as session:
        result: NDArray[np.float32] = session.run({"x": images})["y"]
    return result


def in_openvino(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Runs a model in OpenVINO in float32; returns its output `y`."""
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    network = core.read_model(model.SerializeToString())
    result: NDArray[np.float32] = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([images])[0]
    return result


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of a model."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def operators(model: onnx.ModelProto) -> list[str]:
    """Returns the operators of a graph in order; operators of other domains with their domain."""
    return [f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in model.graph.node]
