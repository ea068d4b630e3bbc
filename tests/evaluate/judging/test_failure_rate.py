from __future__ import annotations

import numpy as np
import pytest

from lmconv.metrics.failure_rate import plugin


@pytest.mark.parametrize(
    ("errors", "percent"),
    [([1.0, 2.0], 0.0), ([3.0, 10.5, 4.0, 50.0], 50.0), ([10.0], 0.0), ([np.nextafter(10.0, 11.0)], 100.0)],
    ids=["none", "half", "at the limit is no failure", "just above it is one"],
)
def test_is_the_share_of_faces_above_ten_percent(errors: list[float], percent: float) -> None:
    assert plugin.compute(np.array(errors)) == percent


def test_an_infinite_error_is_a_failure() -> None:
    assert plugin.compute(np.array([1.0, np.inf])) == 50.0


def test_less_is_better() -> None:
    assert (plugin.name, plugin.unit, plugin.better) == ("failure_rate", "%", "lower")
