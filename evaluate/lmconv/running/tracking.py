"""Faces followed from frame to frame: each is cut out around its last landmarks, and the detector looks now and then.

A face keeps its number as long as it is followed, or found again at once by the detector. It is lost when its new
landmarks cannot be those of the last frame, or when the detector looks and finds no face there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from lmconv.detecting.boxes import overlap
from lmconv.networks.squares import Square, around
from lmconv.running.faces import LARGEST, Face, Found
from lmconv.types import Crop, Float64

Find: TypeAlias = Callable[[], list[Found] | None]
"""Where the faces of this frame are; None where that is not known (`--boxes` may say nothing of a frame)."""
Locate: TypeAlias = Callable[[Sequence[Square]], Float64]
"""The landmarks in these squares of this frame, (n, L, 2) float64, pixels."""

SAME = 0.3
"""Intersection over union from which two boxes are one face: of two frames, or of landmarks and a detector."""
AGREE = 0.5
"""That from which a followed face stays as it is when the detector finds it; below, it has drifted and is cut out anew.
RFB-320's boxes and PFLD's landmarks of 107 faces in pictures of 300-W overlap by 0.67 in the median, 95 %
by 0.56 or more.
"""
TWICE = 0.7
"""That of two faces which have become one: the younger is lost."""
GROWTH = 1.5
"""How many times larger or smaller a face may become from one frame to the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracks:
    """The faces of a frame, and what the next frame needs to know.

    Attributes:
        faces: In the order of their numbers.
        since: Frames since the detector has looked.
        born: How many numbers were given.
    """

    faces: tuple[Face, ...] = ()
    since: int = 0
    born: int = 0


def step(
    before: Tracks, find: Find, locate: Locate, *, size: tuple[int, int], crop: Crop, every: int, follow: bool = True
) -> Tracks:
    """The faces of the next frame.

    Args:
        before: Those of the last.
        find: Asked on the first frame, on every `every`-th, when a face is lost, and while there is none.
        locate: The network.
        size: Height and width of the frame, pixels.
        crop: How the network wants a face cut out around its landmarks.
        every: See `find`.
        follow: Without it, every face is cut out where `find` says, and only its number is kept.
    """
    faces = _followed(before.faces, locate, size, crop) if follow else {}
    lost = len(faces) < len(before.faces)
    found = find() if lost or not faces or before.since + 1 >= every else None
    if found is None:
        return replace(before, faces=tuple(faces.values()), since=before.since + 1)
    last = {face.track: face for face in before.faces} | faces
    pairs = matched([face.box for face in last.values()], [np.array(row.box) for row in found])
    numbers = {row: list(last)[track] for track, row in pairs}
    kept = {
        number: faces[number]
        for row, number in numbers.items()
        if number in faces and _agree(faces[number], found[row])
    }
    others = [row for row in range(len(found)) if numbers.get(row) not in kept]
    born, made = before.born, dict(kept)
    for row, points in zip(others, locate([found[row].square for row in others]), strict=True):
        number = numbers.get(row)
        if number is None:
            number = born
            born += 1
        made[number] = Face(found=found[row], landmarks=points, track=number)
    ordered = tuple(made[number] for number in sorted(made, key=lambda number: number or 0))
    return Tracks(faces=ordered, since=0, born=born)


def _agree(face: Face, found: Found) -> bool:
    return bool(overlap(face.box, np.array(found.box)) >= AGREE)


def _followed(faces: Sequence[Face], locate: Locate, size: tuple[int, int], crop: Crop) -> dict[int | None, Face]:
    """Those faces that are still there, by number."""
    squares = [around(face.box.tolist(), crop) for face in faces]
    kept: dict[int | None, Face] = {}
    for face, square, points in zip(faces, squares, locate(squares) if squares else (), strict=True):
        x1, y1, x2, y2 = face.box.tolist()
        moved = replace(face, found=Found(box=(x1, y1, x2, y2), square=square), landmarks=points)
        twin = any(overlap(moved.box, other.box) > TWICE for other in kept.values())
        if plausible(face, moved, size) and not twin:
            kept[face.track] = moved
    return kept


def plausible(before: Face, after: Face, size: tuple[int, int]) -> bool:
    """Whether these can be the landmarks of one face in two frames that follow each other."""
    if not np.isfinite(after.landmarks).all():
        return False
    height, width = size
    x, y = after.landmarks.mean(axis=0)
    sides = [max(float(np.ptp(face.landmarks, axis=0).max()), 1.0) for face in (before, after)]
    grown = max(sides) / min(sides) <= GROWTH and sides[1] <= LARGEST * max(size)
    return grown and 0 <= x < width and 0 <= y < height and bool(overlap(before.box, after.box) >= SAME)


def matched(boxes: Sequence[Float64], others: Sequence[Float64]) -> list[tuple[int, int]]:
    """Which box is which of the others: the pair that overlaps most, then the next of those that are left."""
    if not boxes or not others:
        return []
    shared = np.stack([overlap(box, np.stack(others)) for box in boxes])
    pairs: list[tuple[int, int]] = []
    for place in np.argsort(-shared, axis=None, kind="stable"):
        first, second = divmod(int(place), len(others))
        if shared[first, second] < SAME:
            break
        if all(first != one and second != two for one, two in pairs):
            pairs.append((first, second))
    return pairs
