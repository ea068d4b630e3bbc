"""The reader of ONNX files that does not need onnx, compared with onnx."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, shape_inference
from tests.helpers import tiny_onnx

from lmconv.building.plain import plain_graph
from lmconv.plugins import PASSES
from lmconv.sources.resolve import resolve
from lmconv.trt import graph
from lmconv.types import PassContext


def halved(tiny: Path, tmp_path: Path) -> onnx.ModelProto:
    """The tiny network in float16."""
    base = plain_graph(resolve(str(tiny)), tmp_path)
    float16 = PASSES.load("float16")
    model, _ = float16.apply(base.model, PassContext(spec=base.artifact.spec))
    return model


def island() -> onnx.ModelProto:
    """A float16 graph with three float32 nodes between casts, and with integers."""
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], name="down", to=TensorProto.FLOAT16),
        helper.make_node("Relu", ["h"], ["r"], name="half"),
        helper.make_node("Cast", ["r"], ["f"], name="up", to=TensorProto.FLOAT),
        helper.make_node("Exp", ["f"], ["e"], name="exact"),
        helper.make_node("Constant", [], ["c"], value=helper.make_tensor("", TensorProto.FLOAT, [1], [2.0])),
        helper.make_node("Mul", ["e", "c"], ["m"], name="exact_too"),
        helper.make_node("ArgMax", ["m"], ["i"], name="place", axis=1),
        helper.make_node("Cast", ["i"], ["j"], name="whole", to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["m"], ["n"], name="down_again", to=TensorProto.FLOAT16),
        helper.make_node("Add", ["n", "j"], ["s"], name="half_again"),
        helper.make_node("Cast", ["s"], ["y"], name="out", to=TensorProto.FLOAT),
    ]
    value = helper.make_tensor_value_info
    inputs, outputs = [value("x", TensorProto.FLOAT, [1, 4])], [value("y", TensorProto.FLOAT, [1, 4])]
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs))


def expected(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes with a float32 input or output, by the type inference of onnx."""
    inferred = shape_inference.infer_shapes(model).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.input)}
    kinds |= {value.name: value.type.tensor_type.elem_type for value in inferred.output}
    kinds |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    skipped = ("Cast", "Constant", "QuantizeLinear", "DequantizeLinear")
    return [
        node.name
        for node in model.graph.node
        if node.op_type not in skipped
        and TensorProto.FLOAT in {kinds.get(name) for name in (*node.input, *node.output)}
    ]


def test_nodes_agree_with_onnx() -> None:
    model = tiny_onnx()
    model.graph.node[2].input.append("")  # an omitted optional input
    nodes = graph.nodes(model.SerializeToString())
    assert [(node.name, node.operator, node.inputs, node.outputs) for node in nodes] == [
        (node.name, node.op_type, tuple(filter(None, node.input)), tuple(node.output)) for node in model.graph.node
    ]


def test_a_node_without_a_name_is_labelled_by_its_output() -> None:
    model = tiny_onnx()
    model.graph.node[1].name = ""
    nodes = graph.nodes(model.SerializeToString())
    assert [node.label for node in nodes] == ["conv", "b", "flatten", "fc"]
    assert [node.layer for node in nodes] == ["conv", "node_of_b", "flatten", "fc"]


def test_the_float32_nodes_of_a_float16_graph_are_found() -> None:
    model = island()
    names = [node.name for node in graph.float32_nodes(model.SerializeToString())]
    assert names == expected(model) == ["exact", "exact_too", "place"]


def test_float32_nodes_of_a_converted_network_agree_with_onnx(tiny: Path, tmp_path: Path) -> None:
    model = halved(tiny, tmp_path)
    assert [node.name for node in graph.float32_nodes(model.SerializeToString())] == expected(model)
    assert any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)


def test_float16_and_quantisation_are_detected_for_the_flags_of_tensorrt_8(tiny: Path, tmp_path: Path) -> None:
    half, plain = halved(tiny, tmp_path).SerializeToString(), tiny_onnx().SerializeToString()
    assert graph.holds_float16(half)
    assert not graph.holds_float16(plain)
    assert not graph.is_quantised(graph.nodes(plain))
    quantised = graph.Node("q", "QuantizeLinear", ("a",), ("b",))
    assert graph.is_quantised([*graph.nodes(plain), quantised])


@pytest.mark.parametrize("damage", [b"\x0a\xff", b"\x07", b"\xff" * 9])
def test_a_damaged_onnx_file_raises_a_value_error(damage: bytes) -> None:
    with pytest.raises(ValueError, match="ONNX file"):
        graph.nodes(damage)


def test_big_tensors_are_skipped() -> None:
    model = tiny_onnx()
    big = onnx.numpy_helper.from_array(np.zeros((1000, 1000), np.float32), "big")
    model.graph.initializer.append(big)
    assert len(graph.float32_nodes(model.SerializeToString())) == 4


NAMES = ["features.0/Conv", "conv", "conv_1"]


@pytest.mark.parametrize(
    ("layer", "metadata", "owner"),
    [
        ("conv", "", "conv"),
        ("conv", None, "conv"),
        ("(Unnamed Layer* 3) [Shuffle]", "", None),
        ("anything", "[ONNX Layer: conv_1]", "conv_1"),
        ("conv_2", "", None),
    ],
)
def test_a_layer_belongs_to_the_node_in_its_name_or_metadata(layer: str, metadata: str, owner: str | None) -> None:
    assert graph.owner(layer, metadata, NAMES) == owner


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Error Code 10: Could not find any implementation for node {ForeignNode[conv...conv_1]}.", ("conv", "conv_1")),
        ("Could not find any implementation for node features.0/Conv + relu.", ("features.0/Conv",)),
        ("Conv_12 convolves", ()),
    ],
)
def test_nodes_in_a_message_are_recognised(text: str, names: tuple[str, ...]) -> None:
    assert graph.names_in(text, NAMES) == names
