"""Tracks faces from frame to frame: each face is cut out around its last landmarks; the detector runs now and then.

A face keeps its number while its new landmarks are plausible, or while the detector finds the face again at once. A
face is lost when its new landmarks are not plausible after the landmarks of the previous frame, or when the detector
runs and does not confirm the face.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from lmconv.detecting.overlap import overlap
from lmconv.networks.squares import Square, around
from lmconv.running.faces import MAX_SQUARE_RATIO, Face, Region
from lmconv.types import Crop, Float64

Detect: TypeAlias = Callable[[], list[Region] | None]
"""Returns the regions with faces in this frame; None if unknown: a file of `--boxes` need not name every frame."""
Predict: TypeAlias = Callable[[Sequence[Square]], Float64]
"""Returns the landmarks in n squares of this frame, (n, L, 2) float64, pixels, x before y."""

SAME_FACE = 0.3
"""Smallest IoU of two boxes of one face: in two consecutive frames, or of landmarks and detector."""
CONFIRMED = 0.5
"""Smallest IoU of landmarks and detector that confirms a tracked face. Below, the landmarks have drifted and the face
is cut out anew. RFB-320's boxes and PFLD's landmarks of 107 faces in pictures of 300-W have a median IoU of 0.67; 95 %
have 0.56 or more.
"""
DUPLICATE = 0.7
"""IoU above which two tracked faces are one face; the younger track is lost."""
MAX_GROWTH = 1.5
"""Largest ratio of the sizes of one face in two consecutive frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracks:
    """State of the tracker after one frame.

    Attributes:
        faces: Faces of the frame, in the order of their numbers.
        frames_since_detection: Number of frames since the detector last ran.
        next_number: Number for the next new face.
    """

    faces: tuple[Face, ...] = ()
    frames_since_detection: int = 0
    next_number: int = 0


def track(
    previous: Tracks,
    detect: Detect,
    predict: Predict,
    *,
    size: tuple[int, int],
    crop: Crop,
    every: int,
    follow: bool = True,
) -> Tracks:
    """Computes the faces of the next frame.

    Args:
        previous: State after the previous frame.
        detect: Runs the detector. Called on the first frame, on every `every`-th frame, when a face is lost, and while
            there is no face.
        predict: Runs the landmark network.
        size: Height and width of the frame, pixels.
        crop: Rule for the square around the landmarks of a face.
        every: Number of frames between two runs of the detector.
        follow: False to cut out every face where `detect` finds it, and to keep only the number.

    Returns:
        The state after this frame.
    """
    faces = _follow(previous.faces, predict, size, crop) if follow else {}
    is_lost = len(faces) < len(previous.faces)
    is_due = previous.frames_since_detection + 1 >= every
    regions = detect() if is_lost or not faces or is_due else None
    if regions is None:
        since = previous.frames_since_detection + 1
        return replace(previous, faces=tuple(faces.values()), frames_since_detection=since)
    return _merge(previous, faces, regions, predict)


def _merge(previous: Tracks, followed: dict[int | None, Face], regions: Sequence[Region], predict: Predict) -> Tracks:
    """Combines the followed faces with the regions of the detector.

    A followed face that the detector confirms stays unchanged. All other regions are cut out. A region that matches a
    face of this or the previous frame gets the number of that face; other regions get new numbers.
    """
    latest = {face.track: face for face in previous.faces} | followed
    pairs = match_boxes([face.box for face in latest.values()], [np.array(region.box) for region in regions])
    numbers = {index: list(latest)[position] for position, index in pairs}
    confirmed = {
        number: followed[number]
        for index, number in numbers.items()
        if number in followed and _is_confirmed(followed[number], regions[index])
    }
    others = [index for index in range(len(regions)) if numbers.get(index) not in confirmed]
    next_number, faces = previous.next_number, dict(confirmed)
    for index, points in zip(others, predict([regions[index].square for index in others]), strict=True):
        number = numbers.get(index)
        if number is None:
            number = next_number
            next_number += 1
        faces[number] = Face(region=regions[index], landmarks=points, track=number)
    ordered = tuple(faces[number] for number in sorted(faces, key=lambda number: number or 0))
    return Tracks(faces=ordered, frames_since_detection=0, next_number=next_number)


def _is_confirmed(face: Face, region: Region) -> bool:
    """Returns True if the region of the detector confirms the landmarks of the face."""
    return bool(overlap(face.box, np.array(region.box)) >= CONFIRMED)


def _follow(faces: Sequence[Face], predict: Predict, size: tuple[int, int], crop: Crop) -> dict[int | None, Face]:
    """Cuts every face out around its last landmarks; returns the faces that are not lost, by number."""
    squares = [around(face.box.tolist(), crop) for face in faces]
    followed: dict[int | None, Face] = {}
    for face, square, points in zip(faces, squares, predict(squares) if squares else (), strict=True):
        x1, y1, x2, y2 = face.box.tolist()
        current = replace(face, region=Region(box=(x1, y1, x2, y2), square=square), landmarks=points)
        is_duplicate = any(overlap(current.box, other.box) > DUPLICATE for other in followed.values())
        if is_plausible(face, current, size) and not is_duplicate:
            followed[face.track] = current
    return followed


def is_plausible(previous: Face, current: Face, size: tuple[int, int]) -> bool:
    """Returns True if the two can be one face in two consecutive frames.

    The current landmarks are finite, their centre is in the frame, their size is at most `MAX_GROWTH` times larger or
    smaller, and the boxes overlap by at least `SAME_FACE`.

    Args:
        previous: Face in the previous frame.
        current: Face in this frame.
        size: Height and width of the frame, pixels.
    """
    if not np.isfinite(current.landmarks).all():
        return False
    height, width = size
    x, y = current.landmarks.mean(axis=0)
    before, after = (max(float(np.ptp(face.landmarks, axis=0).max()), 1.0) for face in (previous, current))
    is_similar = max(before, after) / min(before, after) <= MAX_GROWTH and after <= MAX_SQUARE_RATIO * max(size)
    is_inside = 0 <= x < width and 0 <= y < height
    return is_similar and is_inside and bool(overlap(previous.box, current.box) >= SAME_FACE)


def match_boxes(boxes: Sequence[Float64], others: Sequence[Float64]) -> list[tuple[int, int]]:
    """Matches two lists of boxes greedily: the pair with the largest IoU first, then the next of the rest.

    Args:
        boxes: n boxes, (4,) float64: x1, y1, x2, y2, pixels.
        others: m boxes, the same.

    Returns:
        Pairs of an index into `boxes` and an index into `others`. Each IoU is at least `SAME_FACE`.
    """
    if not boxes or not others:
        return []
    ious = np.stack([overlap(box, np.stack(others)) for box in boxes])
    pairs: list[tuple[int, int]] = []
    for position in np.argsort(-ious, axis=None, kind="stable"):
        row, column = divmod(int(position), len(others))
        if ious[row, column] < SAME_FACE:
            break
        if all(row != matched_row and column != matched_column for matched_row, matched_column in pairs):
            pairs.append((row, column))
    return pairs
