from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from tests.converter.passes.building import SPEC, applied, kinds, node, normal, same, small

from lmconv.passes.linear import linear, plugin
from lmconv.types import Float32, Float64, PassContext


def pair(
    first: Mapping[str, Any], second: Mapping[str, Any], weights: Sequence[tuple[int, ...]], *, bias: str = "12"
) -> onnx.ModelProto:
    """Two convolutions, `first` and `second` with these attributes; `bias` names those that have a bias."""
    shapes = {"w1": weights[0], "w2": weights[1], "b1": weights[0][:1], "b2": weights[1][:1]}
    inputs = ["x w1 b1" if "1" in bias else "x w1", "a w2 b2" if "2" in bias else "a w2"]
    nodes = [node("Conv", inputs[0], "a", **first), node("Conv", inputs[1], "y", **second)]
    return small(nodes, {name: normal(*shape) for name, shape in shapes.items() if name in " ".join(inputs)})


PADDED = {"pads": [1] * 4}


@pytest.mark.parametrize("bias", ["12", "1", "2", ""])
@pytest.mark.parametrize(
    ("first", "second", "weights"),
    [
        ({}, {}, [(4, 8, 1, 1), (6, 4, 1, 1)]),
        ({"strides": [2, 2]}, {}, [(7, 8, 1, 1), (6, 7, 1, 1)]),
        ({"strides": [2, 2], **PADDED}, {}, [(7, 8, 3, 3), (6, 7, 1, 1)]),
        ({}, {"strides": [2, 2], "dilations": [2, 2]}, [(9, 8, 1, 1), (6, 9, 2, 2)]),
    ],
    ids=["both 1x1", "strides first", "kernel first, padded", "kernel second"],
)
def test_two_convolutions_become_one(
    first: Mapping[str, Any], second: Mapping[str, Any], weights: Sequence[tuple[int, ...]], bias: str
) -> None:
    assert same(everything, pair(first, second, weights, bias=bias)) == {"Conv": 1}


def test_a_padded_convolution_absorbs_a_layer_without_bias_only() -> None:
    weights = [(12, 8, 1, 1), (6, 12, 3, 3)]
    assert same(plugin, pair({}, PADDED, weights, bias="2")) == {"Conv": 1}
    assert same(plugin, pair({}, PADDED, weights)) == {"Conv": 2}


@pytest.mark.parametrize(
    ("first", "second", "weights"),
    [
        ({"group": 8}, {}, [(8, 1, 1, 1), (6, 8, 1, 1)]),
        ({}, {"group": 4}, [(8, 8, 1, 1), (8, 2, 1, 1)]),
        ({}, {"strides": [2, 2]}, [(8, 8, 3, 3), (6, 8, 1, 1)]),
        ({}, {}, [(8, 8, 2, 2), (6, 8, 2, 2)]),
        ({}, PADDED, [(8, 8, 3, 3), (6, 8, 1, 1)]),
    ],
    ids=["grouped first", "grouped second", "strides after a kernel", "two kernels", "padded 1x1"],
)
def test_other_convolutions_stay(
    first: Mapping[str, Any], second: Mapping[str, Any], weights: Sequence[tuple[int, ...]]
) -> None:
    assert same(plugin, pair(first, second, weights)) == {"Conv": 2}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (node("Gemm", "x w1 b1", "a"), node("Gemm", "a w2 b2", "y")),
        (node("Gemm", "x t1 b1", "a", transB=1, alpha=0.5, beta=2.0), node("Gemm", "a w2", "y", alpha=3.0)),
        (node("MatMul", "x w1", "a"), node("Gemm", "a w2 b2", "y")),
        (node("Gemm", "x w1 b1", "a"), node("MatMul", "a w2", "y")),
        (node("MatMul", "x w1", "a"), node("MatMul", "a w2", "y")),
    ],
    ids=["Gemm", "transposed and scaled", "MatMul first", "MatMul second", "MatMul"],
)
def test_two_linear_layers_become_one(first: onnx.NodeProto, second: onnx.NodeProto) -> None:
    weights = {"w1": normal(5, 7), "t1": normal(7, 5), "b1": normal(7), "w2": normal(7, 4), "b2": normal(4)}
    read = {*first.input, *second.input}
    model = small([first, second], {name: value for name, value in weights.items() if name in read}, shape=("N", 5))
    assert sum(same(plugin, model).values()) == 1


def test_products_of_more_axes_become_one() -> None:
    nodes = [node("MatMul", "x w1", "a"), node("MatMul", "a w2", "y")]
    assert same(plugin, small(nodes, {"w1": normal(6, 5), "w2": normal(5, 4)})) == {"MatMul": 1}


def test_a_chain_becomes_one_layer() -> None:
    constants = {"w1": normal(6, 8, 1, 1), "b1": normal(6), "w2": normal(4, 6, 1, 1), "w3": normal(4, 4, 1, 1)}
    nodes = [node("Conv", "x w1 b1", "a"), node("Conv", "a w2", "b"), node("Conv", "b w3", "y")]
    assert same(plugin, small(nodes, constants)) == {"Conv": 1}


