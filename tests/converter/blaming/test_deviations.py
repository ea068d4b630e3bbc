"""Differences at every value that a network and an artefact both compute, and the node that is blamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from lmconv.blaming.blame import AGREEING, FLOOR, alone, first_of
from lmconv.blaming.deviations import Sides, _without_factors
from lmconv.inference.probe import OrtProbe
from lmconv.types import Arrays

INPUTS = {"input": np.random.default_rng(0).random((4, 3, 8, 8), np.float32)}


def _graph(weight: float = 0.5, factor: float = 1.0, shift: float = 0.0) -> onnx.ModelProto:
    """Product, sum, Relu, mean, product: `weight` changes the first product, `shift` the sum, `factor` channel 1."""
    model: onnx.ModelProto = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 18]>
        tiny (float[N, 3, 8, 8] input) => (float[N, 3, 1, 1] landmarks)
        <float[3, 1, 1] factors = {{1, {factor}, 1}}, float[3, 1, 1] back = {{1, {1 / factor}, 1}},
         float[1] weight = {{{weight}}}, float[1] shift = {{{0.1 + shift}}}, float[1] half = {{0.5}}> {{
            scaled = Mul (input, factors)
            a = Mul (scaled, weight)
            b = Add (a, shift)
            c = Relu (b)
            d = GlobalAveragePool (c)
            unscaled = Mul (d, back)
            landmarks = Mul (unscaled, half)
        }}"""
    )
    return model


def _sides(artefact: onnx.ModelProto, *, equalised: bool = False) -> Sides:
    graph = _graph()
    return Sides(graph=graph, inputs=INPUTS, artefact=OrtProbe(artefact), artefact_inputs=INPUTS, equalised=equalised)


def test_equal_graphs_differ_nowhere() -> None:
    deviations = _sides(_graph()).deviations()
    assert [found.name for found in deviations] == ["scaled", "a", "b", "c", "d", "unscaled", "landmarks"]
    assert {found.off for found in deviations} == {0.0}
    assert first_of(deviations, FLOOR) is None


@pytest.mark.parametrize(("changed", "name"), [(_graph(weight=0.6), "a"), (_graph(shift=0.1), "b")])
def test_the_first_node_that_differs_is_blamed(changed: onnx.ModelProto, name: str) -> None:
    found = first_of(_sides(changed).deviations(), FLOOR)
    assert found
    assert (found.name, found.before) == (name, 0.0)


def test_a_difference_is_passed_on_through_values_that_only_the_network_computes() -> None:
    changed = _graph(weight=0.6)
    for node in changed.graph.node:  # the artefact has other names for two values in between
        node.input[:] = [f"{name}_other" if name in ("b", "c") else name for name in node.input]
        node.output[:] = [f"{name}_other" if name in ("b", "c") else name for name in node.output]
    deviations = {found.name: found for found in _sides(changed).deviations()}
    assert "c" not in deviations
    assert deviations["d"].before == deviations["a"].relative


def test_a_value_of_another_shape_is_left_out() -> None:
    changed = _graph()
    changed.graph.node[1].output[0] = "elsewhere"
    changed.graph.node[2].input[0] = "elsewhere"
    changed.graph.node.append(onnx.helper.make_node("Flatten", ["c"], ["a"]))
    assert "a" not in [found.name for found in _sides(changed).deviations()]


def test_factors_of_channels_are_no_difference_in_int8_only() -> None:
    changed = _graph(factor=8.0)
    changed.graph.initializer[3].CopyFrom(
        onnx.numpy_helper.from_array(np.array([0.1, 0.8, 0.1], np.float32).reshape(3, 1, 1), "shift")
    )
    float_found = first_of(_sides(changed).deviations(), FLOOR)
    assert float_found
    assert float_found.name == "scaled"
    deviations = _sides(changed, equalised=True).deviations()
    assert max(found.relative for found in deviations) < 0.05


class Fusing(OrtProbe):
    """A runtime that computes another graph unless several values are read at the same time."""

    def __init__(self, fused: onnx.ModelProto, unfused: onnx.ModelProto) -> None:
        super().__init__(fused)
        self._unfused = OrtProbe(unfused)

    def run(self, inputs: Arrays, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        return self._unfused.run(inputs, names) if len(names) > 1 else super().run(inputs, names)


def test_a_faint_channel_never_differs_by_more_than_its_power_in_int8() -> None:
    expected = np.random.default_rng(0).random((4, 3, 8, 8)) * np.array([1.0, 1e-3, 0]).reshape(3, 1, 1)
    noise = np.random.default_rng(1).normal(size=expected.shape)
    actual = (expected + 1e-3 * noise) * np.array([1.0, 1e4, 1e4]).reshape(3, 1, 1)
    off, size = ((values**2).mean((0, 2, 3)) for values in (_without_factors(actual, expected) - expected, expected))
    assert off[0] < 1e-5
    assert (off <= size).all()


def test_values_are_read_one_by_one_where_reading_all_hides_the_difference() -> None:
    fusing = Fusing(_graph(shift=0.1), _graph())
    sides = Sides(graph=_graph(), inputs=INPUTS, artefact=fusing, artefact_inputs=INPUTS)
    assert first_of(sides.deviations(), AGREEING) is None
    found = alone(sides, FLOOR)
    assert found
    assert found.name == "b"
