"""Parity of an artefact with its source network, on noise and on faces."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lmconv.faces.crops import FaceCrops
from lmconv.judging.parity import Parity, Points, errors, on_faces, parity, points
from lmconv.networks.outputs import Outputs
from lmconv.networks.seeded import PARITY_INPUTS
from lmconv.types import Arrays, Float32, landmark_spec

SPEC = landmark_spec("toy", "toy", size=(20, 40), landmarks=68)


class Mean:
    """Network whose points all equal the mean of the input; records the size of every batch."""

    execution_mismatch = ""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        images = inputs["input"]
        self.batches.append(len(images))
        return {"landmarks": np.repeat(images.mean((1, 2, 3)), 136).reshape(-1, 68, 2)}

    def __enter__(self) -> Mean:
        return self

    def __exit__(self, *_: object) -> None:
        return


def faces(count: int) -> FaceCrops:
    """Returns faces whose outer eye corners are 50 pixels apart, in squares of 100 pixels."""
    truth = np.zeros((count, 68, 2))
    truth[:, 45, 0] = 50.0
    return FaceCrops(
        images=np.zeros((count, 20, 40, 3), np.uint8),
        squares=np.tile(np.array([7, -3, 100]), (count, 1)),
        truth=truth,
        names=tuple(map(str, range(count))),
        subsets=(("common", "helen/testset"),) * count,
        totals={},
        problems=(),
        scenes=lambda: iter(()),
        pictures=lambda: (),
    )


def moved(random: float = 0.0, face: float = 0.0, count: int = 2) -> Points:
    """Returns points that are moved to the right by fractions of the input: `random` on noise, `face` on faces."""
    zeros = np.zeros((4, 68, 2), np.float32), np.zeros((count, 68, 2), np.float32)
    step = np.array([1.0, 0.0], np.float32)
    return Points(random=Outputs(landmarks=zeros[0] + random * step), faces=Outputs(landmarks=zeros[1] + face * step))


def compared(outputs: Points, crops: FaceCrops | None = None) -> Parity:
    assert outputs.faces is not None
    return parity(outputs, moved(count=len(outputs.faces.landmarks)), crops, SPEC, "torch")


def test_pixels_are_pixels_of_the_input() -> None:
    result = compared(moved(random=0.01, count=0))
    assert result.max_abs == pytest.approx(0.01)
    assert result.max_px == pytest.approx(0.4), "1 % of 40 pixels"


def test_max_px_covers_noise_and_faces_and_max_px_faces_covers_faces_alone() -> None:
    result = compared(moved(random=0.1, face=0.01), faces(2))
    assert result.max_px == pytest.approx(4.0)
    assert result.max_px_faces == pytest.approx(0.4)
    assert result.n == 6


def test_drift_is_the_distance_in_percent_of_the_eye_distance() -> None:
    result = compared(moved(face=0.01), faces(2))
    assert result.mean_ion == pytest.approx(2.0), "1 pixel of the picture, the eyes 50 apart"


def test_without_faces_there_is_no_drift() -> None:
    assert compared(moved(count=0)).mean_ion is None


def test_a_nan_point_makes_the_largest_difference_infinite() -> None:
    broken = moved()
    broken.random.landmarks[0, 0, 0] = np.nan
    assert compared(broken, faces(2)).max_abs == math.inf


def test_all_inputs_of_a_comparison_run_in_chunks_of_one_size() -> None:
    network = Mean()
    crops = faces(150)
    crops.images[:] = np.arange(150)[:, None, None, None]
    outputs = points(network, SPEC, crops)
    assert len(outputs.random.landmarks) == PARITY_INPUTS
    assert outputs.faces is not None
    assert outputs.faces.landmarks.shape == (150, 68, 2)
    assert set(network.batches) == {32}, "OpenVINO compiles a network for every size"
    unfilled = on_faces(Mean(), SPEC, crops, filled=False)
    np.testing.assert_allclose(outputs.faces.landmarks, unfilled.landmarks, rtol=1e-6)


def test_errors_are_measured_in_pixels_of_the_picture() -> None:
    crops = faces(1)
    fractions: Float32 = ((crops.truth - crops.squares[:, None, :2]) / 100).astype(np.float32)
    assert errors(Outputs(landmarks=fractions), crops) == pytest.approx([0.0], abs=1e-4)
    assert errors(Outputs(landmarks=fractions + np.float32(0.01)), crops) == pytest.approx(
        [100 * math.sqrt(2) / 50], rel=1e-4
    )
