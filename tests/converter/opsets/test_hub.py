"""Functions, bfloat16 constants and training mode in a file, and opsets above the hub."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.converter.opsets.building import computed, copied, model, node, normal, operators

from lmconv.errors import InputError
from lmconv.opsets.hub import to_hub
from lmconv.opsets.lowering import lowered
from lmconv.opsets.versions import opset_of
from lmconv.types import OPSETS

IMAGES = normal(2, 4, 6, 6, seed=1)


def swish(name: str = "Swish", inner: str = "Sigmoid", domain: str = "", opset: int = 18) -> onnx.FunctionProto:
    """Returns the function x * inner(x) of the domain `my.domain`."""
    nodes = [node(inner, ["X"], ["S"], domain=domain), node("Mul", ["X", "S"], ["Y"])]
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("my.domain", 1)]
    return helper.make_function("my.domain", name, ["X"], ["Y"], nodes, imports)


def calling(functions: list[onnx.FunctionProto], call: onnx.NodeProto, opset: int = 18) -> onnx.ModelProto:
    """Returns a model that calls a function of its own twice, the second time in a branch."""
    inner = onnx.NodeProto.FromString(call.SerializeToString())
    inner.input[0], inner.output[0] = "once", "inner"
    call.input[0], call.output[0] = "x", "once"
    output = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    branches = {f"{name}_branch": helper.make_graph([inner], name, [], [output]) for name in ("then", "else")}
    nodes = [
        call,
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Greater", ["most", "limit"], ["more"]),
        node("If", ["more"], ["y"], **branches),
    ]
    result = model(nodes, opset=opset, domains=["my.domain"], limit=np.float32(0))
    result.functions.extend(functions)
    return result


def assert_inlined(file: onnx.ModelProto) -> onnx.ModelProto:
    expected = computed(file, IMAGES)
    result = to_hub(copied(file), "functions.onnx")
    assert not result.functions
    assert [entry.domain for entry in result.opset_import] == [""]
    np.testing.assert_allclose(computed(result, IMAGES), expected, rtol=1e-6, atol=1e-6)
    return result


def test_a_function_of_the_file_is_inlined_in_branches_too() -> None:
    assert_inlined(calling([swish()], node("Swish", ["x"], ["y"], domain="my.domain")))


def test_a_function_that_calls_a_function_is_inlined() -> None:
    functions = [swish("Inner"), swish("Outer", "Inner", "my.domain")]
    assert_inlined(calling(functions, node("Outer", ["x"], ["y"], domain="my.domain")))


@pytest.mark.parametrize("settings", [{}, {"alpha": 0.3}])
def test_a_function_has_attributes_with_defaults(settings: dict[str, Any]) -> None:
    leaky = node("LeakyRelu", ["X"], ["Y"])
    leaky.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT))
    function = helper.make_function(
        "my.domain", "Leaky", ["X"], ["Y"], [leaky], [helper.make_opsetid("", 18)],
        attribute_protos=[helper.make_attribute("alpha", 0.1)],
    )  # fmt: skip
    assert_inlined(calling([function], node("Leaky", ["x"], ["y"], domain="my.domain", **settings)))


def test_a_function_of_another_opset_is_converted() -> None:
    body = [node("ReduceMean", ["X"], ["M"], axes=[1]), node("Sub", ["X", "M"], ["Y"])]
    function = helper.make_function("my.domain", "Centre", ["X"], ["Y"], body, [helper.make_opsetid("", 13)])
    file = model([node("Centre", ["x"], ["y"], domain="my.domain")], domains=["my.domain"])
    file.functions.append(function)
    result = to_hub(file, "functions.onnx")
    assert opset_of(result) == 18
    expected = IMAGES - IMAGES.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(computed(result, IMAGES), expected, rtol=1e-5, atol=1e-6)


def test_a_function_in_a_file_of_an_older_opset_is_raised_after_it_is_inlined() -> None:
    assert (
        opset_of(assert_inlined(calling([swish(opset=13)], node("Swish", ["x"], ["y"], domain="my.domain"), 13))) == 18
    )


def narrow(name: str, values: Any) -> TensorProto:
    """Returns a bfloat16 tensor."""
    array = np.asarray(values, np.float32)
    return helper.make_tensor(name, TensorProto.BFLOAT16, array.shape, array.ravel().tolist())


def test_bfloat16_constants_become_float32_exactly() -> None:
    nodes = [
        node("Cast", ["w"], ["f"], to=TensorProto.FLOAT),
        node("Constant", [], ["c"], value=narrow("", 1.5)),
        node("Cast", ["c"], ["g"], to=TensorProto.FLOAT),
        node("Mul", ["x", "f"], ["m"]),
        node("Add", ["m", "g"], ["y"]),
    ]
    file = model(nodes, w=narrow("w", [0.1, -2.7, 3.3, 1e-30, 5, 6]))
    expected = computed(file, IMAGES)
    result = to_hub(file, "bf16.onnx")
    kinds = {tensor.data_type for tensor in result.graph.initializer}
    assert kinds == {TensorProto.FLOAT}
    np.testing.assert_array_equal(computed(result, IMAGES), expected)


def test_a_network_that_rounds_to_bfloat16_keeps_its_rounding() -> None:
    nodes = [node("Cast", ["x"], ["b"], to=TensorProto.BFLOAT16), node("Cast", ["b"], ["y"], to=TensorProto.FLOAT)]
    file = model(nodes)
    expected = computed(file, IMAGES)
    np.testing.assert_array_equal(computed(to_hub(file, "bf16.onnx"), IMAGES), expected)
    assert not np.array_equal(expected, IMAGES)


STATISTICS = {"s": normal(4), "b": normal(4, seed=2), "m": normal(4, seed=3), "v": np.abs(normal(4, seed=4)) + 0.5}


@pytest.mark.parametrize("opset", [9, 13, 15, 18, 21])
@pytest.mark.parametrize("shape", [(2, 4, 6, 6), (5, 4)])
def test_batchnorm_in_training_mode_keeps_the_statistics_of_the_batch(opset: int, shape: tuple[int, ...]) -> None:
    outputs = ["y", "mean", "var"] if opset >= 14 else ["y", "mean", "var", "saved_mean", "saved_var"]
    settings: dict[str, Any] = {"training_mode": 1} if opset >= 14 else {}
    made = node("BatchNormalization", ["x", *STATISTICS], outputs, **settings)
    constants: dict[str, Any] = dict(STATISTICS)
    file = model([made], shape, opset=opset, **constants)
    file.ir_version = 7 if opset < 14 else 10
    images = normal(*shape, seed=5)
    expected = computed(file, images)
    result = to_hub(copied(file), "training.onnx")
    assert "BatchNormalization" not in operators(result)
    np.testing.assert_allclose(computed(result, images), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", [13, 18, 22])
def test_dropout_in_training_mode_is_removed_as_onnx_runtime_does(opset: int) -> None:
    nodes = [
        node("Exp", ["x"], ["e"]),
        node("Dropout", ["e", "ratio", "training"], ["d"]),
        node("Relu", ["d"], ["y"]),
    ]
    file = model(nodes, opset=opset, ratio=np.float32(0.5), training=np.array(True))
    expected = computed(file, IMAGES)
    result = to_hub(file, "training.onnx")
    assert "Dropout" not in operators(result)
    np.testing.assert_array_equal(computed(result, IMAGES), expected)


def test_a_random_dropout_stays() -> None:
    file = model([node("Dropout", ["x", "r", "t"], ["y"])], r=np.float32(0.5), t=np.array(True))
    assert operators(to_hub(file, "random.onnx")) == ["Dropout"]


def groups(opset: int) -> onnx.ModelProto:
    """Returns a GroupNormalization of opset 18 (scales per group) or 21 (scales per channel)."""
    size = 2 if opset < 21 else 4
    nodes = [node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)]
    return model(nodes, opset=opset, s=normal(size), b=normal(size, seed=2))


@pytest.mark.parametrize("opset", [18, 20])
def test_group_normalisation_with_scales_per_group_is_written_out(opset: int) -> None:
    expected = computed(groups(opset), IMAGES)
    result = to_hub(groups(opset), "groups.onnx")
    assert opset_of(result) == opset
    assert "GroupNormalization" not in operators(result)
    np.testing.assert_allclose(computed(result, IMAGES), expected, rtol=1e-5, atol=1e-6)


NEW: dict[str, onnx.ModelProto] = {
    "Gelu": model([node("Gelu", ["x"], ["y"])], opset=20),
    "Gelu by tanh": model([node("Gelu", ["x"], ["y"], approximate="tanh")], opset=20),
    "GroupNormalization": groups(21),
    "RMSNormalization": model([node("RMSNormalization", ["x", "s"], ["y"])], opset=23, s=normal(6)),
    "Attention": model([node("Attention", ["x", "x", "x"], ["y"], is_causal=1)], opset=23),
    "Attention of opset 24": model([node("Attention", ["x", "x", "x"], ["y"])], opset=24),
    "RotaryEmbedding": model(
        [node("RotaryEmbedding", ["x", "c", "s"], ["y"])], opset=23, c=normal(2, 6, 3), s=normal(2, 6, 3, seed=2)
    ),
    "Swish": model([node("Swish", ["x"], ["y"], alpha=1.5)], opset=24),
    "HardSwish": model([node("HardSwish", ["x"], ["y"])], opset=22),
    "GridSample": model([node("GridSample", ["x", "g"], ["y"], mode="linear")], opset=20, g=normal(2, 5, 5, 2)),
    "AveragePool": model(
        [node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], opset=22
    ),
    "ReduceMax": model([node("ReduceMax", ["x", "a"], ["y"])], opset=20, a=np.array([2, 3])),
    "Resize": model(
        [node("Resize", ["x", "", "f"], ["y"], mode="linear", antialias=1)], opset=19,
        f=np.array([1, 1, 0.6, 0.6], np.float32),
    ),
    "TopK": model([node("TopK", ["x", "k"], ["y", "indices"])], opset=24, k=np.array([3])),
}  # fmt: skip


@pytest.mark.parametrize("name", NEW)
def test_the_hub_keeps_the_opset_of_a_newer_file(name: str) -> None:
    before = NEW[name].SerializeToString()
    assert to_hub(copied(NEW[name]), "new.onnx").SerializeToString() == before


@pytest.mark.parametrize("name", NEW)
def test_a_newer_operator_is_lowered_to_opset_18(name: str) -> None:
    result = lowered(copied(NEW[name]), 18, "new")
    assert opset_of(result) == 18
    np.testing.assert_allclose(computed(result, IMAGES), computed(NEW[name], IMAGES), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("opset", "made", "constants"),
    [
        (19, node("DeformConv", ["x", "w", "o"], ["y"]), {"w": normal(3, 4, 3, 3), "o": normal(2, 18, 4, 4)}),
        (19, node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2]), {}),
    ],
)
def test_an_operator_without_an_older_equivalent_is_refused_by_name(
    opset: int, made: onnx.NodeProto, constants: dict[str, Any]
) -> None:
    made.name = "layer"
    with pytest.raises(InputError) as refused:
        lowered(model([made], opset=opset, **constants), 18, "net")
    message = f"net: node layer ({made.op_type}), of opset 19, has no equivalent in opset 18 (export the network"
    assert str(refused.value).startswith(message)


def test_a_type_that_an_older_opset_lacks_is_refused() -> None:
    nodes = [node("Cast", ["x"], ["q"], to=TensorProto.FLOAT8E4M3FN), node("Cast", ["q"], ["y"], to=TensorProto.FLOAT)]
    with pytest.raises(InputError, match="opset 18 lacks a type of opset 19"):
        lowered(model(nodes, opset=19), 18, "net")


@pytest.mark.parametrize("opset", [25, 28])
def test_an_opset_above_the_hub_is_lowered_to_the_latest(opset: int) -> None:
    file = model([node("Relu", ["x"], ["r"]), node("Celu", ["r"], ["y"])], opset=opset)
    expected = computed(file, IMAGES)
    result = to_hub(file, "new.onnx")
    assert opset_of(result) == OPSETS[-1]
    np.testing.assert_array_equal(computed(result, IMAGES), expected)


def test_the_long_name_of_the_standard_domain_is_replaced() -> None:
    file = model([node("Relu", ["x"], ["y"], domain="ai.onnx")])
    file.opset_import[0].domain = "ai.onnx"
    result = to_hub(file, "long.onnx")
    assert [entry.domain for entry in result.opset_import] == [""]
    assert operators(result) == ["Relu"]


def test_a_removed_dropout_and_a_foreign_operator_are_said() -> None:
    nodes = [
        node("Exp", ["x"], ["e"]),
        node("Dropout", ["e", "ratio", "training"], ["d"]),
        node("CDist", ["a", "a"], ["k"], domain="com.microsoft", metric="euclidean", name="distances"),
        node("Add", ["d", "k"], ["y"]),
    ]
    constants: dict[str, Any] = {"ratio": np.float32(0.5), "training": np.array(True), "a": normal(6, 3)}
    notes: list[str] = []
    to_hub(model(nodes, domains=["com.microsoft"], **constants), "file.onnx", notes.append)
    assert notes == [
        "Dropout in training mode is removed, as ONNX Runtime does (1 of them)",
        "only the target onnx is sure to read node distances (com.microsoft.CDist)",
    ]
