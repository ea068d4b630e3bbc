from __future__ import annotations

import numpy as np
import onnx
import pytest
from tests.converter.passes.building import applied, kinds, node, normal, same, small

from lmconv.passes.prelu import plugin
from lmconv.types import Float32

CHANNELS = 8
BELOW_ONE = np.linspace(-1.5, 1, CHANNELS, dtype=np.float32)
ANY = np.linspace(-0.5, 2, CHANNELS, dtype=np.float32)
BLOCKED = {"Conv": 1, "Relu": 1, "Add": 1}
"""Number of nodes by operator if no slope is above one."""


def network(slopes: Float32, channels: int = CHANNELS) -> onnx.ModelProto:
    return small([node("PRelu", "x slopes", "y")], {"slopes": slopes}, shape=("N", channels, 6, 6))


@pytest.mark.parametrize(
    ("slopes", "form"), [(BELOW_ONE, BLOCKED), (ANY, BLOCKED | {"Conv": 2})], ids=["all below one", "some above one"]
)
@pytest.mark.parametrize("shape", [(-1, 1, 1), (1, -1, 1, 1)], ids=["(C, 1, 1)", "(1, C, 1, 1)"])
def test_slopes_per_channel_become_depthwise_convolutions(
    slopes: Float32, form: dict[str, int], shape: tuple[int, ...]
) -> None:
    assert same(plugin, network(slopes.reshape(shape))) == form


def test_the_relu_follows_the_convolution_if_no_slope_is_above_one() -> None:
    model, _ = applied(plugin, network(BELOW_ONE.reshape(-1, 1, 1)))
    assert [node.op_type for node in model.graph.node] == ["Conv", "Relu", "Add"]


def between(kind: str, **attributes: object) -> onnx.ModelProto:
    """A PRelu between a convolution and another node; some slopes are above one."""
    nodes = [
        node("Conv", "x w b", "a"),
        node("PRelu", "a slopes", "p"),
        node(kind, "p v" if kind == "Conv" else "p", "y", **attributes),
    ]
    reads = 1 if attributes.get("group", 1) == CHANNELS else CHANNELS
    constants = {"w": normal(CHANNELS, CHANNELS, 1, 1), "b": normal(CHANNELS), "slopes": ANY.reshape(-1, 1, 1)}
    return small(nodes, constants | ({"v": normal(CHANNELS, reads, 3, 3)} if kind == "Conv" else {}))


@pytest.mark.parametrize("group", [1, CHANNELS], ids=["dense", "depthwise"])
def test_slopes_above_one_are_inverted_between_convolutions(group: int) -> None:
    assert same(plugin, between("Conv", group=group)) == {"Conv": 3, "Relu": 1, "Add": 1}


def test_slopes_above_one_are_not_inverted_before_another_operator() -> None:
    assert same(plugin, between("Abs")) == {"Conv": 3, "Relu": 1, "Add": 1, "Abs": 1}


@pytest.mark.parametrize("channels", [6, 13])
def test_channels_that_4_does_not_divide_are_convolved_too(channels: int) -> None:
    slopes = np.linspace(-0.5, 2, channels, dtype=np.float32).reshape(-1, 1, 1)
    assert same(plugin, network(slopes, channels)) == BLOCKED | {"Conv": 2}


@pytest.mark.parametrize(
    ("slope", "kind"), [(0.25, "LeakyRelu"), (-0.5, "LeakyRelu"), (0.0, "Relu"), (1.0, "Identity")]
)
@pytest.mark.parametrize("shape", [(1,), (1, 1, 1), (CHANNELS, 1, 1), (CHANNELS, 6, 6)])
def test_one_slope_for_all_channels_becomes_a_simpler_operator(slope: float, kind: str, shape: tuple[int, ...]) -> None:
    assert same(plugin, network(np.full(shape, slope, np.float32))) == {kind: 1}


@pytest.mark.parametrize("shape", [(CHANNELS, 6, 6), (6,), (1, 6, 1)], ids=["every place", "every column", "every row"])
def test_slopes_that_vary_with_the_position_stay(shape: tuple[int, ...]) -> None:
    assert same(plugin, network(normal(*shape))) == {"PRelu": 1}


def test_slopes_for_a_vector_input_stay() -> None:
    model = small([node("PRelu", "x slopes", "y")], {"slopes": BELOW_ONE}, shape=("N", CHANNELS))
    assert same(plugin, model) == {"PRelu": 1}


def test_computed_slopes_stay() -> None:
    nodes = [node("Abs", "x", "slopes"), node("PRelu", "x slopes", "y")]
    assert same(plugin, small(nodes, {})) == {"Abs": 1, "PRelu": 1}


def test_shared_slopes_serve_each_reader() -> None:
    slopes = BELOW_ONE.reshape(-1, 1, 1)
    nodes = [node("PRelu", "x slopes", "a"), node("PRelu", "a slopes", "y")]
    assert same(plugin, small(nodes, {"slopes": slopes})) == {kind: 2 * count for kind, count in BLOCKED.items()}


def test_the_result_keeps_its_name_for_readers_and_graph_outputs() -> None:
    slopes = BELOW_ONE.reshape(-1, 1, 1)
    nodes = [node("PRelu", "x slopes", "a"), node("Abs", "a", "b"), node("Add", "a b", "y")]
    counts = same(plugin, small(nodes, {"slopes": slopes}, outputs=("a", "y")))
    assert counts == {"Conv": 1, "Relu": 1, "Add": 2, "Abs": 1}


def test_the_decisions_count_the_new_operators() -> None:
    nodes = [node("PRelu", "x slopes", "a"), node("PRelu", "a quarter", "y")]
    constants = {"slopes": BELOW_ONE.reshape(-1, 1, 1), "quarter": np.full(1, 0.25, np.float32)}
    model, decisions = applied(plugin, small(nodes, constants))
    assert decisions == {"Conv": 1, "LeakyRelu": 1}
    assert "PRelu" not in kinds(model)
    assert {"slopes", "quarter"}.isdisjoint(tensor.name for tensor in model.graph.initializer)
