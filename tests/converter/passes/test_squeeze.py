"""A Squeeze with its axes gives the same values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from tests.converter.opsets.building import computed, copied, in_openvino, model, node, normal

from lmconv.passes.squeeze import squeeze
from lmconv.targets.openvino import last
from lmconv.types import PassContext, landmark_spec

CONTEXT = PassContext(spec=landmark_spec("small", "small", size=(6, 6), landmarks=2))
HEAD = [
    node("GlobalAveragePool", ["x"], ["mean"]),
    node("Squeeze", ["mean"], ["flat"]),
    node("MatMul", ["flat", "w"], ["y"]),
]


@pytest.mark.parametrize("shape", [("N", 4, 6, 6), (2, 4, 6, 6)])
def test_a_free_batch_stays(shape: Sequence[int | str]) -> None:
    before = model(HEAD, shape, w=normal(4, 3, seed=2))
    assert last(before) == ("squeeze",)
    after, decisions = squeeze(copied(before), CONTEXT)
    assert decisions == {"replaced": 1}
    assert last(after) == ()
    images = normal(2, 4, 6, 6)
    np.testing.assert_array_equal(computed(after, images), computed(before, images))
    np.testing.assert_allclose(in_openvino(after, images), computed(before, images), atol=1e-6)


def test_a_value_of_unknown_rank_stays() -> None:
    nodes = [
        node("Shape", ["x"], ["sides"]),
        node("NonZero", ["sides"], ["places"]),
        node("Gather", ["sides", "places"], ["row"]),
        node("Reshape", ["row", "flat"], ["shape"]),
        node("Reshape", ["x", "shape"], ["same"]),
        node("Squeeze", ["same"], ["y"]),
    ]
    before = model(nodes, ("N", 4, 6, 6), flat=np.array([-1], np.int64))
    assert squeeze(before, CONTEXT)[1] == {"replaced": 0}
