"""Faces of a picture: found, their squares cut, all their landmarks computed in one call, and mapped back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmconv.inference.scenes import on_squares
from lmconv.networks.squares import Square, around
from lmconv.types import Crop, Float32, Float64, ModelSpec, Session, Uint8

LARGEST = 2
"""How many times the picture's longer side a square may be: a larger one is no face, and needs memory without end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where a face is.

    Attributes:
        box: x1, y1, x2, y2, pixels of the picture.
        square: What the network gets of it: left, top, side, whole pixels.
        score: Of the detector; None where there was none.
    """

    box: tuple[float, float, float, float]
    square: Square
    score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Face:
    """A face with its landmarks.

    Attributes:
        found: Where it was cut out.
        landmarks: (L, 2) float64, pixels of the picture, x before y.
        track: The number of the person in a video; None in a picture.
    """

    found: Found
    landmarks: Float64
    track: int | None = None

    @property
    def box(self) -> Float64:
        """(4,) float64: the tight box of its landmarks."""
        return np.concatenate([self.landmarks.min(axis=0), self.landmarks.max(axis=0)])


def within(square: Square, picture: Uint8) -> bool:
    """Whether a square can be cut out of a picture: it is neither empty nor far too large, and not all beside it."""
    left, top, side = square
    height, width = picture.shape[:2]
    inside = left < width and top < height and left + side > 0 and top + side > 0
    return inside and 1 <= side <= LARGEST * max(width, height)


def locate(session: Session, spec: ModelSpec, picture: Uint8, squares: Sequence[Square]) -> Float64:
    """Landmarks of the faces in these squares, in one call, whatever the artefact takes.

    Returns:
        (n, L, 2) float64, pixels of the picture.
    """
    return on_squares(session, spec, picture, squares)


def from_boxes(boxes: Float32, scores: Float32, crop: Crop, picture: Uint8) -> list[Found]:
    """What a detector has found, in its order; without boxes that no crop can be made of."""
    rows = [
        Found(box=(box[0], box[1], box[2], box[3]), square=around(box, crop), score=score)
        for box, score in zip(boxes.tolist(), scores.tolist(), strict=True)
        if np.isfinite(box).all()
    ]
    return [row for row in rows if within(row.square, picture)]
