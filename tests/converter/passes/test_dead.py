from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from tests.converter.passes.building import SPEC, applied, kinds, node, normal, same, small

from lmconv.graph.rewriter import make
from lmconv.passes.dead import plugin


def test_unread_nodes_and_initializers_are_removed() -> None:
    nodes = [node("Abs", "x", "unread"), node("Add", "unread one", "unread too"), node("Relu", "x", "y")]
    model, decisions = applied(plugin, small(nodes, {"one": normal(1), "other": normal(2)}))
    assert kinds(model) == {"Relu": 1}
    assert decisions == {"outputs": 0, "nodes": 2, "initializers": 2}


def test_outputs_outside_the_spec_are_removed_with_their_nodes() -> None:
    nodes = [node("Relu", "x", "landmarks"), node("Abs", "x", "a"), node("Neg", "a", "features")]
    model, decisions = applied(plugin, small(nodes, {}, outputs=("landmarks", "features")))
    assert [value.name for value in model.graph.output] == [SPEC.outputs[0].name]
    assert kinds(model) == {"Relu": 1}
    assert decisions == {"outputs": 1, "nodes": 2, "initializers": 0}


def test_unread_indices_of_a_pooling_are_removed() -> None:
    pool = helper.make_node("MaxPool", ["x"], ["y", "indices"], name="y", kernel_shape=[2, 2])
    model, _ = applied(plugin, small([pool], {}))
    assert list(model.graph.node[0].output) == ["y"]


def test_read_indices_of_a_pooling_stay() -> None:
    pool = helper.make_node("MaxPool", ["x"], ["y", "indices"], name="y", kernel_shape=[2, 2])
    model, _ = applied(plugin, small([pool], {}, outputs=("y", "indices")))
    assert list(model.graph.node[0].output) == ["y", "indices"]


def test_unread_parts_of_a_split_stay() -> None:
    split = helper.make_node("Split", ["x"], ["y", "unread"], name="y", axis=1, num_outputs=2)
    model, _ = applied(plugin, small([split], {}))
    assert list(model.graph.node[0].output) == ["y", "unread"]


def test_identity_and_dropout_are_removed() -> None:
    dropout = helper.make_node("Dropout", ["b"], ["c", "mask"], name="c")
    nodes = [node("Identity", "x", "a"), node("Identity", "a", "b"), dropout, node("Relu", "c", "y")]
    assert same(plugin, small(nodes, {})) == {"Relu": 1}


def test_dropout_in_training_mode_stays() -> None:
    nodes = [node("Dropout", "x ratio training", "a"), node("Relu", "a", "y")]
    constants = {"ratio": np.array(0.5, np.float32), "training": np.array(True)}
    assert kinds(applied(plugin, small(nodes, constants))[0]) == {"Dropout": 1, "Relu": 1}


def test_an_identity_with_a_graph_output_stays() -> None:
    nodes = [node("Relu", "x", "a"), node("Identity", "a", "y")]
    assert same(plugin, small(nodes, {}, outputs=("a", "y"))) == {"Relu": 1, "Identity": 1}


def test_a_value_read_by_a_subgraph_stays() -> None:
    inner = helper.make_graph([make("Neg", ["a"], "inner")], "inner", [], [onnx.ValueInfoProto(name="inner")])
    other = helper.make_graph([make("Abs", ["a"], "other")], "other", [], [onnx.ValueInfoProto(name="other")])
    nodes = [node("Identity", "x", "a"), node("If", "flag", "y", then_branch=inner, else_branch=other)]
    model = small(nodes, {"flag": np.array(True)})
    assert same(plugin, model) == {"Identity": 1, "If": 1}
