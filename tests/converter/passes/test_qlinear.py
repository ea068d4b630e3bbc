"""QLinearConv and QLinearMatMul as Q/DQ pairs give the same integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from tests.converter.opsets.building import computed, copied, in_openvino, model, node, normal, operators

from lmconv.passes import qlinear
from lmconv.types import PassContext, landmark_spec

SPEC = landmark_spec("small", "small", size=(6, 6), landmarks=2)
RANDOM = np.random.default_rng(0)
IMAGES = normal(2, 4, 6, 6, seed=1)
SCALES: dict[str, Any] = {"s": np.float32(0.03), "z": np.uint8(120), "t": np.float32(0.2), "u": np.uint8(100)}


def integers(*shape: int) -> np.ndarray[Any, np.dtype[np.int8]]:
    return RANDOM.integers(-99, 99, shape).astype(np.int8)


def one(kind: str) -> dict[str, Any]:
    """Returns scale and zero point of weights: one for all, or one per channel or column."""
    size = {"one": (), "per channel": (3,)}[kind]
    return {"k": (RANDOM.random(size) * 0.01 + 0.001).astype(np.float32), "l": np.zeros(size, np.int8)}


def quantised(layer: onnx.NodeProto, **constants: Any) -> onnx.ModelProto:
    """Returns a model of a layer from the uint8 tensor `q` to the uint8 tensor `c`."""
    before = node("QuantizeLinear", ["x", "s", "z"], ["q"])
    return model([before, layer, node("DequantizeLinear", ["c", "t", "u"], ["y"])], **SCALES, **constants)


def convolution(kind: str, bias: bool, **settings: Any) -> onnx.ModelProto:
    constants = {"w": integers(3, 4, 3, 3), **one(kind)}
    if bias:
        constants["b"] = RANDOM.integers(-900, 900, 3).astype(np.int32)
    inputs = ["q", "s", "z", "w", "k", "l", "t", "u", *(["b"] if bias else [])]
    return quantised(node("QLinearConv", inputs, ["c"], **settings), **constants)


@pytest.mark.parametrize("kind", ["one", "per channel"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_gives_the_same_integers(kind: str, bias: bool) -> None:
    file = convolution(kind, bias, pads=[1, 1, 1, 1], strides=[2, 2])
    result, decisions = qlinear.plugin.apply(copied(file), PassContext(spec=SPEC))
    assert decisions == {"replaced": {"QLinearConv": 1}}
    assert "QLinearConv" not in operators(result)
    np.testing.assert_array_equal(computed(result, IMAGES), computed(file, IMAGES))


@pytest.mark.parametrize("kind", ["one", "per channel"])
def test_a_matrix_product_gives_the_same_integers(kind: str) -> None:
    layer = node("QLinearMatMul", ["q", "s", "z", "w", "k", "l", "t", "u"], ["c"])
    file = quantised(layer, w=integers(6, 3), **one(kind))
    result, _ = qlinear.plugin.apply(copied(file), PassContext(spec=SPEC))
    assert "QLinearMatMul" not in operators(result)
    np.testing.assert_array_equal(computed(result, IMAGES), computed(file, IMAGES))


def test_openvino_reads_the_result() -> None:
    file = convolution("per channel", True)
    result, _ = qlinear.plugin.apply(copied(file), PassContext(spec=SPEC))
    np.testing.assert_allclose(in_openvino(result, IMAGES), computed(file, IMAGES), atol=1e-5)
