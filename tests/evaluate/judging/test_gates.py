"""Gates: passed, failed or not judged."""

from __future__ import annotations

import math

import pytest

from lmconv.judging.gates import judge


def test_a_figure_at_its_limit_passes_and_a_figure_above_fails() -> None:
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
