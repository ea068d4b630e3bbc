from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from tests.converter.passes.building import applied, kinds, node, normal, same, small

from lmconv.passes.batchnorm import plugin
from lmconv.types import Float32

VALUES = "gamma beta mean variance"


def statistics(channels: int = 8, *, shift: bool = True) -> dict[str, Float32]:
    zero = np.zeros(channels, np.float32)
    beta, mean = (normal(channels), normal(channels)) if shift else (zero, zero)
    return {
        "gamma": normal(channels),
        "beta": beta,
        "mean": mean,
        "variance": np.abs(normal(channels)) + np.float32(0.5),
    }


def norm(x: str, y: str, **attributes: Any) -> onnx.NodeProto:
    return node("BatchNormalization", f"{x} {VALUES}", y, **attributes)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kind", "weight", "attributes"),
    [
        ("Conv", (8, 8, 3, 3), {"pads": [1] * 4}),
        ("Conv", (8, 1, 3, 3), {"pads": [1] * 4, "group": 8}),
        ("Conv", (8, 4, 3, 3), {"group": 2}),
        ("ConvTranspose", (8, 8, 3, 3), {"strides": [2, 2]}),
        ("ConvTranspose", (8, 1, 3, 3), {"group": 8, "pads": [1] * 4}),
        ("ConvTranspose", (8, 4, 2, 2), {"group": 2}),
    ],
    ids=["dense", "depthwise", "grouped", "transposed", "transposed depthwise", "transposed grouped"],
)
def test_batchnorm_is_folded_into_the_convolution_before(
    kind: str, weight: tuple[int, ...], attributes: Mapping[str, Any], bias: bool
) -> None:
    inputs = "x weight bias" if bias else "x weight"
    constants = {"weight": normal(*weight), "bias": normal(8), **statistics()}
    assert same(plugin, small([node(kind, inputs, "a", **attributes), norm("a", "y")], constants)) == {kind: 1}


@pytest.mark.parametrize(
    "attributes", [{}, {"transB": 1}, {"alpha": 0.5, "beta": 2.0}], ids=["plain", "transposed", "scaled"]
)
def test_batchnorm_is_folded_into_the_linear_layer_before(attributes: Mapping[str, Any]) -> None:
    weight = normal(8, 5) if attributes.get("transB") else normal(5, 8)
    nodes = [node("Gemm", "x weight bias", "a", **attributes), norm("a", "y")]
    model = small(nodes, {"weight": weight, "bias": normal(8), **statistics()}, shape=("N", 5))
    assert same(plugin, model) == {"Gemm": 1}


def test_a_matmul_with_batchnorm_becomes_a_gemm() -> None:
    model = small(
        [node("MatMul", "x weight", "a"), norm("a", "y")], {"weight": normal(5, 8), **statistics()}, shape=("N", 5)
    )
    assert same(plugin, model) == {"Gemm": 1}


@pytest.mark.parametrize(("weight", "group"), [((4, 8, 3, 3), 1), ((8, 1, 3, 3), 8), ((6, 4, 1, 1), 2)])
def test_batchnorm_is_folded_into_the_convolution_after(weight: tuple[int, ...], group: int) -> None:
    nodes = [node("Relu", "x", "a"), norm("a", "b"), node("Conv", "b weight", "y", group=group)]
    assert same(plugin, small(nodes, {"weight": normal(*weight), **statistics()})) == {"Relu": 1, "Conv": 1}


@pytest.mark.parametrize("attributes", [{"pads": [1] * 4}, {"auto_pad": "SAME_UPPER"}])
def test_batchnorm_is_not_folded_through_padding(attributes: Mapping[str, Any]) -> None:
    nodes = [norm("x", "a"), node("Conv", "a weight", "y", **attributes)]
    counts = same(plugin, small(nodes, {"weight": normal(4, 8, 3, 3), **statistics()}))
    assert counts == {"BatchNormalization": 1, "Conv": 1}


def test_batchnorm_without_shift_is_folded_through_padding() -> None:
    nodes = [norm("x", "a"), node("Conv", "a weight", "y", pads=[1] * 4)]
    assert same(plugin, small(nodes, {"weight": normal(4, 8, 3, 3), **statistics(shift=False)})) == {"Conv": 1}


@pytest.mark.parametrize("kind", ["Flatten", "Reshape"])
@pytest.mark.parametrize("last", ["Gemm", "MatMul"])
def test_batchnorm_is_folded_through_flattening_into_the_linear_layer(kind: str, last: str) -> None:
    flat = node("Flatten", "a", "b") if kind == "Flatten" else node("Reshape", "a shape", "b")
    nodes = [norm("x", "a"), flat, node(last, "b weight", "y")]
    constants = {"weight": normal(8 * 36, 4), "shape": np.array([-1, 8 * 36]), **statistics()}
    assert same(plugin, small(nodes, constants), tolerance=1e-4) == {kind: 1, "Gemm": 1}


def test_batchnorm_is_not_folded_through_an_operator_that_moves_channels() -> None:
    nodes = [norm("x", "a"), node("Transpose", "a", "b", perm=[0, 2, 3, 1]), node("Flatten", "b", "c")]
    model = small([*nodes, node("Gemm", "c weight", "y")], {"weight": normal(8 * 36, 4), **statistics()})
    assert "BatchNormalization" in same(plugin, model, tolerance=1e-4)


def test_batchnorm_between_two_activations_stays() -> None:
    model = small([node("Relu", "x", "a"), norm("a", "b"), node("Relu", "b", "y")], statistics())
    _, decisions = applied(plugin, model)
    assert decisions == {"before": 0, "after": 0, "kept": 1}
    assert same(plugin, model) == {"Relu": 2, "BatchNormalization": 1}


def test_batchnorm_after_a_layer_with_another_reader_stays() -> None:
    nodes = [node("Conv", "x weight", "a"), norm("a", "b"), node("Relu", "b", "c"), node("Add", "a c", "y")]
    counts = same(plugin, small(nodes, {"weight": normal(8, 8, 1, 1), **statistics()}))
    assert counts["BatchNormalization"] == 1


def test_batchnorm_after_a_layer_with_a_graph_output_stays() -> None:
    nodes = [node("Conv", "x weight", "a"), norm("a", "y")]
    model = small(nodes, {"weight": normal(8, 8, 1, 1), **statistics()}, outputs=("a", "y"))
    assert same(plugin, model) == {"Conv": 1, "BatchNormalization": 1}


def test_two_batchnorms_in_a_row_are_both_folded() -> None:
    nodes = [node("Conv", "x weight", "a"), norm("a", "b"), norm("b", "y")]
    assert same(plugin, small(nodes, {"weight": normal(8, 8, 1, 1), **statistics()})) == {"Conv": 1}


def test_shared_weights_are_folded_for_one_layer_only() -> None:
    nodes = [node("Conv", "x weight", "a"), norm("a", "b"), node("Conv", "b weight", "y")]
    assert same(plugin, small(nodes, {"weight": normal(8, 8, 1, 1), **statistics()}), tolerance=1e-4) == {"Conv": 2}


def test_batchnorm_in_training_mode_stays() -> None:
    training = onnx.helper.make_node("BatchNormalization", ["a", *VALUES.split()], ["y", "m", "v"], training_mode=1)
    model = small([node("Conv", "x weight", "a"), training], {"weight": normal(8, 8, 1, 1), **statistics()})
    assert kinds(applied(plugin, model)[0])["BatchNormalization"] == 1
