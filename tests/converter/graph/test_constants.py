"""Constant nodes as initializers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from tests.converter.passes.building import node, normal, run, small

from lmconv.graph.constants import constant_value, lift_constants

SPARSE = helper.make_sparse_tensor(
    numpy_helper.from_array(np.array([3, 4], np.float32), "values"),
    numpy_helper.from_array(np.array([[0, 1], [1, 0]])),
    [2, 2],
)
FLAT = helper.make_sparse_tensor(
    numpy_helper.from_array(np.array([3, 4], np.float32), "values"), numpy_helper.from_array(np.array([1, 2])), [2, 2]
)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"value": numpy_helper.from_array(np.array([1, 2], np.float16))}, np.array([1, 2], np.float16)),
        ({"value_float": 1.5}, np.array(1.5, np.float32)),
        ({"value_floats": [1.5, 2.0]}, np.array([1.5, 2], np.float32)),
        ({"value_int": 3}, np.array(3, np.int64)),
        ({"value_ints": [3, 4]}, np.array([3, 4], np.int64)),
        ({"value_string": "a"}, np.array(b"a", object)),
        ({"value_strings": ["a", "b"]}, np.array([b"a", b"b"], object)),
        ({"sparse_value": SPARSE}, np.array([[0, 3], [4, 0]], np.float32)),
        ({"sparse_value": FLAT}, np.array([[0, 3], [4, 0]], np.float32)),
    ],
)
def test_every_kind_of_constant_has_its_value_and_type(attributes: dict[str, Any], expected: Any) -> None:
    value = constant_value(helper.make_node("Constant", [], ["c"], **attributes))
    assert (value.dtype, value.shape) == (np.asarray(expected).dtype, np.asarray(expected).shape)
    np.testing.assert_array_equal(value, expected)


def test_constant_nodes_become_initializers_and_the_graph_computes_the_same() -> None:
    model = small([node("Constant", "", "k", value_floats=[0.5]), node("Mul", "x k", "y")], {})
    x = normal(2, 8, 6, 6)
    before = run(model, x)
    lift_constants(model.graph)
    assert [item.op_type for item in model.graph.node] == ["Mul"]
    np.testing.assert_array_equal(run(model, x), before)
