"""Rules for every face detector on any picture; a new plug-in file is tested automatically."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lmconv.detecting.loading import LoadedDetector, load_detector
from lmconv.detection import DETECTORS, Detector
from lmconv.errors import InputError
from lmconv.plugins import BACKBONES
from lmconv.types import Uint8

NAMES = DETECTORS.names()


@pytest.fixture(params=NAMES)
def detector(request: pytest.FixtureRequest) -> Detector:
    return DETECTORS.load(request.param)


@pytest.fixture(scope="module", params=NAMES)
def loaded(request: pytest.FixtureRequest, shared: Path) -> Iterator[LoadedDetector]:
    try:
        with load_detector(request.param, weights=shared / "detectors", threads=1) as detector:
            yield detector
    except InputError as error:
        pytest.skip(str(error))


def blank(height: int, width: int, value: int = 128) -> Uint8:
    return np.full((height, width, 3), value, np.uint8)


def noise(height: int, width: int) -> Uint8:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def face(shared: Path, side: int) -> Uint8:
    """Picture of `2 * side` pixels that shows a face of about `side` pixels."""
    whole = cv2.imread(str(shared / "faces" / "300w_common" / "lfpw" / "testset" / "image_0176.png"))
    part = np.asarray(whole)[:260, 160:420]
    return np.asarray(cv2.resize(part, (2 * side, 2 * side), interpolation=cv2.INTER_AREA), np.uint8)


def like(array: NDArray[Any], *shape: int) -> None:
    assert array.shape == shape
    assert array.dtype == np.float32


def check(loaded: LoadedDetector, picture: Uint8) -> int:
    before = picture.copy()
    detections = loaded(picture)
    n = len(detections.boxes)
    like(detections.boxes, n, 4)
    like(detections.scores, n)
    assert (np.diff(detections.scores) <= 0).all(), "the surest first"
    assert ((detections.scores >= 0) & (detections.scores <= 1)).all()
    assert np.isfinite(detections.boxes).all()
    assert (detections.boxes[:, 2:] > detections.boxes[:, :2]).all()
    if detections.points is not None:
        like(detections.points, n, 5, 2)
    np.testing.assert_array_equal(picture, before)
    return n


def test_a_detector_has_a_name_a_summary_a_crop_and_either_networks_or_a_loader(detector: Detector) -> None:
    assert detector.name in NAMES
    assert detector.summary
    assert detector.crop.box == "detector"
    assert bool(detector.networks) != bool(detector.open), "networks of lmconv, or another library's"


def test_the_networks_of_a_detector_are_backbones_for_detection(detector: Detector) -> None:
    for name in detector.networks:
        backbone = BACKBONES.load(name)
        assert backbone.spec.task == "detection"


@pytest.mark.realdata
@pytest.mark.parametrize("size", [(1, 1), (1, 200), (19, 23), (240, 320)])
def test_an_empty_picture_has_no_detections(loaded: LoadedDetector, size: tuple[int, int]) -> None:
    assert check(loaded, blank(*size)) == 0


@pytest.mark.realdata
def test_a_face_is_detected_inside_the_picture(loaded: LoadedDetector, shared: Path) -> None:
    picture = face(shared, 100)
    assert check(loaded, picture) >= 1
    box, height, width = loaded(picture).boxes[0], *picture.shape[:2]
    assert (box > -0.2 * max(height, width)).all()
    assert (box < 1.2 * max(height, width)).all()


@pytest.mark.realdata
def test_small_faces_and_noise_are_accepted(loaded: LoadedDetector, shared: Path) -> None:
    check(loaded, face(shared, 20))
    check(loaded, noise(57, 71))


@pytest.mark.realdata
def test_a_grey_picture_has_the_boxes_of_three_equal_channels(loaded: LoadedDetector, shared: Path) -> None:
    grey = np.ascontiguousarray(face(shared, 100)[..., 1])
    expected = loaded(np.repeat(grey[..., None], 3, 2))
    for picture in (grey, grey[..., None]):
        np.testing.assert_array_equal(loaded(picture).boxes, expected.boxes)


@pytest.mark.realdata
def test_the_same_picture_gives_the_same_boxes(loaded: LoadedDetector, shared: Path) -> None:
    picture = face(shared, 60)
    np.testing.assert_array_equal(loaded(picture).boxes, loaded(picture.copy()).boxes)


@pytest.mark.realdata
@pytest.mark.parametrize(
    "size",
    [
        pytest.param((40, 9000), marks=pytest.mark.slow),
        pytest.param((9000, 40), marks=pytest.mark.exhaustive),
        pytest.param((5000, 5000), marks=pytest.mark.exhaustive),
    ],
)
def test_a_very_large_picture_is_searched(loaded: LoadedDetector, size: tuple[int, int]) -> None:
    check(loaded, blank(*size))


@pytest.mark.realdata
@pytest.mark.parametrize(
    "wrong", [np.zeros((0, 5, 3), np.uint8), np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5, 3), np.uint16)]
)
def test_an_array_that_is_not_a_picture_is_refused(loaded: LoadedDetector, wrong: Uint8) -> None:
    with pytest.raises(ValueError, match="the picture is"):
        loaded(wrong)
