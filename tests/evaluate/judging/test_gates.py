from __future__ import annotations

import math

import pytest

from lmconv.judging.gates import judge, limits
from lmconv.types import Precision


@pytest.mark.parametrize(
    ("target", "precision", "expected"),
    [
        ("onnx", Precision.FP32, {"max_abs": 1e-5}),
        ("openvino", Precision.FP16, {"max_px": 0.1}),
        ("openvino", Precision.BF16, {"ion_loss": 5.0}),
        ("openvino", Precision.INT8, {"ion_loss": 5.0}),
        ("tensorrt", Precision.INT8, {"ion_loss": 5.0}),
        ("tensorrt", Precision.FP32, {"max_abs": 1e-4}),
        ("onnx", Precision.INT8, {"ion_loss": 10.0}),
    ],
)
def test_every_precision_has_a_default_gate(target: str, precision: Precision, expected: dict[str, float]) -> None:
    assert limits(target, precision, {}) == expected


def test_what_the_user_gives_replaces_a_gate_or_adds_one() -> None:
    given = {"max_abs": 1e-6, "drift": 0.5, "max_px": None}
    assert limits("onnx", Precision.FP32, given) == {"max_abs": 1e-6, "drift": 0.5}


def test_a_figure_at_its_limit_passes_and_one_above_fails() -> None:
    assert judge({"max_px": 0.1}, {"max_px": 0.1}) == {"max_px": "passed"}
    assert judge({"max_px": 0.1}, {"max_px": 0.1001}) == {"max_px": "failed"}


@pytest.mark.parametrize("figure", [math.inf, math.nan])
def test_a_figure_that_is_not_finite_fails(figure: float) -> None:
    assert judge({"ion_loss": 5.0}, {"ion_loss": figure}) == {"ion_loss": "failed"}


def test_a_gate_without_its_figure_is_not_judged() -> None:
    assert judge({"ion_loss": 5.0, "drift": 1.0}, {"ion_loss": None}) == {
        "ion_loss": "not judged",
        "drift": "not judged",
    }
