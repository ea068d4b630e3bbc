from __future__ import annotations

import numpy as np
import onnx
import pytest
from tests.converter.passes.building import node, same, small

from lmconv.passes.resize import plugin

MODES = [
    {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    {"mode": "cubic", "coordinate_transformation_mode": "pytorch_half_pixel"},
]


def computed(size: tuple[int, int], **attributes: str) -> onnx.ModelProto:
    nodes = [
        node("Shape", "x", "shape"),
        node("Slice", "shape zero two", "first"),
        node("Concat", "first size", "sizes", axis=0),
        node("Resize", "x - - sizes", "y", **attributes),
    ]
    return small(nodes, {"zero": np.array([0]), "two": np.array([2]), "size": np.array(size)})


@pytest.mark.parametrize("attributes", MODES, ids=["nearest", "align_corners", "half_pixel", "cubic"])
@pytest.mark.parametrize("size", [(12, 12), (18, 6)])
def test_whole_factors_replace_a_computed_size(size: tuple[int, int], attributes: dict[str, str]) -> None:
    assert same(plugin, computed(size, **attributes), tolerance=0) == {"Resize": 1}


@pytest.mark.parametrize("size", [(9, 9), (3, 3), (12, 10)])
def test_computed_sizes_with_other_factors_stay(size: tuple[int, int]) -> None:
    counts = same(plugin, computed(size, mode="linear"))
    assert counts == {"Shape": 1, "Slice": 1, "Concat": 1, "Resize": 1}


def test_constant_factors_stay() -> None:
    model = small([node("Resize", "x - scales", "y")], {"scales": np.array([1, 1, 2, 2], np.float32)})
    assert same(plugin, model) == {"Resize": 1}
