from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.helpers import tiny_onnx

from lmconv.building import trial
from lmconv.building.plain import plain_graph
from lmconv.building.recipe import resolve
from lmconv.building.request import Choices
from lmconv.building.steps import form
from lmconv.building.trial import Timings, key, raced, structure
from lmconv.graph.facts import copied
from lmconv.plugins import PASSES, TARGETS
from lmconv.sources import resolve as source
from lmconv.types import Float64, Precision, Variant

ONNX = TARGETS.load("onnx")
OPENVINO = TARGETS.load("openvino")


def changed(index: int, change: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    """Returns the tiny network with one constant changed."""
    model = tiny_onnx()
    tensor = model.graph.initializer[index]
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))
    return model


def test_the_structure_of_a_graph_does_not_depend_on_the_values_of_weights() -> None:
    assert structure(changed(0, lambda weights: 2 * weights)) == structure(tiny_onnx())


def test_the_structure_of_a_graph_depends_on_shapes_and_attributes() -> None:
    strided = tiny_onnx()
    strided.graph.node[0].attribute.append(onnx.helper.make_attribute("dilations", [1, 1]))
    others = [
        strided,
        changed(0, lambda weights: weights[..., :1]),
        changed(0, lambda weights: weights.astype(np.float16)),
    ]
    assert len({structure(model) for model in (tiny_onnx(), *others)}) == 4


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (np.array([1, 64]), np.array([64, 1]), False),
        (np.array(3, np.uint8), np.array(5, np.uint8), True),
        (np.array(0, np.uint8), np.array(5, np.uint8), False),
        (np.array([7], np.int32), np.array([9], np.int32), True),
    ],
    ids=["a shape", "a zero point", "a zero point of zero", "an int8 bias"],
)
def test_the_structure_of_a_graph_depends_on_some_integers(one: np.ndarray, other: np.ndarray, equal: bool) -> None:
    models = [tiny_onnx(), tiny_onnx()]
    for model, value in zip(models, (one, other), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(value, "value"))
    assert (structure(models[0]) == structure(models[1])) is equal


def test_only_times_of_one_race_are_compared() -> None:
    first, second, third = (("onnx", Precision.FP32, name) for name in "abc")
    timings = Timings([{first: np.ones((9, 20)), second: np.ones((9, 20))}, {third: np.ones((9, 20))}])
    assert timings.together([second, first]) is not None
    assert timings.together([first, third]) is None


def test_equal_graphs_are_timed_once_and_known_graphs_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_onnx().SerializeToString())
    plain = plain_graph(source.resolve(str(path)), tmp_path)
    calls: list[int] = []

    def timed(artifact: object, graphs: Sequence[object], *options: object, **others: object) -> list[Float64]:
        calls.append(len(graphs))
        return [np.ones((9, 20))] * len(graphs)

    monkeypatch.setattr(trial, "timed_together", timed)
    other = copied(plain.model)
    other.graph.node[0].attribute.append(onnx.helper.make_attribute("dilations", [1, 1]))
    timings = Timings()
    for models in ([plain.model, copied(plain.model), other], [other, plain.model]):
        assert len(raced(timings, plain.artifact, ONNX, models, Precision.FP32)) == len(models)
    assert calls == [2]
    assert timings.together([key(ONNX, Precision.FP32, plain.model), key(ONNX, Precision.FP32, other)]) is not None


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
def test_fp16_on_a_cpu_shares_the_timed_graphs_of_fp32(precision: Precision) -> None:
    fp32, other = (
        resolve(Variant(target="onnx", precision=each), ONNX, Choices()) for each in (Precision.FP32, precision)
    )
    assert (fp32.timed == other.timed) is (precision == Precision.FP16)
    engines = TARGETS.load("tensorrt")
    assert "float16" in resolve(Variant(target="tensorrt", precision=Precision.FP16), engines, Choices()).timed


def test_int8_times_widths_that_its_instructions_can_use_and_pairs_in_float() -> None:
    fp32, int8 = (
        resolve(Variant(target="onnx", precision=each), ONNX, Choices()) for each in (Precision.FP32, Precision.INT8)
    )
    compact, linear = PASSES.load("compact"), PASSES.load("linear")
    assert form(fp32, compact, ONNX).multiples == (1, 4, 8, 16, 32, 64)
    assert form(int8, compact, ONNX).multiples == (4, 8, 16, 32, 64)
    assert form(int8, compact, ONNX).later[-1] == "int8"
    assert "int8" not in form(int8, linear, ONNX).later


def test_a_cpu_without_bf16_times_bf16_as_fp32() -> None:
    import openvino

    able = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert OPENVINO.floats(Precision.BF16) == (Precision.BF16 if able else Precision.FP32)
    assert OPENVINO.floats(Precision.INT8) == Precision.FP32