def test_a_bias_from_an_earlier_merge_is_not_read_by_a_padded_layer() -> None:
    constants = {"w1": normal(8, 8, 1, 1), "b1": normal(8), "w2": normal(8, 8, 1, 1), "w3": normal(4, 8, 3, 3)}
    nodes = [node("Conv", "x w1 b1", "a"), node("Conv", "a w2", "b"), node("Conv", "b w3", "y", **PADDED)]
    assert same(plugin, small(nodes, constants), tolerance=1e-4) == {"Conv": 2}


@pytest.mark.parametrize("reader", ["a second node", "an output"])
def test_a_value_with_another_reader_stays(reader: str) -> None:
    nodes = [node("Conv", "x w1", "a"), node("Conv", "a w2", "y"), node("Relu", "a", "z")]
    outputs = ("y", "z") if reader == "a second node" else ("y", "a")
    constants = {"w1": normal(4, 8, 1, 1), "w2": normal(4, 4, 1, 1)}
    model = small(nodes[: 3 if reader == "a second node" else 2], constants, outputs=outputs)
    assert same(plugin, model)["Conv"] == 2


def test_two_transposes_become_one_or_none() -> None:
    nodes = [node("Transpose", "x", "a", perm=[0, 2, 3, 1]), node("Transpose", "a", "y", perm=[0, 2, 1, 3])]
    assert same(plugin, small(nodes, {})) == {"Transpose": 1}
    nodes = [node("Transpose", "x", "a", perm=[0, 2, 3, 1]), node("Transpose", "a", "y", perm=[0, 3, 1, 2])]
    assert same(plugin, small(nodes, {})) == {"Identity": 1}


def dear(count: int) -> onnx.ModelProto:
    """Returns projections and expansions with a Relu after each pair; merged, they have more multiplications."""
    nodes, constants = list[onnx.NodeProto](), dict[str, Float32]()
    data = "x"
    for number in range(count):
        down, up, out = f"down{number}", f"up{number}", "y" if number == count - 1 else f"relu{number}"
        constants |= {f"w{down}": normal(3, 8, 1, 1), f"w{up}": normal(8, 3, 1, 1)}
        nodes += [node("Conv", f"{data} w{down}", down), node("Conv", f"{down} w{up}", up), node("Relu", up, out)]
        data = out
    return small(nodes, constants)


def timing(milliseconds: Mapping[int, float]) -> Callable[[Sequence[onnx.ModelProto]], list[Float64]]:
    """Returns a timing function in which the number of convolutions determines the time of a graph."""

    def measure(models: Sequence[onnx.ModelProto]) -> list[Float64]:
        noise = np.random.default_rng(0).uniform(0.999, 1.001, (len(models), 9, 20))
        return [milliseconds[kinds(model)["Conv"]] * each for model, each in zip(models, noise, strict=True)]

    return measure


def merging_is_faster(models: Sequence[onnx.ModelProto]) -> list[Float64]:
    return [np.full((9, 20), 1 / (1 + index)) for index in range(len(models))]


everything = replace(plugin, apply=lambda model, _: linear(model, PassContext(spec=SPEC, measure=merging_is_faster)))
"""The pass on a machine where every merge is faster."""


@pytest.mark.parametrize(
    ("milliseconds", "left"),
    [({4: 1.0, 3: 0.9, 2: 0.8}, 2), ({4: 1.0, 3: 0.9, 2: 1.1}, 3), ({4: 1.0, 3: 1.0, 2: 1.2}, 4)],
    ids=["all are faster", "one is faster", "none is faster"],
)
def test_pairs_that_add_multiplications_are_merged_where_that_is_faster(
    milliseconds: Mapping[int, float], left: int
) -> None:
    model, decisions = linear(dear(2), PassContext(spec=SPEC, measure=timing(milliseconds)))
    assert kinds(model)["Conv"] == left
    assert len(decisions["merged"]) == 4 - left
    assert len(decisions["left"]) == left - 2


def test_pairs_that_add_multiplications_stay_without_timing() -> None:
    model, decisions = applied(plugin, dear(2))
    assert (kinds(model)["Conv"], decisions["merged"], len(decisions["left"])) == (4, [], 2)


def test_a_recorded_choice_is_repeated_without_timing() -> None:
    def never(models: Sequence[onnx.ModelProto]) -> list[Float64]:
        raise AssertionError("a graph was timed")

    model, decisions = linear(
        dear(2), PassContext(spec=SPEC, measure=never, replay={"merged": ["down1"], "left": ["down0"]})
    )
    assert (kinds(model)["Conv"], decisions) == (3, {"merged": ["down1"], "left": ["down0"]})


def test_no_more_graphs_are_timed_than_allowed() -> None:
    seen: list[int] = []

    def measure(models: Sequence[onnx.ModelProto]) -> list[Float64]:
        seen.append(len(models))
        return [np.ones((9, 20))] * len(models)

    linear(dear(9), PassContext(spec=SPEC, measure=measure))
    assert seen == [5]
