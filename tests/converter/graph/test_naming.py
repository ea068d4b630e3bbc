"""Names in a graph and its subgraphs: new names never collide with existing names."""

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
    """A graph with an If whose branches read the input `x`, an initializer and a computed value."""

    def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, SHAPE)
        return helper.make_graph(nodes, name, [], [output])

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
        output: Float32 = session.run({model.graph.input[0].name: x})[model.graph.output[0].name]
    return output


def test_names_of_values_and_nodes_in_subgraphs_count_as_taken() -> None:
    names = naming.taken(branching().graph)
    assert {"x", "a", "two", "y", "relu", "inner", "neg", "one", "other"} <= names


def test_a_fresh_name_extends_the_requested_name_and_becomes_taken() -> None:
    taken = {"a", "a_2"}
    assert [naming.fresh(name, taken) for name in ("b", "a", "a")] == ["b", "a_3", "a_4"]


def test_no_existing_name_begins_with_a_new_prefix() -> None:
    graph = branching().graph
    assert naming.prefix(graph, "io") == "io"
    graph.node[0].name = "io_planes"
    assert naming.prefix(graph, "io") == "io2"


@pytest.mark.parametrize("old", ["x", "two", "a", "y", "sum"])
@pytest.mark.parametrize("new", ["image", "x", "a", "inner", "one", "two"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_renamed_graph_computes_the_same_outputs(old: str, new: str, sign: int) -> None:
    model, x = branching(), sign * np.abs(X)
    naming.rename(model.graph, old, new)
    assert new in naming.taken(model.graph)
    np.testing.assert_array_equal(run(model, x), run(branching(), x))


def test_a_renamed_value_keeps_its_shape() -> None:
    model = branching()
    naming.rename(model.graph, "a", "positive")
    assert [value.name for value in model.graph.value_info] == ["positive"]


def test_nodes_with_the_same_name_get_distinct_names() -> None:
    model = branching()
    model.graph.node[1].name = model.graph.node[3].name = "relu"
    naming.distinct_nodes(model.graph)
    assert [node.name for node in model.graph.node] == ["relu", "relu_2", "", "relu_3"]
    run(model)
