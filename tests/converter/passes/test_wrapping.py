"""Pad in mode `wrap` as slices computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.converter.opsets.building import computed, copied, in_openvino, model, node, normal, operators

from lmconv.passes import wrapping
from lmconv.targets.openvino import last
from lmconv.types import PassContext, landmark_spec

SPEC = landmark_spec("small", "small", size=(6, 6), landmarks=2)
IMAGES = normal(2, 4, 6, 6, seed=1)


@pytest.mark.parametrize("constants", [{"p": [0, 0, 1, 2, 0, 0, 3, 0]}, {"p": [2, 1, 0, 6], "v": [0.0], "a": [-1, 2]}])
def test_a_wrapped_pad_computes_the_same(constants: dict[str, Any]) -> None:
    kinds = {"p": np.int64, "v": np.float32, "a": np.int64}
    arrays: dict[str, Any] = {name: np.array(value, kinds[name]) for name, value in constants.items()}
    file = model([node("Pad", ["x", *arrays], ["y"], mode="wrap")], opset=19, **arrays)
    assert last(file) == ("wrapping",)
    result, decisions = wrapping.plugin.apply(copied(file), PassContext(spec=SPEC))
    assert decisions == {"replaced": {"Pad": 1}}
    assert "Pad" not in operators(result)
    np.testing.assert_array_equal(computed(result, IMAGES), computed(file, IMAGES))
    np.testing.assert_array_equal(in_openvino(result, IMAGES), computed(file, IMAGES))


def test_another_pad_stays() -> None:
    constants: dict[str, Any] = {"p": np.array([0, 0, 1, 2, 0, 0, 3, 0])}
    file = model([node("Pad", ["x", "p"], ["y"], mode="reflect")], opset=19, **constants)
    assert last(file) == ()
    assert operators(wrapping.plugin.apply(file, PassContext(spec=SPEC))[0]) == ["Pad"]
