"""Boxes of a detector, matched to annotated faces; and crops around these boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmconv.data import Dataset, Face, Listing
from lmconv.detecting.matching import box_matcher
from lmconv.detection import SQUARE, Detections, detections
from lmconv.errors import InputError, UsageError
from lmconv.faces.crops import load_face_crops
from lmconv.networks.squares import around
from lmconv.types import Uint8, landmark_spec

SPEC = landmark_spec("four", "four", size=(32, 32), landmarks=4, crop=SQUARE)
PICTURE = np.zeros((100, 100, 3), np.uint8)


def face(name: str, left: float, image: str = "one.png", frame: int | None = None) -> Face:
    """Four points at the corners of a square of 20 pixels."""
    points = np.array([[0, 0], [20, 0], [0, 20], [20, 20]]) + np.array([left, 10.0])
    return Face(
        image=Path(image), annotation=Path(f"{name}.pts"), points=points, subsets=("mine",), key=name, frame=frame
    )


def boxes(*rows: tuple[float, float, float, float]) -> Detections:
    return detections(np.array(rows, np.float32).reshape(-1, 4), np.linspace(0.9, 0.8, len(rows)))


# Matching boxes to faces


def test_a_face_gets_the_box_with_the_largest_overlap() -> None:
    match = box_matcher(lambda picture: boxes((0, 0, 80, 80), (12, 8, 33, 30), (60, 8, 80, 30)))
    assert match(face("a", 11), PICTURE) == pytest.approx([12, 8, 33, 30])
    assert match(face("b", 60), PICTURE) == pytest.approx([60, 8, 80, 30])


def test_a_face_without_a_box_of_iou_above_0_3_has_no_match() -> None:
    assert box_matcher(lambda picture: boxes((30, 10, 50, 30)))(face("a", 10), PICTURE) is None
    assert box_matcher(lambda picture: boxes())(face("a", 10), PICTURE) is None


def test_a_picture_is_searched_once_and_every_frame_of_a_video_once() -> None:
    searched = []

    def detect(picture: Uint8) -> Detections:
        searched.append(picture)
        return boxes((10, 10, 30, 30))

    match = box_matcher(detect)
    for annotated in (
        face("a", 10),
        face("b", 50),
        face("c", 10, "two.png"),
        face("d", 10, frame=0),
        face("e", 10, frame=1),
    ):
        match(annotated, PICTURE)
    assert len(searched) == 4


# Crops around boxes


def dataset(folder: Path, *faces: Face) -> Dataset:
    import cv2

    cv2.imwrite(str(folder / "one.png"), PICTURE)
    return Dataset(
        name="mine",
        summary="",
        matches=lambda folder: True,
        faces=lambda folder, split: Listing(faces=faces),
    )


def test_corners_of_a_detected_box_are_truncated_to_whole_pixels() -> None:
    assert around((-3.7, 10.9, 20.9, 30.2), SQUARE) == around((-3, 10, 20, 30), SQUARE) == (-3, 8, 24)


def test_crops_are_cut_around_boxes_and_faces_without_a_box_still_count(tmp_path: Path) -> None:
    path = str(tmp_path / "one.png")
    mine = dataset(tmp_path, face("a", 10, path), face("b", 60, path))
    faces = load_face_crops(tmp_path, SPEC, dataset=mine, boxes=box_matcher(lambda picture: boxes((12.5, 8, 33, 30))))
    assert (faces.names, faces.missed) == (("mine/a",), ("mine/b",))
    assert faces.squares.tolist() == [list(around((12, 8, 33, 30), SQUARE))]
    assert (len(faces.images), len(faces.truth), len(faces.subsets)) == (1, 1, 1)
    assert faces.totals == {"mine": 2}
    assert [scene.boxes.tolist() for scene in faces.scenes()] == [[[12, 8, 33, 30]]]


def test_a_spec_with_crops_around_detected_boxes_needs_a_detector(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="around a detector's box, and no detector"):
        load_face_crops(tmp_path, SPEC, dataset=dataset(tmp_path, face("a", 10, str(tmp_path / "one.png"))))


def test_a_data_set_without_any_detected_face_is_refused(tmp_path: Path) -> None:
    mine = dataset(tmp_path, face("a", 10, str(tmp_path / "one.png")))
    with pytest.raises(InputError, match="none of the 1 annotated faces"):
        load_face_crops(tmp_path, SPEC, dataset=mine, boxes=box_matcher(lambda picture: boxes()))
