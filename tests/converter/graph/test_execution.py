"""Running a graph node by node."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tests.converter.passes.building import node, normal, run, small

from lmconv.graph.execution import CHUNK, has_channels, walk
from lmconv.graph.index import Graph

CROPS = normal(CHUNK + 3, 8, 6, 6)
"""Inputs for two arrays of different lengths."""


def walked(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Every yielded tensor, for all crops; of a tensor without axes, the first array."""
    tensors = {name: chunks for part in walk(Graph.of(model), CROPS) for name, chunks in part.items()}
    return {name: np.concatenate(chunks) if chunks[0].ndim else chunks[0] for name, chunks in tensors.items()}


def branch(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    """Branch of an If whose value is the output of the last node."""
    name = nodes[-1].output[0]
    return helper.make_graph(list(nodes), name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])


CONSTRUCTS: dict[str, list[onnx.NodeProto]] = {
    "a node fed by constants alone": [node("Cast", "half", "float", to=1), node("Mul", "x float", "y")],
    "a Constant node": [node("Constant", "", "number", value_float=0.5), node("Mul", "x number", "y")],
    "a sequence": [node("SplitToSequence", "x", "s", axis=1), node("ConcatFromSequence", "s", "y", axis=1)],
    "an optional value": [node("Optional", "x", "maybe"), node("OptionalGetElement", "maybe", "y")],
    "bfloat16": [node("Cast", "x", "short", to=TensorProto.BFLOAT16), node("Cast", "short", "y", to=1)],
    "an omitted input": [helper.make_node("Clip", ["x", "", "top"], ["y"])],
    "an omitted output": [
        node("Transpose", "x", "t", perm=[1, 0, 2, 3]),
        node("Reshape", "t shape", "steps"),
        helper.make_node("RNN", ["steps", "w", "u"], ["", "y"], hidden_size=4),
    ],
    "a branch that reads values and constants around it": [
        node("ReduceMean", "x", "mean", keepdims=0),
        node("Less", "mean top", "condition"),
        node("Relu", "x", "r"),
        helper.make_node(
            "If",
            ["condition"],
            ["y"],
            then_branch=branch(node("Mul", "r top", "product")),
            else_branch=branch(node("Identity", "r", "same")),
        ),
    ],
}


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_every_construct_is_computed_for_all_crops(construct: str) -> None:
    constants: dict[str, NDArray[Any]] = {
        "half": np.array(0.5, np.float16),
        "top": np.array(0.4, np.float32),
        "shape": np.array([8, -1, 36]),
        "w": normal(1, 4, 36),
        "u": normal(1, 4, 4),
    }
    shape = (CHUNK + 3, 8, 6, 6) if construct == "an omitted output" else ("N", 8, 6, 6)
    model = small(CONSTRUCTS[construct], constants, shape=shape)
    np.testing.assert_allclose(walked(model)["y"], run(model, CROPS)[0], rtol=1e-5, atol=1e-6)


def test_values_that_numpy_does_not_have_are_not_yielded() -> None:
    assert set(walked(small(CONSTRUCTS["a sequence"], {}))) == {"x", "y"}
    assert set(walked(small(CONSTRUCTS["bfloat16"], {}))) == {"x", "y"}


def test_a_value_with_the_crops_on_another_axis_has_no_channels() -> None:
    assert has_channels([normal(8, 4, 6), normal(3, 4, 6)])
    assert not has_channels([normal(4, 8, 6), normal(4, 3, 6)])


def test_the_input_may_come_after_an_initializer_among_the_inputs() -> None:
    model = small([node("Conv", "x weight", "y")], {"weight": normal(4, 8, 3, 3)})
    weight = helper.make_tensor_value_info("weight", TensorProto.FLOAT, [4, 8, 3, 3])
    inputs = [weight, *model.graph.input]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    np.testing.assert_allclose(walked(model)["y"], run(model, CROPS)[0], rtol=1e-5, atol=1e-5)
