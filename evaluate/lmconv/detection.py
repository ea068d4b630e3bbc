"""The types of detected faces and of what detects them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmconv.plugins import Registry
from lmconv.types import Arrays, Crop, Float32, Uint8

Run: TypeAlias = Callable[[Arrays], Mapping[str, NDArray[Any]]]
"""`Session.run` of a network."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detections:
    """The faces of one picture, the surest first.

    Attributes:
        boxes: (n, 4) float32: x1, y1, x2, y2, pixels of the picture; they may reach beyond it.
        scores: (n,) float32, between 0 and 1.
        points: (n, 5, 2) float32, pixels, x before y: the eyes, the tip of the nose and the corners of the mouth, each
            pair from left to right as seen in the picture; None from a detector that gives none.
    """

    boxes: Float32
    scores: Float32
    points: Float32 | None = None


def detections(boxes: NDArray[Any], scores: NDArray[Any], points: NDArray[Any] | None = None) -> Detections:
    """Detections of faces that are in order, from what has their numbers; n may be 0."""
    return Detections(
        boxes=boxes.reshape(-1, 4).astype(np.float32),
        scores=scores.astype(np.float32),
        points=None if points is None else points.reshape(-1, 5, 2).astype(np.float32),
    )


SQUARE = Crop(box="detector", side="max", scale=1.0)
"""Around the longer side of a box: what the published system cuts for its landmark networks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A face detector: the plug-in of `detectors/<one>.py`.

    Attributes:
        networks: The backbones that it runs, in the order in which `find` takes them.
        find: The faces of a picture, (H, W, 3) uint8, BGR, of any size, as these networks see them.
        crop: The square that a landmark network gets of one of its boxes.
        open: For a detector that is another library's, and has no networks here: gives what finds the faces of a
            picture, from the file or folder with its model, or None, and a number of threads, or 0.
    """

    name: str
    summary: str
    networks: tuple[str, ...]
    find: Callable[[Sequence[Run], Uint8], Detections]
    crop: Crop = SQUARE
    open: Callable[[Path | None, int], Callable[[Uint8], Detections]] | None = None


DETECTORS: Registry[Detector] = Registry("detectors", "detector")
