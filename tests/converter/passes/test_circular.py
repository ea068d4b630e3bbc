"""A circular Pad as slices gives the same values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from tests.converter.opsets.building import computed, copied, in_openvino, model, node, normal, operators

from lmconv.passes.circular import circular, plugin
from lmconv.targets.openvino import last
from lmconv.types import PassContext, landmark_spec

CONTEXT = PassContext(spec=landmark_spec("small", "small", size=(6, 6), landmarks=2))
IMAGES = normal(2, 4, 6, 6, seed=1)


@pytest.mark.parametrize(("pads", "axes"), [([0, 0, 1, 2, 0, 0, 3, 1], None), ([1, 2], [3]), ([0, 2, 1, 0], [2, 3])])
def test_slices_give_the_same_values(pads: list[int], axes: list[int] | None) -> None:
    constants: dict[str, Any] = {"p": np.array(pads, np.int64)}
    inputs = ["x", "p"]
    if axes:
        constants["a"] = np.array(axes, np.int64)
        inputs += ["", "a"]
    before = model([node("Pad", inputs, ["y"], mode="wrap")], **constants)
    assert last(before) == ("circular",)
    after, decisions = circular(copied(before), CONTEXT)
    assert decisions == {"replaced": 1}
    assert last(after) == ()
    assert "Pad" not in operators(after)
    np.testing.assert_array_equal(computed(after, IMAGES), computed(before, IMAGES))
    np.testing.assert_array_equal(in_openvino(after, IMAGES), computed(before, IMAGES))


def test_other_pads_stay() -> None:
    before = model([node("Pad", ["x", "p"], ["y"], mode="reflect")], p=np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    assert last(before) == ()
    assert circular(copied(before), CONTEXT)[1] == {"replaced": 0}


def test_the_tolerance_covers_the_rounding_of_a_float16_graph() -> None:
    pads = np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    nodes = [
        node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        node("Conv", ["half", "w"], ["first"]),
        node("Pad", ["first", "p"], ["padded"], mode="wrap"),
        node("Conv", ["padded", "w"], ["second"]),
        node("Cast", ["second"], ["y"], to=TensorProto.FLOAT),
    ]
    before = model(nodes, p=pads, w=normal(4, 4, 3, 3, seed=2).astype(np.float16) / 8)
    after, _ = circular(copied(before), CONTEXT)
    off = float(np.abs(computed(after, IMAGES) - computed(before, IMAGES)).mean())
    assert 1e-6 < off <= plugin.tolerance  # with slices ONNX Runtime rounds between the layers
