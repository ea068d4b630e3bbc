"""Types of a face detector: the detector plug-in, its calls of networks, and its detections."""

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
"""`Session.run` of one network: takes the inputs by name, returns the outputs by name."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detections:
    """Faces of one picture, highest score first.

    Attributes:
        boxes: (n, 4) float32: x1, y1, x2, y2, pixels of the picture. A box may reach beyond the picture.
        scores: (n,) float32, 0 to 1.
        points: (n, 5, 2) float32, pixels of the picture, x before y: the eyes, the tip of the nose and the corners of
            the mouth. Each pair is in the order left, right as seen in the picture. None if the detector has no points.
    """

    boxes: Float32
    scores: Float32
    points: Float32 | None = None


def detections(boxes: NDArray[Any], scores: NDArray[Any], points: NDArray[Any] | None = None) -> Detections:
    """Returns `Detections` of arrays that are already sorted by score; converts dtypes and shapes.

    Args:
        boxes: n * 4 numbers in any shape: x1, y1, x2, y2, pixels of the picture. n may be 0.
        scores: (n,) numbers.
        points: n * 5 * 2 numbers in any shape, pixels of the picture, x before y; None without points.
    """
    return Detections(
        boxes=boxes.reshape(-1, 4).astype(np.float32),
        scores=scores.astype(np.float32),
        points=None if points is None else points.reshape(-1, 5, 2).astype(np.float32),
    )


SQUARE = Crop(box="detector", side="max", scale=1.0)
"""Square around the longer side of a detector's box: the crop of the published system for its landmark networks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A face detector: the plug-in of `detectors/<one>.py`.

    Attributes:
        name: Name on the command line; the name of the plug-in's file.
        summary: Purpose of the detector, one line.
        networks: Names of the backbones that the detector runs.
        find: Detects the faces of a picture. Takes the `Run` of each network, in the order of `networks`, and the
            picture, (H, W, 3) uint8, BGR, H and W at least 1.
        crop: Square around a detected box that suits a landmark network.
        open: Only for a detector that another library runs, without networks of lmconv. Takes the file or folder with
            the model, or None, and the number of threads, 0 for the library's default. Returns a function that detects
            the faces of a picture, (H, W, 3) uint8, BGR.
    """

    name: str
    summary: str
    networks: tuple[str, ...]
    find: Callable[[Sequence[Run], Uint8], Detections]
    crop: Crop = SQUARE
    open: Callable[[Path | None, int], Callable[[Uint8], Detections]] | None = None


DETECTORS: Registry[Detector] = Registry("detectors", "detector")
