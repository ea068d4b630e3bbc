"""Faces of a picture: their regions are cut out, all their landmarks are computed in one call and mapped back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmconv.detection import Detections
from lmconv.inference.scenes import on_squares
from lmconv.networks.squares import Square, around
from lmconv.types import Crop, Float64, ModelSpec, Session, Uint8

MAX_SQUARE_RATIO = 2
"""Largest side of a square, as a multiple of the picture's longer side. A larger square is no face, and the memory for
its crop has no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Region of a picture that holds a face.

    Attributes:
        box: x1, y1, x2, y2, pixels of the picture.
        square: Square that is cut out for the network: left, top, side, whole pixels of the picture.
        score: Score of the detector, 0 to 1; None for a region without a score.
    """

    box: tuple[float, float, float, float]
    square: Square
    score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Face:
    """A face with its landmarks.

    Attributes:
        region: Region that was cut out for the network.
        landmarks: (L, 2) float64, pixels of the picture, x before y.
        track: Number of the face in a video; None in a picture.
    """

    region: Region
    landmarks: Float64
    track: int | None = None

    @property
    def box(self) -> Float64:
        """Tight box of the landmarks, (4,) float64: x1, y1, x2, y2, pixels of the picture."""
        return np.concatenate([self.landmarks.min(axis=0), self.landmarks.max(axis=0)])


def can_cut(square: Square, picture: Uint8) -> bool:
    """Returns True if the square overlaps with the picture and its side is from 1 pixel to the largest allowed side.

    Args:
        square: left, top, side, pixels of the picture.
        picture: (H, W, 3) uint8.
    """
    left, top, side = square
    height, width = picture.shape[:2]
    overlaps = left < width and top < height and left + side > 0 and top + side > 0
    return overlaps and 1 <= side <= MAX_SQUARE_RATIO * max(width, height)


def predict_landmarks(session: Session, spec: ModelSpec, picture: Uint8, squares: Sequence[Square]) -> Float64:
    """Computes the landmarks of the faces in n squares, in one call of an artefact with any kind of input.

    Args:
        session: The opened artefact.
        spec: Spec of the artefact.
        picture: (H, W, 3) uint8, BGR.
        squares: left, top, side of each face, pixels of the picture.

    Returns:
        (n, L, 2) float64, pixels of the picture, x before y.
    """
    return on_squares(session, spec, picture, squares)


def regions_of(detections: Detections, crop: Crop, picture: Uint8) -> list[Region]:
    """Converts detections to regions, in the same order; drops boxes that are not finite or cannot be cut out.

    Args:
        detections: Detections of the picture.
        crop: Rule for the square around a box.
        picture: (H, W, 3) uint8.
    """
    regions = [
        Region(box=(box[0], box[1], box[2], box[3]), square=around(box, crop), score=score)
        for box, score in zip(detections.boxes.tolist(), detections.scores.tolist(), strict=True)
        if np.isfinite(box).all()
    ]
    return [region for region in regions if can_cut(region.square, picture)]
