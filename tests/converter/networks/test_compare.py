"""Differences between two sets of landmarks, as fractions of the input and in pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lmconv.networks.compare import difference


def test_abs_figures_compare_coordinates_and_px_figures_compare_points() -> None:
    a = np.zeros((2, 3, 2), np.float32)
    b = a.copy()
    b[1, 2] = (0.03, 0.04)
    result = difference(a, b, (100, 100))
    assert result.max_abs == pytest.approx(0.04)
    assert result.mean_abs == pytest.approx(0.07 / 12)
    assert result.max_px == pytest.approx(5)
    assert result.mean_px == pytest.approx(5 / 6)
    assert result.n == 2


def test_pixels_use_the_height_and_the_width_of_the_input() -> None:
    a, b = np.zeros((1, 1, 2), np.float32), np.array([[[0.1, 0.0]]], np.float32)
    assert difference(a, b, (10, 200)).max_px == pytest.approx(20)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_coordinate_that_is_not_finite_makes_every_figure_infinite(number: float) -> None:
    good, bad = np.zeros((1, 1, 2), np.float32), np.full((1, 1, 2), number, np.float32)
    for a, b in ((good, bad), (bad, good), (bad, bad)):
        result = difference(a, b, (10, 10))
        assert math.inf == result.max_abs == result.mean_abs == result.max_px == result.mean_px


def test_landmarks_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        difference(np.zeros((1, 68, 2), np.float32), np.zeros((1, 98, 2), np.float32), (10, 10))


@pytest.mark.parametrize(("coordinate", "scale"), [(0.5, 1.0), (-1.0, 1.0), (192.0, 192.0), (-30.0, 30.0)])
def test_the_scale_is_the_largest_coordinate_of_the_reference_but_at_least_1(coordinate: float, scale: float) -> None:
    reference = np.full((1, 68, 2), coordinate, np.float32)
    assert difference(reference, reference, (10, 10)).scale == scale
