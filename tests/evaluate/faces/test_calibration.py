from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from tests.evaluate.faces.builders import SPEC, add_face, box_points, noise

from lmconv.errors import UsageError
from lmconv.faces.calibration import calibration_inputs
from lmconv.faces.crops import landmark_square, load_face_crops
from lmconv.networks.preprocess import network_input
from lmconv.types import Float32, landmark_spec


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A folder with five training faces, and a test face that calibration must not use."""
    for number in range(5):
        add_face(tmp_path / "afw", f"face_{number}", noise(60, 80, number), box_points(20, 10, 50 + number, 45))
    add_face(tmp_path / "ibug", "test", noise(60, 80, 9), box_points(20, 10, 50, 45))
    return tmp_path


def rows(array: Float32) -> list[bytes]:
    return [row.tobytes() for row in array]


def test_calibration_starts_with_every_training_face_unchanged(training: Path) -> None:
    plain = network_input(load_face_crops(training, SPEC, "train").images, SPEC.preprocess)
    inputs = calibration_inputs(training, SPEC, count=12)
    assert inputs.shape == (12, 3, 32, 32)
    assert inputs.dtype == np.float32
    assert set(rows(inputs[:5])) == set(rows(plain))
    assert len(set(rows(inputs))) == 12, "every later crop is different"


def test_calibration_with_fewer_crops_than_faces_uses_different_faces_unchanged(training: Path) -> None:
    plain = network_input(load_face_crops(training, SPEC, "train").images, SPEC.preprocess)
    inputs = rows(calibration_inputs(training, SPEC, count=3))
    assert len(set(inputs)) == 3
    assert set(inputs) < set(rows(plain))


def test_calibration_is_the_same_for_the_same_seed_only(training: Path) -> None:
    first = calibration_inputs(training, SPEC, count=12)
    np.testing.assert_array_equal(first, calibration_inputs(training, SPEC, count=12))
    assert set(rows(first[5:])).isdisjoint(rows(calibration_inputs(training, SPEC, count=12, seed=1)[5:]))


def test_more_calibration_crops_start_with_the_same_crops(training: Path) -> None:
    few, many = calibration_inputs(training, SPEC, count=7), calibration_inputs(training, SPEC, count=12)
    np.testing.assert_array_equal(few, many[:7])


def test_refuses_calibration_on_no_crops(training: Path) -> None:
    with pytest.raises(UsageError, match="0 calibration crops"):
        calibration_inputs(training, SPEC, count=0)


def test_an_augmented_crop_stays_within_its_limits(tmp_path: Path) -> None:
    # Blue is x / 2 and green is y / 2: a crop shows its position. Red is constant and shows the brightness.
    image = np.full((240, 240, 3), 200, np.uint8)
    image[..., 0], image[..., 1] = np.arange(240) // 2, np.arange(240)[:, None] // 2
    points = box_points(90, 90, 150, 150)
    add_face(tmp_path / "afw", "ramp", image, points)
    left, top, side = landmark_square(points, SPEC.crop)
    inputs = calibration_inputs(tmp_path, SPEC, count=60).transpose(0, 2, 3, 1).astype(np.float64) * 255
    grid = np.stack(np.meshgrid(np.arange(32), np.arange(32)), axis=-1).reshape(-1, 2) + 0.5 - 16
    seen = []
    for crop in inputs[1:]:
        light = np.median(crop[..., 2]) / 200
        place = crop[..., :2].reshape(-1, 2) / light * 2 + 0.5
        (across, down, centre), *_ = np.linalg.lstsq(np.column_stack([grid, np.ones(len(grid))]), place, rcond=None)
        scale = math.sqrt(across[0] * down[1] - across[1] * down[0]) * 32 / side
        shift = (centre - (left + side / 2, top + side / 2)) / side
        seen.append((scale, *shift, math.degrees(math.atan2(across[1], across[0])), light))
    low, high = np.min(seen, axis=0), np.max(seen, axis=0)
    tolerance = np.array([0.02, 0.015, 0.015, 0.6, 0.01])
    assert (low >= np.array([0.9, -0.05, -0.05, -15, 0.8]) - tolerance).all(), low
    assert (high <= np.array([1.15, 0.05, 0.05, 15, 1.2]) + tolerance).all(), high
    assert (low < [0.95, -0.03, -0.03, -10, 0.88]).all(), low
    assert (high > [1.08, 0.03, 0.03, 10, 1.12]).all(), high


@pytest.mark.realdata
def test_real_calibration_crops_come_from_the_training_faces(shared: Path) -> None:
    spec = landmark_spec("pfld", "pfld", size=(112, 112), landmarks=68)
    inputs = calibration_inputs(shared / "faces", spec)
    plain = network_input(load_face_crops(shared / "faces", spec, "train").images, spec.preprocess)
    assert inputs.shape == (300, 3, 112, 112)
    assert set(rows(inputs[:102])) == set(rows(plain))
