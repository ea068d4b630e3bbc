"""Names in a graph: nothing is mistaken for another value, in subgraphs neither."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lmconv.graph import naming
from lmconv.inference.ort import OrtSession
from lmconv.types import Float32

SHAPE: list[str | int | None] = ["N", 4]
X = np.arange(-4, 4, dtype=np.float32).reshape(2, 4)


def branching() -> onnx.ModelProto:
    """Reads its input `x`, an initializer and a value of its own in the branches of an If."""

    def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
        given = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, SHAPE)
        return helper.make_graph(nodes, name, [], [given])

    one = helper.make_node("Neg", ["x"], ["inner"], name="neg"), helper.make_node("Add", ["inner", "two"], ["one"])
    other = helper.make_node("Mul", ["x", "a"], ["other"])
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="relu"),
        helper.make_node("ReduceSum", ["a"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "two"], ["more"]),
        helper.make_node("If", ["more"], ["y"], then_branch=branch("then", *one), else_branch=branch("else", other)),
    ]
    graph = helper.make_graph(
        nodes,
        "branching",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, SHAPE)],
        [numpy_helper.from_array(np.array(2, np.float32), "two")],
        value_info=[helper.make_tensor_value_info("a", TensorProto.FLOAT, SHAPE)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(model: onnx.ModelProto, x: Float32 = X) -> Float32:
    onnx.checker.check_model(model, full_check=True)
    with OrtSession(model.SerializeToString()) as session:
        found: Float32 = session.run({model.graph.input[0].name: x})[model.graph.output[0].name]
    return found


def test_names_of_values_and_nodes_are_taken_within_subgraphs_too() -> None:
    found = naming.taken(branching().graph)
    assert {"x", "a", "two", "y", "relu", "inner", "neg", "one", "other"} <= found


def test_a_fresh_name_is_like_the_one_asked_for_and_then_taken() -> None:
    taken = {"a", "a_2"}
    assert [naming.fresh(name, taken) for name in ("b", "a", "a")] == ["b", "a_3", "a_4"]


def test_no_name_begins_with_a_prefix() -> None:
    graph = branching().graph
    assert naming.prefix(graph, "io") == "io"
    graph.node[0].name = "io_planes"
    assert naming.prefix(graph, "io") == "io2"


@pytest.mark.parametrize("old", ["x", "two", "a", "y", "sum"])
@pytest.mark.parametrize("new", ["image", "x", "a", "inner", "one", "two"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_renamed_graph_computes_the_same(old: str, new: str, sign: int) -> None:
    model, x = branching(), sign * np.abs(X)
    naming.rename(model.graph, old, new)
    assert new in naming.taken(model.graph)
    np.testing.assert_array_equal(run(model, x), run(branching(), x))


def test_a_value_keeps_what_is_known_of_its_shape() -> None:
    model = branching()
    naming.rename(model.graph, "a", "positive")
    assert [value.name for value in model.graph.value_info] == ["positive"]


def test_of_nodes_with_one_name_the_later_get_another() -> None:
    model = branching()
    model.graph.node[1].name = model.graph.node[3].name = "relu"
    naming.distinct_nodes(model.graph)
    assert [node.name for node in model.graph.node] == ["relu", "relu_2", "", "relu_3"]
    run(model)
