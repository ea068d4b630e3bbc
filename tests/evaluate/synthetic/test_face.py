"""Drawn faces: their traits, their landmarks, and agreement of pictures and landmarks."""

from __future__ import annotations

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest

from lmconv.scheme import SCHEMES
from lmconv.synthetic import features, head, picture
from lmconv.synthetic.traits import HELD_OUT, TRAIN, Range, Traits, sample
from lmconv.types import Float64

SIDE = 128
BOTH = pytest.mark.parametrize("points", [68, 98])
SAME = {
    **{index: 2 * index for index in range(17)},  # jaw
    **{17 + index: 33 + index for index in range(5)},  # right brow
    **{22 + index: 42 + index for index in range(5)},  # left brow
    **{27 + index: 51 + index for index in range(9)},  # nose
    **dict(zip((36, 39, 42, 45), (60, 64, 68, 72), strict=True)),  # corners of the eyes
    **{48 + index: 76 + index for index in range(20)},  # mouth
}
"""Index of the point of 98 at the same position, by index of the point of 68."""
OPPOSITE = ("yaw", "roll", "place_x", "nose_bend", "wink", "brow_skew", "smile_skew", "gaze_x", "light_x")
"""Traits that change their sign in a mirror."""


def some(number: int, ranges: Traits[Range] = HELD_OUT) -> Traits[float]:
    return sample(ranges, picture.stream(5, "testset", number))


def mirrored(traits: Traits[float]) -> Traits[float]:
    return replace(traits, **{name: -getattr(traits, name) for name in OPPOSITE})


def points_of(traits: Traits[float], points: int) -> Float64:
    return head.landmarks(head.curves(traits, SIDE), points)


# Traits


def test_every_trait_is_in_its_range() -> None:
    for number in range(50):
        face = some(number, TRAIN)
        for field in fields(TRAIN):
            low, high = getattr(TRAIN, field.name)
            assert low <= getattr(face, field.name) <= high


def test_held_out_faces_are_drawn_from_wider_ranges() -> None:
    differ = {field.name for field in fields(TRAIN) if getattr(TRAIN, field.name) != getattr(HELD_OUT, field.name)}
    assert {"yaw", "pitch", "roll", "tone", "light", "glasses", "hand", "clutter", "noise"} <= differ
    for name in ("yaw", "pitch", "roll", "size", "place_x", "place_y"):
        (low, high), (lower, higher) = getattr(TRAIN, name), getattr(HELD_OUT, name)
        assert lower < low < high < higher


# Landmarks


@BOTH
def test_the_mirrored_face_has_the_mirrored_points(points: int) -> None:
    schemes = SCHEMES.load_all()
    mirror = next(scheme.mirror for scheme in schemes.values() if scheme.landmarks == points)
    for number in range(20):
        result = points_of(mirrored(some(number)), points)[list(mirror)]
        flipped = points_of(some(number), points) * [-1, 1] + [SIDE - 1, 0]
        np.testing.assert_allclose(result, flipped, rtol=0, atol=1e-9)


def test_both_schemes_agree_at_common_positions() -> None:
    for number in range(20):
        sparse, dense = (points_of(some(number), points) for points in (68, 98))
        np.testing.assert_array_equal(sparse[list(SAME)], dense[list(SAME.values())])


def test_the_points_of_a_frontal_face_are_in_order() -> None:
    middle = Traits(**{field.name: sum(getattr(TRAIN, field.name)) / 2 for field in fields(TRAIN)})
    x, y = points_of(replace(middle, yaw=0.0, pitch=0.0, roll=0.0), 68).T
    assert x[0] < x[17] < x[36] < x[39] < x[27] < x[42] < x[45] < x[26] < x[16]
    assert y[19] < y[37] < y[41] < y[30] < y[33] < y[51] < y[62] < y[66] < y[57] < y[8]
    assert x[48] < x[60] < x[62] < x[64] < x[54]


