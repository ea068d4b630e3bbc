from __future__ import annotations

import math

import numpy as np
import pytest

from lmconv.running.smoothing import OneEuro, Smoothed, smooth, smoothing_factor
from lmconv.types import Float64

SECONDS, SIZE = 1 / 30, 100.0


def run(frames: Float64, *, seconds: float = SECONDS, size: float = SIZE, settings: OneEuro | None = None) -> Float64:
    """Filters the landmarks of successive frames, (n, L, 2) float64."""
    state: Smoothed | None = None
    result = []
    for points in frames:
        state = smooth(state, points, seconds=seconds, size=size, parameters=settings or OneEuro())
        result.append(state.points)
    return np.array(result)


def still(count: int, noise: float) -> Float64:
    return np.random.default_rng(0).normal(50, noise, (count, 5, 2))


def ramp(count: int, speed: float) -> Float64:
    """(count, 3, 2) float64: points that move by `speed` pixels per frame."""
    return np.asarray(np.arange(count)[:, None, None] * np.array([speed, 0.0]) + np.zeros((count, 3, 2)))


def test_a_new_face_is_not_changed() -> None:
    points = still(1, 3)
    np.testing.assert_array_equal(run(points), points)


def test_a_resting_face_is_not_moved() -> None:
    points = np.repeat(still(1, 3), 10, axis=0)
    np.testing.assert_allclose(run(points), points)


def test_noise_of_a_resting_face_is_reduced() -> None:
    points = still(300, 0.5)
    assert run(points)[30:].std(axis=0).mean() < 0.5 * points[30:].std(axis=0).mean()


def test_a_moving_face_is_followed_with_little_lag() -> None:
    points = ramp(60, 3)  # 0.9 face sizes per second
    lag = points - run(points)
    assert 0 < lag[-1, 0, 0] < 0.02 * SIZE
    assert lag[-1, 0, 1] == 0


def test_a_fixed_cutoff_lags_more() -> None:
    points = ramp(60, 3)
    fixed = points - run(points, settings=OneEuro(beta=0))
    assert fixed[-1, 0, 0] > 5 * (points - run(points))[-1, 0, 0]


def test_smoothing_is_relative_to_the_size_of_the_face() -> None:
    points = still(50, 2)
    np.testing.assert_allclose(run(2 * points, size=2 * SIZE), 2 * run(points))


def test_smoothing_does_not_depend_on_the_direction() -> None:
    points = still(50, 2)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    np.testing.assert_allclose(run(points @ turn), run(points) @ turn)


def test_smoothing_hardly_depends_on_the_frame_rate() -> None:
    slow, fast = run(ramp(60, 2)), run(ramp(120, 1), seconds=SECONDS / 2)
    np.testing.assert_allclose(slow[-1], fast[-1], atol=2)


@pytest.mark.parametrize("cutoff", [0.5, 1.0, 10.0])
def test_the_weight_is_as_in_the_paper(cutoff: float) -> None:
    tau = 1 / (2 * math.pi * cutoff)
    assert smoothing_factor(cutoff, 0.04) == pytest.approx(1 / (1 + tau / 0.04))


def test_one_step_is_as_in_the_paper() -> None:
    settings = OneEuro(cutoff=1.5, beta=2.0, derivative=1.0)
    first, second = np.array([[10.0, 0.0]]), np.array([[14.0, 3.0]])
    smoothed = run(np.stack([first, second]), settings=settings)[1]
    speed = smoothing_factor(1.0, SECONDS) * (second - first) / (SIZE * SECONDS)
    share = smoothing_factor(1.5 + 2.0 * float(np.linalg.norm(speed)), SECONDS)
    np.testing.assert_allclose(smoothed, first + share * (second - first))
