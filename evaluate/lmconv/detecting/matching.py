"""Matches the boxes of a detector to annotated faces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lmconv.data import Face
from lmconv.detecting.overlap import overlap
from lmconv.detection import Detections
from lmconv.types import Float32, Uint8

MIN_IOU = 0.3
"""IoU that a detector's box must exceed to match the tight box of an annotated face's landmarks."""


def box_matcher(detect: Callable[[Uint8], Detections]) -> Callable[[Face, Uint8], Float32 | None]:
    """Returns a function that matches a detector's box to an annotated face.

    The match is the box with the largest IoU with the tight box of the annotated points. The detector runs once on each
    picture or frame: its boxes are cached.

    Args:
        detect: Detects the faces of a picture, (H, W, 3) uint8, BGR.

    Returns:
        A function of an annotated face and its picture, (H, W, 3) uint8, BGR. The function returns (4,) float32: x1,
        y1, x2, y2, pixels of the picture; or None if no IoU exceeds `MIN_IOU`. The function is the argument `boxes` of
        `lmconv.faces.crops.load_face_crops`.
    """
    cache: dict[tuple[Path, int | None], Float32] = {}

    def match(face: Face, picture: Uint8) -> Float32 | None:
        key = face.image, face.frame
        if key not in cache:
            cache[key] = detect(picture).boxes
        tight = np.concatenate([face.points.min(axis=0), face.points.max(axis=0)])
        ious = overlap(tight, cache[key])
        return cache[key][ious.argmax()] if (ious > MIN_IOU).any() else None

    return match