def test_the_far_side_of_a_turned_face_lies_on_its_contour() -> None:
    turned = replace(some(1), yaw=40.0, roll=0.0, pitch=0.0)
    outlines = head.curves(turned, SIDE)
    right_of_nose = outlines["jaw"][64:].max(axis=0)[0]
    assert right_of_nose > head.landmarks(outlines, 68)[[42, 45, 54]].max(axis=0)[0], "no feature is beyond the contour"


@BOTH
def test_landmarks_are_vertices_of_the_painted_outlines(points: int) -> None:
    outlines = head.curves(some(2), SIDE)
    corners = {tuple(point) for line in outlines.values() for point in line}
    assert {tuple(point) for point in head.landmarks(outlines, points)} <= corners


@BOTH
def test_points_lie_in_the_drawn_face(points: int) -> None:
    ordinary = replace(TRAIN, yaw=(-25, 25), pitch=(-12, 12))
    for number in range(20):
        outlines = head.curves(some(number, ordinary), SIDE)
        contour = np.rint(features.contour(outlines) * 16).astype(np.int32)
        for x, y in head.landmarks(outlines, points):
            assert cv2.pointPolygonTest(contour, (float(x * 16), float(y * 16)), True) > -24, (
                "at most 1.5 pixels outside"
            )


# Pictures


def test_the_same_stream_gives_the_same_picture_and_another_stream_another_picture() -> None:
    first, again, other = (
        picture.face(TRAIN, picture.stream(0, "trainset", number), side=SIDE) for number in (3, 3, 4)
    )
    assert first[0].dtype == np.uint8
    assert first[0].shape == (SIDE, SIDE, 3)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_the_picture_does_not_depend_on_the_scheme() -> None:
    one, two = (picture.face(TRAIN, picture.stream(0, "trainset", 1), points=points) for points in (68, 98))
    np.testing.assert_array_equal(one[0], two[0])
    assert (one[1].shape, two[1].shape) == ((68, 2), (98, 2))


def test_points_are_stored_in_the_convention_of_300w() -> None:
    traits = sample(TRAIN, picture.stream(0, "trainset", 0))
    _, points = picture.face(TRAIN, picture.stream(0, "trainset", 0), side=SIDE)
    np.testing.assert_allclose(points - 1, points_of(traits, 68), rtol=0, atol=1e-9)


def plain(number: int) -> Traits[float]:
    """A frontal face without occlusion, in even light, with dark brows on light skin."""
    shown = {"beard": -1.0, "fringe": -1.0, "glasses": -1.0, "shades": -1.0, "hand": -1.0, "blur": 0.0, "noise": 0.0}
    seen = {"tone": 0.0, "hair": 0.0, "exposure": 1.0, "light": 0.05, "mouth_open": 0.3, "eyes": 0.12, "size": 0.8}
    pose = {"yaw": 0.0, "pitch": 0.0, "roll": 0.0, "place_x": 0.0, "place_y": 0.0, "hair_length": 0.0}
    return replace(some(number), **shown, **seen, **pose)


@pytest.mark.parametrize("number", range(4))
def test_the_picture_agrees_with_the_points(number: int) -> None:
    traits = plain(number)
    outlines = head.curves(traits, 256)
    grey = cv2.cvtColor(picture.paint(traits, outlines, picture.stream(0, "testset", number)), cv2.COLOR_BGR2GRAY)
    points = head.landmarks(outlines, 98)

    def brightness(*indices: int) -> float:
        x, y = np.rint(points[list(indices)].mean(axis=0)).astype(int)
        return float(grey[y - 1 : y + 2, x - 1 : x + 2].mean())

    cheek, pupil, brow, mouth, lip = (brightness(*spot) for spot in ((62, 82), (96,), (35, 39), (90, 94, 94), (85, 94)))
    assert pupil < 0.4 * cheek
    assert brow < 0.6 * cheek
    assert mouth < lip < cheek
