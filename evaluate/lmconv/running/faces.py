"""Faces of a picture: their regions are cut out, all their landmarks are computed in one call and mapped back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmconv.detection import Detections
from lmconv.inference.session import feed, in_colours, landmarks
from lmconv.inference.session import outputs as session_outputs
from lmconv.networks.squares import Square, around, cut, scaled, to_picture
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
    if not squares:
        return np.empty((0, spec.landmarks, 2))
    if spec.io == "frame":
        boxes = np.array([box_for_square(square, spec.crop) for square in squares], np.float32)
        outputs = session_outputs(session, spec, boxes, frame=in_colours(picture, spec), maps=0)
        graph_squares = np.array([around(box, spec.crop) for box in boxes.tolist()])
        return to_picture(outputs.landmarks, graph_squares)
    crops = np.stack([cut(picture, square, spec.input_size) for square in squares])
    return to_picture(landmarks(session, spec, feed(crops, spec)), np.array(squares))


def box_for_square(square: Square, crop: Crop) -> tuple[float, float, float, float]:
    """Returns the box for which an artefact with a frame input cuts out this square, or a slightly smaller square.

    With a factor above 1 no box has some sides of squares: 1.2 times a whole number, rounded down, is never 11.

    Args:
        square: left, top, side, pixels of the picture.
        crop: Rule by which the artefact's graph cuts a square around a box.

    Returns:
        x1, y1, x2, y2, whole pixels of the picture.
    """
    left, top, side = square
    width = max(1, round(side / crop.scale))
    while scaled(width, crop) > side and width > 1:
        width -= 1
    while scaled(width + 1, crop) <= side:
        width += 1
    x, y = left + side // 2 - width // 2, top + side // 2 - width // 2
    return x, y, x + width - 1, y + width - 1


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
