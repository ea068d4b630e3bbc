"""Failure rate and area under the cumulative error curve."""

from __future__ import annotations

import numpy as np
import pytest

from lmconv.judging.curve_figures import auc, failure_rate

# Area under the curve


def test_the_area_of_a_hand_computed_example() -> None:
    # Share of the four faces on the curve: 0 below 2 %, 1/4 from 2 % to 5 %, 2/4 from 5 % to 10 %. The last two faces
    # add no area: (2 * 0 + 3 * 1/4 + 5 * 2/4) / 10.
    assert auc(np.array([2.0, 5.0, 10.0, 12.0])) == pytest.approx(0.325)


def test_the_area_agrees_with_integrating_the_cumulative_curve() -> None:
    errors = np.random.default_rng(0).gamma(4.0, 1.5, 200)
    limits = (np.arange(200_000) + 0.5) * (10.0 / 200_000)
    curve = np.searchsorted(np.sort(errors), limits, side="right") / len(errors)
    assert auc(errors) == pytest.approx(curve.mean(), abs=1e-5)


@pytest.mark.parametrize(("error", "area"), [(0.0, 1.0), (10.0, 0.0), (1e9, 0.0), (np.inf, 0.0)])
def test_the_area_runs_from_one_for_a_perfect_face_to_zero(error: float, area: float) -> None:
    assert auc(np.array([error])) == area


def test_the_area_up_to_another_limit_is_a_fraction_of_that_limit() -> None:
    assert auc(np.array([2.0, 9.0]), 8.0) == pytest.approx(0.375)


# Failure rate


@pytest.mark.parametrize(
    ("errors", "percent"),
    [([1.0, 2.0], 0.0), ([3.0, 10.5, 4.0, 50.0], 50.0), ([10.0], 0.0), ([np.nextafter(10.0, 11.0)], 100.0)],
    ids=["none", "half", "at the limit is no failure", "just above it is one"],
)
def test_the_failure_rate_is_the_percentage_of_faces_above_ten_percent(errors: list[float], percent: float) -> None:
    assert failure_rate(np.array(errors)) == percent


def test_an_infinite_error_is_a_failure() -> None:
    assert failure_rate(np.array([1.0, np.inf])) == 50.0


def test_the_threshold_of_the_failure_rate_can_be_chosen() -> None:
    assert failure_rate(np.array([2.0, 9.0]), 8.0) == 50.0
