from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from tests.converter.passes.building import applied, kinds, node, same, small

from lmconv.passes.activations import plugin

CONSTANTS: dict[str, Any] = {
    "zero": np.float32(0),
    "three": np.full(1, 3, np.float32),
    "six": np.float32(6),
    "sixth": np.float32(1 / 6),
    "five": np.float32(5),
}


def network(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    return small(nodes, {name: np.asarray(value) for name, value in CONSTANTS.items()})


CLIPPED = (node("Add", "x three", "a"), node("Clip", "a zero six", "b"))


@pytest.mark.parametrize("last", [node("Div", "b six", "y"), node("Mul", "b sixth", "y"), node("Mul", "sixth b", "y")])
def test_add_clip_and_division_become_hard_sigmoid(last: onnx.NodeProto) -> None:
    assert same(plugin, network(*CLIPPED, last)) == {"HardSigmoid": 1}


def test_hard_sigmoid_is_recognised_with_the_constant_first() -> None:
    clipped = (node("Add", "three x", "a"), node("Clip", "a zero six", "b"))
    assert same(plugin, network(*clipped, node("Div", "b six", "y"))) == {"HardSigmoid": 1}


@pytest.mark.parametrize("inputs", ["x c", "c x"])
def test_x_times_its_hard_sigmoid_becomes_hard_swish(inputs: str) -> None:
    assert same(plugin, network(*CLIPPED, node("Div", "b six", "c"), node("Mul", inputs, "y"))) == {"HardSwish": 1}


@pytest.mark.parametrize("last", [node("Div", "c six", "y"), node("Mul", "c sixth", "y")])
def test_hard_swish_is_recognised_with_the_division_last(last: onnx.NodeProto) -> None:
    assert same(plugin, network(*CLIPPED, node("Mul", "x b", "c"), last)) == {"HardSwish": 1}


def test_x_times_a_hard_sigmoid_of_one_sixth_becomes_hard_swish() -> None:
    gate = node("HardSigmoid", "x", "a", alpha=1 / 6, beta=0.5)
    assert same(plugin, network(gate, node("Mul", "x a", "y"))) == {"HardSwish": 1}


def test_a_product_with_another_hard_sigmoid_stays() -> None:
    gate = node("HardSigmoid", "x", "a", alpha=0.2, beta=0.5)
    assert same(plugin, network(gate, node("Mul", "x a", "y"))) == {"HardSigmoid": 1, "Mul": 1}


@pytest.mark.parametrize(
    "nodes",
    [
        (node("Add", "x five", "a"), node("Clip", "a zero six", "b"), node("Div", "b six", "y")),
        (node("Add", "x three", "a"), node("Clip", "a zero five", "b"), node("Div", "b six", "y")),
        (node("Add", "x three", "a"), node("Clip", "a - six", "b"), node("Div", "b six", "y")),
        (node("Add", "x three", "a"), node("Clip", "a zero six", "b"), node("Div", "b five", "y")),
        (node("Add", "x three", "a"), node("Clip", "a zero six", "b"), node("Div", "six b", "y")),
    ],
    ids=["another shift", "another limit", "no lower limit", "another divisor", "a quotient the other way round"],
)
def test_similar_operators_with_other_constants_stay(nodes: tuple[onnx.NodeProto, ...]) -> None:
    assert kinds(applied(plugin, network(*nodes))[0]) == {"Add": 1, "Clip": 1, "Div": 1}


def test_a_product_with_the_hard_sigmoid_of_another_value_stays() -> None:
    nodes = [node("Abs", "x", "z"), *CLIPPED, node("Div", "b six", "c"), node("Mul", "z c", "y")]
    assert same(plugin, network(*nodes)) == {"Abs": 1, "HardSigmoid": 1, "Mul": 1}


def test_an_intermediate_value_with_another_reader_is_still_computed() -> None:
    nodes = [*CLIPPED, node("Div", "b six", "c"), node("Mul", "x c", "d"), node("Add", "b d", "y")]
    assert same(plugin, network(*nodes)) == {"Add": 2, "Clip": 1, "HardSwish": 1}
