from __future__ import annotations

import math

import numpy as np
import pytest

from lmconv.networks.compare import difference


def test_differences_are_of_coordinates_and_distances_of_points() -> None:
    a = np.zeros((2, 3, 2), np.float32)
    b = a.copy()
    b[1, 2] = (0.03, 0.04)
    found = difference(a, b, (100, 100))
    assert found.max_abs == pytest.approx(0.04)
    assert found.mean_abs == pytest.approx(0.07 / 12)
    assert found.max_px == pytest.approx(5)
    assert found.mean_px == pytest.approx(5 / 6)
    assert found.n == 2


def test_pixels_are_those_of_a_height_and_a_width() -> None:
    a, b = np.zeros((1, 1, 2), np.float32), np.array([[[0.1, 0.0]]], np.float32)
    assert difference(a, b, (10, 200)).max_px == pytest.approx(20)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_infinitely_off(number: float) -> None:
    good, bad = np.zeros((1, 1, 2), np.float32), np.full((1, 1, 2), number, np.float32)
    for a, b in ((good, bad), (bad, good), (bad, bad)):
        found = difference(a, b, (10, 10))
        assert math.inf == found.max_abs == found.mean_abs == found.max_px == found.mean_px


def test_other_shapes_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        difference(np.zeros((1, 68, 2), np.float32), np.zeros((1, 98, 2), np.float32), (10, 10))
