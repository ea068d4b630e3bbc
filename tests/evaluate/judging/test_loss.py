"""Budgets: verdict within, outside, or too few faces."""

import numpy as np
import pytest

from lmconv.judging.loss import Budget, Loss, Losses, loss


def lost(mean: float, deviation: float, n: int, drift: float = 0.3) -> Loss:
    """Returns the loss of n faces whose rise of ION has exactly this mean and deviation, ION points."""
    signs = np.where(np.arange(n) % 2, 1.0, -1.0)
    return loss(Losses(ion=mean + deviation * signs, drift=np.full(n, drift)))


@pytest.mark.parametrize(
    ("mean", "deviation", "drift", "strict", "verdict"),
    [
        (0.01, 0.05, 0.3, False, "within"),
        (0.04, 0.0, 0.3, False, "outside"),
        (0.01, 0.05, 0.5, False, "outside"),
        (0.025, 0.5, 0.3, False, "too few faces"),
        (0.01, 0.2, 0.3, False, "within"),
        (0.01, 0.2, 0.3, True, "too few faces"),
        (-0.02, 0.1, 0.3, True, "within"),
        (float("nan"), 0.0, 0.3, False, "outside"),
    ],
)
def test_a_budget_judges_the_mean_and_the_end_of_its_interval(
    mean: float, deviation: float, drift: float, strict: bool, verdict: str
) -> None:
    assert Budget(ion=0.03, drift=0.4, strict=strict).judge(lost(mean, deviation, 100, drift))[0] == verdict


def test_the_reported_number_of_faces_suffices_for_a_verdict() -> None:
    budget = Budget(ion=0.03)
    verdict, why = budget.judge(lost(0.02, 0.4, 100))
    assert verdict == "too few faces"
    needed = int(why.rsplit("about ", 1)[1].split()[0])
    assert budget.judge(lost(0.02, 0.4, int(1.2 * needed)))[0] == "within"


def test_no_number_of_faces_suffices_at_the_edge_of_a_strict_budget() -> None:
    assert "no number of faces" in Budget(ion=0.03, strict=True).judge(lost(0.03, 0.1, 100))[1]


def test_without_a_drift_budget_any_drift_is_allowed() -> None:
    assert Budget(drift=None).judge(lost(0.0, 0.01, 50, drift=9.0))[0] == "within"


def test_json_has_every_figure_of_a_loss_and_null_for_infinity() -> None:
    document = loss(Losses(ion=np.array([0.1, np.inf, 0.0]), drift=np.zeros(3))).to_json()
    assert document == {
        "ion": {"mean": None, "low": None, "high": None},
        "drift": {"mean": 0.0, "low": 0.0, "high": 0.0},
        "largest": 0.0,
        "deviation": None,
        "n": 3,
    }
