"""How the compact pass chooses between widths; what it removes is in tests/converter/compaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
from tests.converter.compaction.building import SIZE, Net

from lmconv.graph.facts import parameters
from lmconv.passes.compact import compact
from lmconv.types import Float64, PassContext, landmark_spec

SPEC = landmark_spec("net", "onnx", size=(SIZE, SIZE), landmarks=68)
WIDTHS = (9, 12, 16)
"""Of the layer below: 9 of its 20 channels are alive."""


@pytest.fixture
def model() -> onnx.ModelProto:
    net = Net()
    data = net.node("Relu", net.conv("input", 3, 20, name="a", dead=range(11)))
    return net.head(net.conv(data, 20, 4, name="b"), 4)


def width(model: onnx.ModelProto) -> int:
    return next(int(tensor.dims[0]) for tensor in model.graph.initializer if tensor.name == "a.1")


def timing(milliseconds: dict[int, float]) -> Callable[[Sequence[onnx.ModelProto]], Float64]:
    """A target on which a graph takes as long as the width of its first layer says."""

    def measure(models: Sequence[onnx.ModelProto]) -> Float64:
        noise = np.random.default_rng(0).uniform(0.99, 1.01, (len(models), 50))
        return np.array([[milliseconds[width(model)]] for model in models]) * noise

    return measure


@pytest.mark.parametrize(
    ("milliseconds", "chosen"),
    [
        ({9: 1.0, 12: 1.0, 16: 1.0}, 9),
        ({9: 2.0, 12: 1.0, 16: 1.5}, 12),
        ({9: 2.0, 12: 1.5, 16: 1.0}, 16),
        ({9: 2.0, 12: 1.02, 16: 1.0}, 12),
        ({9: 1.0, 12: 0.97, 16: 1.5}, 9),
    ],
    ids=["alike", "faster in the middle", "faster when wide", "as fast, and smaller", "hardly faster"],
)
def test_the_fastest_width_is_taken_and_of_those_as_fast_the_smallest(
    model: onnx.ModelProto, milliseconds: dict[int, float], chosen: int
) -> None:
    found, decisions = compact(model, PassContext(spec=SPEC, measure=timing(milliseconds)))
    assert width(found) == chosen
    assert decisions["multiple"] == {9: 1, 12: 4, 16: 8}[chosen]
    assert set(decisions["measured"]["faster than multiple 1"]) == {"4", "8", "16"}


def test_where_nothing_can_be_measured_the_smallest_is_taken(model: onnx.ModelProto) -> None:
    found, decisions = compact(model, PassContext(spec=SPEC))
    assert (width(found), decisions["multiple"], "measured" in decisions) == (9, 1, False)


def test_what_was_measured_before_is_not_measured_again(model: onnx.ModelProto) -> None:
    def never(models: Sequence[onnx.ModelProto]) -> Float64:
        raise AssertionError("it is measured")

    found, decisions = compact(model, PassContext(spec=SPEC, measure=never, replay={"multiple": 8}))
    assert (width(found), decisions["multiple"]) == (16, 8)


def test_a_network_without_dead_channels_is_not_measured() -> None:
    def never(models: Sequence[onnx.ModelProto]) -> Float64:
        raise AssertionError("it is measured")

    net = Net()
    model = net.head(net.conv("input", 3, 5, name="a"), 5)
    found, decisions = compact(model, PassContext(spec=SPEC, measure=never))
    assert found is model
    assert parameters(found) == 3 * 5 + 5 + 5 * 2 * 9 + 2
    assert [layer["kept"] for layer in decisions["layers"]] == [{}, {}]


def test_a_target_that_needs_multiples_gets_the_first_where_nothing_can_be_measured(model: onnx.ModelProto) -> None:
    found, decisions = compact(model, PassContext(spec=SPEC, channels=(8, 16)))
    assert (width(found), decisions["multiple"]) == (16, 8)
