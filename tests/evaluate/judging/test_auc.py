from __future__ import annotations

import numpy as np
import pytest

from lmconv.metrics.auc import plugin


def test_a_hand_computed_example() -> None:
    # Of four faces, none is within 2 %, one from there to 5 %, two from 5 % to 10 %; the last two never count:
    # (2 * 0 + 3 * 1/4 + 5 * 2/4) / 10.
    assert plugin.compute(np.array([2.0, 5.0, 10.0, 12.0])) == pytest.approx(0.325)


def test_agrees_with_integrating_the_cumulative_curve() -> None:
    errors = np.random.default_rng(0).gamma(4.0, 1.5, 200)
    limits = (np.arange(200_000) + 0.5) * (10.0 / 200_000)
    curve = np.searchsorted(np.sort(errors), limits, side="right") / len(errors)
    assert plugin.compute(errors) == pytest.approx(curve.mean(), abs=1e-5)


@pytest.mark.parametrize(("error", "area"), [(0.0, 1.0), (10.0, 0.0), (1e9, 0.0), (np.inf, 0.0)])
def test_runs_from_one_for_a_perfect_face_to_zero(error: float, area: float) -> None:
    assert plugin.compute(np.array([error])) == area


def test_more_is_better() -> None:
    assert (plugin.name, plugin.unit, plugin.better) == ("auc", "", "higher")
