"""Deformable convolutions as sampling and a 1x1 convolution compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from tests.converter.opsets.building import computed, copied, in_openvino, model, node, normal, operators

from lmconv.passes import deformable
from lmconv.types import PassContext, landmark_spec

SPEC = landmark_spec("small", "small", size=(7, 9), landmarks=2)
IMAGES = normal(2, 4, 7, 9, seed=1)


def layer(
    opset: int = 19, groups: int = 1, offset_groups: int = 1, *, mask: bool = False, bias: bool = True, **settings: Any
) -> onnx.ModelProto:
    """Returns a deformable 3x2 convolution of (2, 4, 7, 9)."""
    strides, pads = settings.get("strides", [1, 1]), settings.get("pads", [0] * 4)
    dilations = settings.get("dilations", [1, 1])
    out = [
        (size + pads[axis] + pads[axis + 2] - dilations[axis] * (kernel - 1) - 1) // strides[axis] + 1
        for axis, (size, kernel) in enumerate(zip((7, 9), (3, 2), strict=True))
    ]
    constants: dict[str, Any] = {
        "w": normal(6, 4 // groups, 3, 2),
        "o": 1.5 * normal(2, 12 * offset_groups, *out, seed=2),
    }
    inputs = ["x", "w", "o"]
    if bias or mask:
        inputs.append("b" if bias else "")
        constants |= {"b": normal(6)} if bias else {}
    if mask:
        inputs.append("m")
        constants["m"] = normal(2, 6 * offset_groups, *out, seed=3)
    made = node("DeformConv", inputs, ["y"], group=groups, offset_group=offset_groups, **settings)
    return model([made], (2, 4, 7, 9), opset=opset, **constants)


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "opset 22": {"opset": 22},
    "padded": {"pads": [1, 0, 2, 1]},
    "strides": {"strides": [2, 3], "pads": [1, 1, 1, 1]},
    "dilations": {"dilations": [2, 1]},
    "groups": {"groups": 2},
    "groups of offsets": {"offset_groups": 2},
    "mask": {"mask": True},
    "mask without bias": {"mask": True, "bias": False},
    "everything": {"groups": 2, "offset_groups": 4, "mask": True, "strides": [2, 2], "pads": [2, 1, 2, 1]},
}


@pytest.mark.parametrize("name", CASES)
def test_a_deformable_convolution_computes_the_same(name: str) -> None:
    file = layer(**CASES[name])
    result, decisions = deformable.plugin.apply(copied(file), PassContext(spec=SPEC))
    assert decisions == {"replaced": {"DeformConv": 1}}
    assert "DeformConv" not in operators(result)
    np.testing.assert_allclose(computed(result, IMAGES), computed(file, IMAGES), rtol=1e-4, atol=2e-5)


def test_a_layer_of_unknown_size_stays() -> None:
    file = layer()
    for axis in (2, 3):
        file.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "side"
    result, decisions = deformable.plugin.apply(file, PassContext(spec=SPEC))
    assert decisions == {"replaced": {}}
    assert operators(result) == ["DeformConv"]


def test_openvino_reads_the_result() -> None:
    file = layer(**CASES["everything"])
    result, _ = deformable.plugin.apply(copied(file), PassContext(spec=SPEC))
    np.testing.assert_allclose(in_openvino(result, IMAGES), computed(file, IMAGES), rtol=1e-4, atol=2e-5)
