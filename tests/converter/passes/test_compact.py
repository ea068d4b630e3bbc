"""Choice of widths by the compact pass; tests/converter/compaction tests which channels are removed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import pytest
from tests.converter.compaction.building import SIZE, Net

from lmconv.graph.facts import parameters
from lmconv.passes.compact import compact
from lmconv.types import Float64, PassContext, landmark_spec

SPEC = landmark_spec("net", "onnx", size=(SIZE, SIZE), landmarks=68)
WIDTHS = (9, 12, 16)
"""Possible widths of the layer of `model`: 9 of its 20 channels are alive."""


@pytest.fixture
def model() -> onnx.ModelProto:
    net = Net()
    data = net.node("Relu", net.conv("input", 3, 20, name="a", dead=range(11)))
    return net.head(net.conv(data, 20, 4, name="b"), 4)


def width(model: onnx.ModelProto) -> int:
    return next(int(tensor.dims[0]) for tensor in model.graph.initializer if tensor.name == "a.1")


def timing(milliseconds: Mapping[int, float]) -> Callable[[Sequence[onnx.ModelProto]], list[Float64]]:
    """Returns a timing function in which the width of the first layer determines the time of a graph."""

    def measure(models: Sequence[onnx.ModelProto]) -> list[Float64]:
        noise = np.random.default_rng(0).uniform(0.99, 1.01, (len(models), 9, 20))
        return [milliseconds.get(width(model), 9.0) * each for model, each in zip(models, noise, strict=True)]

    return measure


@pytest.mark.parametrize(
    ("milliseconds", "chosen"),
    [
        ({9: 1.0, 12: 1.0, 16: 1.0}, 9),
        ({9: 2.0, 12: 1.0, 16: 1.5}, 12),
        ({9: 2.0, 12: 1.5, 16: 1.0}, 16),
        ({9: 2.0, 12: 1.02, 16: 1.0}, 12),
        ({9: 1.0, 12: 0.98, 16: 1.5}, 9),
    ],
    ids=["alike", "faster in the middle", "faster when wide", "as fast, and smaller", "hardly faster"],
)
def test_the_smallest_of_the_fastest_widths_is_chosen(
    model: onnx.ModelProto, milliseconds: dict[int, float], chosen: int
) -> None:
    compacted, decisions = compact(model, PassContext(spec=SPEC, measure=timing(milliseconds)))
    assert width(compacted) == chosen
    assert decisions["multiple"] == {9: 1, 12: 4, 16: 8}[chosen]
    assert {"4", "8", "16"} <= set(decisions["measured"]["faster than multiple 1"])


@pytest.mark.parametrize(
    ("milliseconds", "tried"),
    [
        ([8, 4, 2, 2.2], [1, 4, 8, 16]),
        ([8, 4, 2, 1, 1.5], [1, 4, 8, 16, 32]),
        ([8, 4, 2, 1, 0.5, 0.25], [1, 4, 8, 16, 32, 64]),
    ],
    ids=["16 is slower", "32 is slower", "the widest is the fastest"],
)
def test_larger_multiples_are_tried_while_they_are_fast(milliseconds: Sequence[float], tried: Sequence[int]) -> None:
    net = Net()
    data = net.node("Relu", net.conv("input", 3, 70, name="a", dead=range(1, 70)))
    wide = net.head(net.conv(data, 70, 4, name="b"), 4)
    times = dict(zip((1, 4, 8, 16, 32, 64), milliseconds, strict=False))
    _, decisions = compact(wide, PassContext(spec=SPEC, measure=timing(times)))
    assert [1, *map(int, decisions["measured"]["faster than multiple 1"])] == tried


def test_the_smallest_width_is_chosen_without_timing(model: onnx.ModelProto) -> None:
    compacted, decisions = compact(model, PassContext(spec=SPEC))
    assert (width(compacted), decisions["multiple"], "measured" in decisions) == (9, 1, False)


def test_a_recorded_choice_is_not_timed_again(model: onnx.ModelProto) -> None:
    def never(models: Sequence[onnx.ModelProto]) -> list[Float64]:
        raise AssertionError("a graph was timed")

    compacted, decisions = compact(model, PassContext(spec=SPEC, measure=never, replay={"multiple": 8}))
    assert (width(compacted), decisions["multiple"]) == (16, 8)


def test_a_network_without_dead_channels_is_not_timed() -> None:
    def never(models: Sequence[onnx.ModelProto]) -> list[Float64]:
        raise AssertionError("a graph was timed")

    net = Net()
    model = net.head(net.conv("input", 3, 5, name="a"), 5)
    compacted, decisions = compact(model, PassContext(spec=SPEC, measure=never))
    assert compacted is model
    assert parameters(compacted) == 3 * 5 + 5 + 5 * 2 * 9 + 2
    assert [layer["kept"] for layer in decisions["layers"]] == [{}, {}]


def test_the_first_multiple_of_the_target_is_chosen_without_timing(model: onnx.ModelProto) -> None:
    compacted, decisions = compact(model, PassContext(spec=SPEC, channels=(8, 16)))
    assert (width(compacted), decisions["multiple"]) == (16, 8)
