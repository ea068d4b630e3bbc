from __future__ import annotations

import numpy as np
import onnx
import pytest
from tests.converter.passes.building import applied, node, normal, same, small

from lmconv.passes.gates import plugin

PLACES = np.array([2, 3])


def excited(mean: onnx.NodeProto, product: str = "x gate", axes: object = PLACES) -> onnx.ModelProto:
    nodes = [mean, node("Conv", "mean weight", "logit"), node("Sigmoid", "logit", "gate"), node("Mul", product, "y")]
    return small(nodes, {"axes": np.asarray(axes), "weight": normal(8, 8, 1, 1)})


@pytest.mark.parametrize("axes", [[2, 3], [3, 2], [-1, -2]])
@pytest.mark.parametrize("product", ["x gate", "gate x"])
def test_the_mean_becomes_a_pooling_and_the_gate_is_resized(axes: list[int], product: str) -> None:
    counts = same(plugin, excited(node("ReduceMean", "x axes", "mean"), product, axes))
    assert counts == {"GlobalAveragePool": 1, "Conv": 1, "Sigmoid": 1, "Resize": 1, "Mul": 1}


def test_the_resized_gate_has_the_batch_axis_of_the_input() -> None:
    model, decisions = applied(plugin, excited(node("ReduceMean", "x axes", "mean")))
    gate = model.graph.value_info[0]
    assert [dim.dim_param or dim.dim_value for dim in gate.type.tensor_type.shape.dim] == ["N", 8, 6, 6]
    assert decisions == {"means": 1, "gates": 1}


@pytest.mark.parametrize(("axes", "keep"), [([1], 1), ([2], 1), ([2, 3], 0)])
def test_a_mean_over_other_axes_stays(axes: list[int], keep: int) -> None:
    model = small([node("ReduceMean", "x axes", "y", keepdims=keep)], {"axes": np.array(axes)})
    assert same(plugin, model) == {"ReduceMean": 1}


@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (8, 1, 1), (1,)])
def test_constant_factors_stay(shape: tuple[int, ...]) -> None:
    assert same(plugin, small([node("Mul", "x factors", "y")], {"factors": normal(*shape)})) == {"Mul": 1}


def test_a_product_of_1x1_tensors_stays() -> None:
    nodes = [node("GlobalAveragePool", "x", "mean"), node("Sigmoid", "mean", "gate"), node("Mul", "mean gate", "y")]
    assert same(plugin, small(nodes, {})) == {"GlobalAveragePool": 1, "Sigmoid": 1, "Mul": 1}
