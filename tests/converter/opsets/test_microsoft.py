"""Operators of com.microsoft compute the same as standard operators, in ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.converter.opsets.building import computed, copied, model, node, normal, operators

from lmconv.opsets.hub import foreign, to_hub
from lmconv.opsets.microsoft import RULES
from lmconv.opsets.rewriting import MICROSOFT

RANDOM = np.random.default_rng(0)
CONV = {"w": normal(3, 4, 3, 3), "b": normal(3)}
SCALES = {"s": np.float32(0.03), "z": np.uint8(120), "t": np.float32(0.05), "u": np.uint8(100)}
WEIGHTS = RANDOM.integers(-99, 99, (8, 5)).astype(np.int8)


def ms(op: str, inputs: str, outputs: str = "y", **settings: Any) -> onnx.NodeProto:
    """Returns a node of com.microsoft; `-` stands for an omitted input or output."""
    given, made = ([name.strip("-") for name in names.split()] for names in (inputs, outputs))
    return node(op, given, made, domain=MICROSOFT, **settings)


def quantised(*nodes: onnx.NodeProto, out: str = "c", scale: str = "t", zero: str = "u") -> list[onnx.NodeProto]:
    """Returns nodes between a QuantizeLinear of `x` to `q` and a DequantizeLinear of `out` to `y`."""
    before = node("QuantizeLinear", ["x", "s", "z"], ["q"])
    return [before, *nodes, node("DequantizeLinear", [out, scale, zero], ["y"])]


FLOAT: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "QuickGelu": ([ms("QuickGelu", "x")], {}),
    "QuickGelu with alpha": ([ms("QuickGelu", "x", alpha=1.0)], {}),
    "Gelu": ([ms("Gelu", "x")], {}),
    "FastGelu": ([ms("FastGelu", "x")], {}),
    "FastGelu with a bias": ([ms("FastGelu", "x b")], {"b": normal(6)}),
    "BiasGelu": ([ms("BiasGelu", "x b")], {"b": normal(6)}),
    "FusedConv": ([ms("FusedConv", "x w b", activation="Relu", pads=[1, 1, 1, 1])], CONV),
    "FusedConv without activation": ([ms("FusedConv", "x w")], {"w": CONV["w"]}),
    "FusedConv with a sum": ([ms("FusedConv", "x w b z", activation="Relu")], CONV | {"z": normal(2, 3, 4, 4)}),
    "FusedConv with a sum, no bias": ([ms("FusedConv", "x w - z")], {"w": CONV["w"], "z": normal(2, 3, 4, 4)}),
    "FusedConv, LeakyRelu": (
        [ms("FusedConv", "x w b", activation="LeakyRelu", activation_params=[0.3])], CONV,
    ),
    "FusedConv, Clip": ([ms("FusedConv", "x w b", activation="Clip", activation_params=[0.0, 6.0])], CONV),
    "FusedConv, HardSigmoid": (
        [ms("FusedConv", "x w b", activation="HardSigmoid", activation_params=[0.3, 0.4])], CONV,
    ),
    "FusedGemm": (
        [node("Flatten", ["x"], ["f"]), ms("FusedGemm", "f w b", activation="Elu", activation_alpha=0.2, transB=1)],
        {"w": normal(5, 144), "b": normal(5)},
    ),
    "FusedMatMul": ([ms("FusedMatMul", "x w", transB=1, alpha=0.5)], {"w": normal(5, 6)}),
    "FusedMatMul of two computed values": ([node("Relu", ["x"], ["r"]), ms("FusedMatMul", "r x", transA=1)], {}),
    "FusedMatMul behind a foreign node": (
        [ms("QuickGelu", "x", "r"), ms("FusedMatMul", "x r", "m", transB=1), ms("FusedMatMul", "m x", transA=1)], {},
    ),
    "TransposeMatMul": ([ms("TransposeMatMul", "x w", transB=1)], {"w": normal(5, 6)}),
    "SkipLayerNormalization": (
        [node("Reshape", ["x", "to"], ["r"]), ms("SkipLayerNormalization", "r r g b", epsilon=1e-5)],
        {"g": normal(6), "b": normal(6), "to": np.array([2, 24, 6])},
    ),
    "SkipLayerNormalization with a bias and its sum": (
        [
            node("Reshape", ["x", "to"], ["r"]),
            ms("SkipLayerNormalization", "r r g b k", "n - - total"),
            node("Add", ["n", "total"], ["y"]),
        ],
        {"g": normal(6), "b": normal(6), "k": normal(6), "to": np.array([2, 24, 6])},
    ),
    "SkipSimplifiedLayerNormalization": (
        [node("Reshape", ["x", "to"], ["r"]), ms("SkipSimplifiedLayerNormalization", "r r g", epsilon=1e-5)],
        {"g": normal(6), "to": np.array([2, 24, 6])},
    ),
    "Attention": (
        [node("Reshape", ["x", "to"], ["r"]), ms("Attention", "r w b", num_heads=2)],
        {"w": normal(6, 24), "b": normal(24), "to": np.array([2, 24, 6])},
    ),
    "Attention with a scale and no bias": (
        [node("Reshape", ["x", "to"], ["r"]), ms("Attention", "r w b", num_heads=3, scale=0.3)],
        {"w": normal(6, 18), "b": np.zeros(18, np.float32), "to": np.array([2, 24, 6])},
    ),
    "MultiHeadAttention": (
        [node("Reshape", ["x", "to"], ["r"]), ms("MultiHeadAttention", "r r r", num_heads=2)],
        {"to": np.array([2, 24, 6])},
    ),
    "MultiHeadAttention with a bias": (
        [node("Reshape", ["x", "to"], ["r"]), ms("MultiHeadAttention", "r r r b", num_heads=3)],
        {"b": normal(18), "to": np.array([2, 24, 6])},
    ),
    "ExpandDims": ([ms("ExpandDims", "x a")], {"a": np.array(1, np.int32)}),
    "Pad": ([ms("Pad", "x p v")], {"p": np.array([0, 0, 1, 0, 0, 0, 2, 1]), "v": np.float32(0.5)}),
    "GridSample": ([ms("GridSample", "x g", mode="bilinear", padding_mode="border")], {"g": normal(2, 5, 5, 2)}),
    "Trilu": ([ms("Trilu", "x", upper=0)], {}),
}  # fmt: skip

QUANTISED: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "QLinearAdd": (quantised(ms("QLinearAdd", "q s z q s z t u", "c")), {}),
    "QLinearMul": (quantised(ms("QLinearMul", "q s z q s z t u", "c")), {}),
    "QLinearSigmoid": (
        quantised(ms("QLinearSigmoid", "q s z k l", "c"), scale="k", zero="l"),
        {"k": np.float32(1 / 256), "l": np.uint8(0)},
    ),
    "QLinearLeakyRelu": (quantised(ms("QLinearLeakyRelu", "q s z t u", "c", alpha=0.2)), {}),
    "QLinearGlobalAveragePool": (quantised(ms("QLinearGlobalAveragePool", "q s z t u", "c")), {}),
    "QLinearAveragePool": (
        quantised(ms("QLinearAveragePool", "q s z t u", "c", kernel_shape=[2, 2], strides=[2, 2])), {},
    ),
    "QLinearConcat": (quantised(ms("QLinearConcat", "t u q s z q s z", "c", axis=1)), {}),
    "QLinearSoftmax": (
        quantised(ms("QLinearSoftmax", "q s z k l", "c", axis=1, opset=13), scale="k", zero="l"),
        {"k": np.float32(1 / 256), "l": np.uint8(0)},
    ),
    "NhwcMaxPool": (
        quantised(
            node("Transpose", ["q"], ["p"], perm=[0, 2, 3, 1]),
            ms("NhwcMaxPool", "p", "c", kernel_shape=[2, 2], strides=[2, 2]),
            scale="s", zero="z",
        ),
        {},
    ),
    "QLinearConv, channels last": (
        quantised(
            node("Transpose", ["q"], ["p"], perm=[0, 2, 3, 1]),
            ms("QLinearConv", "p s z w k l t u b", "c", channels_last=1),
        ),
        {
            "w": RANDOM.integers(-99, 99, (3, 4, 3, 3)).astype(np.int8), "k": np.float32(0.01), "l": np.int8(0),
            "b": RANDOM.integers(-500, 500, 3).astype(np.int32),
        },
    ),
    "QuantizeLinear": ([ms("QuantizeLinear", "x s z", "q"), ms("DequantizeLinear", "q s z")], {}),
    "QGemm": (
        quantised(node("Flatten", ["q"], ["f"]), ms("QGemm", "f s z w k l b t u", "c", transB=1)),
        {
            "w": RANDOM.integers(-99, 99, (5, 144)).astype(np.int8), "k": np.float32(0.01), "l": np.int8(0),
            "b": RANDOM.integers(-500, 500, 5).astype(np.int32),
        },
    ),
    "DynamicQuantizeMatMul": (
        [ms("DynamicQuantizeMatMul", "x w k - b")],
        {"w": WEIGHTS[:6], "k": np.float32(0.01), "b": normal(5)},
    ),
    "MatMulIntegerToFloat": (
        [node("QuantizeLinear", ["x", "s", "z"], ["q"]), ms("MatMulIntegerToFloat", "q w s k z")],
        {"w": WEIGHTS[:6], "k": np.float32(0.01)},
    ),
}  # fmt: skip


def written_out(nodes: list[onnx.NodeProto], constants: dict[str, Any], opset: int = 18) -> float:
    """Asserts that a model has standard operators only in the hub; returns the largest difference, by the range."""
    used = {name for node in nodes for name in node.input}
    given = {name: value for name, value in (SCALES | constants).items() if name in used}
    file = model(nodes, domains=[MICROSOFT], opset=opset, **given)
    images = normal(2, 4, 6, 6, seed=1)
    expected = computed(file, images)
    result = to_hub(copied(file), "ms.onnx")
    assert foreign(result) == []
    assert [entry.domain for entry in result.opset_import] == [""]
    return float(np.abs(computed(result, images) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", FLOAT)
def test_a_float_operator_computes_the_same(name: str) -> None:
    assert written_out(*FLOAT[name]) <= 2e-6


@pytest.mark.parametrize("name", QUANTISED)
def test_a_quantised_operator_computes_the_same(name: str) -> None:
    assert written_out(*QUANTISED[name]) <= 2e-6


def test_a_file_of_an_older_opset_is_raised_too() -> None:
    assert written_out(*FLOAT["FusedConv"], opset=11) <= 2e-6
    assert written_out(*QUANTISED["QLinearAdd"], opset=13) <= 2e-6


def test_every_rule_has_a_case() -> None:
    cases = {node.op_type for nodes, _ in (FLOAT | QUANTISED).values() for node in nodes if node.domain == MICROSOFT}
    assert {op for _, op in RULES} - cases <= {"GatherND", "SkipLayerNormalization", "BiasAdd", "FusedMatMulActivation"}


def test_numbers_have_the_type_of_a_float16_network() -> None:
    file = model(
        [
            node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
            ms("QuickGelu", "h", "g"),
            node("Cast", ["g"], ["y"], to=TensorProto.FLOAT),
        ],
        domains=[MICROSOFT],
    )
    images = normal(2, 4, 6, 6)
    expected = computed(file, images)
    np.testing.assert_allclose(computed(to_hub(file, "half.onnx"), images), expected, atol=2e-3)


def test_an_operator_inside_a_branch_is_written_out() -> None:
    output = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    branches = [helper.make_graph([ms(op, "x", "inner")], op, [], [output]) for op in ("QuickGelu", "FastGelu")]
    nodes = [
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Greater", ["most", "limit"], ["more"]),
        node("If", ["more"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    file = model(nodes, domains=[MICROSOFT], limit=np.float32(0))
    images = normal(2, 4, 6, 6)
    expected = computed(file, images)
    result = to_hub(file, "if.onnx")
    assert foreign(result) == []
    np.testing.assert_allclose(computed(result, images), expected, atol=1e-6)


def test_an_operator_without_a_decomposition_stays_and_is_named() -> None:
    file = model(
        [ms("CDist", "a a", "d", metric="euclidean"), node("Add", ["x", "d"], ["y"])],
        (6, 6),
        domains=[MICROSOFT],
        a=normal(6, 3),
    )
    result = to_hub(file, "cdist.onnx")
    assert [node.op_type for node in foreign(result)] == ["CDist"]
    assert operators(result) == ["com.microsoft.CDist", "Add"]


def test_an_import_that_no_node_uses_is_dropped() -> None:
    file = model([node("Relu", ["x"], ["y"])], domains=[MICROSOFT, "ai.onnx.ml", "org.pytorch.aten"])
    assert [entry.domain for entry in to_hub(file, "unused.onnx").opset_import] == [""]


@pytest.mark.parametrize("opset", [11, 13, 16])
@pytest.mark.parametrize("op", ["LayerNormalization", "SimplifiedLayerNormalization"])
def test_a_normalisation_of_onnx_runtime_in_an_older_file_is_written_out(op: str, opset: int) -> None:
    inputs = ["x", "g", "b"] if op == "LayerNormalization" else ["x", "g"]
    constants: dict[str, Any] = {name: normal(6, seed=index) for index, name in enumerate(inputs[1:])}
    file = model([node(op, inputs, ["y"], epsilon=1e-3)], opset=opset, **constants)
    images = normal(2, 4, 6, 6, seed=1)
    expected = computed(file, images)
    result = to_hub(file, "norm.onnx")
    assert op not in operators(result)
    np.testing.assert_allclose(computed(result, images), expected, rtol=1e-5, atol=1e-6)
