"""Normalised mean error of each face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmconv.errors import InputError, UsageError
from lmconv.judging.nme import nme
from lmconv.types import Float64


def faces(n: int = 1, eyes: float = 50.0) -> Float64:
    """Returns (n, 68, 2) float64, pixels: all points coincide except one outer eye corner, `eyes` pixels away."""
    points = np.full((n, 68, 2), 100.0)
    points[:, 45, 0] += eyes
    return points


def test_nme_is_the_mean_distance_over_the_distance_of_the_outer_eye_corners_in_percent() -> None:
    truth = faces(eyes=50.0)
    assert nme(truth + np.array([3.0, 4.0]), truth) == pytest.approx([100 * 5 / 50])


def test_nme_is_a_mean_over_all_points() -> None:
    truth = faces(eyes=50.0)
    predicted = truth.copy()
    predicted[0, 7] += [0.0, 34.0]
    assert nme(predicted, truth) == pytest.approx([100 * 34 / 68 / 50])


def test_each_face_is_normalised_by_its_own_annotation() -> None:
    truth = np.concatenate([faces(eyes=50.0), faces(eyes=100.0)])
    predicted = truth + np.array([5.0, 0.0])
    predicted[:, 45, 0] += 1.0
    assert nme(predicted, truth) == pytest.approx([100 * (5 + 1 / 68) / 50, 100 * (5 + 1 / 68) / 100])


def test_float32_points_have_float64_errors() -> None:
    errors = nme(faces().astype(np.float32), faces())
    assert errors.dtype == np.float64
    assert errors == pytest.approx([0.0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_point_that_is_not_finite_makes_the_error_infinite(value: float) -> None:
    predicted = faces(2)
    predicted[1, 3, 0] = value
    np.testing.assert_array_equal(nme(predicted, faces(2)), [0.0, np.inf])


def test_coincident_eye_corners_are_refused() -> None:
    truth = np.concatenate([faces(), faces(eyes=0.0)])
    with pytest.raises(InputError, match=r"face 1 .*distance of the outer eye corners is 0"):
        nme(truth, truth)


@pytest.mark.parametrize("landmarks", [5, 29, 194])
def test_a_number_of_points_without_a_scheme_is_refused(landmarks: int) -> None:
    points = np.zeros((1, landmarks, 2))
    with pytest.raises(UsageError, match=f"not defined for {landmarks} points") as caught:
        nme(points, points)
    assert "39, 68, 98, 106" in str(caught.value.hint)
    assert "lmconv.schemes" in str(caught.value.hint)


def test_different_numbers_of_faces_are_refused() -> None:
    with pytest.raises(ValueError, match="do not match annotated points"):
        nme(faces(1), faces(2))


@pytest.mark.realdata
@pytest.mark.parametrize(("model", "mean"), [("pfld", 3.2237), ("mfn", 2.9890)])
def test_errors_of_real_networks_equal_the_recorded_errors(shared: Path, model: str, mean: float) -> None:
    golden = np.load(shared / "golden" / "300w_common.npz")
    errors = nme(golden[f"{model}_gt12"], golden["gt"])
    np.testing.assert_allclose(errors, golden[f"ion_{model}_gt12"], atol=1e-6)
    assert errors.mean() == pytest.approx(mean, abs=1e-4)
