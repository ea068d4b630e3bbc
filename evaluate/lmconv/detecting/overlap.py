"""Overlap of bounding boxes: intersection over union, or over the smaller box.

A box is (x1, y1, x2, y2). Some published detectors count both corners as pixels of the box: width and height are then
`pixel` = 1 larger than the distance of the corners. Otherwise `pixel` is 0.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Over: TypeAlias = Literal["union", "smaller"]
"""Denominator of the overlap: area of the union of two boxes (IoU), or area of the smaller box."""


def overlap(box: NDArray[Any], others: NDArray[Any], *, over: Over = "union", pixel: float = 0) -> NDArray[Any]:
    """Returns the overlap of a box with other boxes.

    Args:
        box: (4,) float, or (..., 4) float that broadcasts against `others`: x1, y1, x2, y2.
        others: (n, 4) float, in the same unit.
        over: Denominator of the overlap.
        pixel: Number added to every width and height.

    Returns:
        (n,) float, or float of the broadcast shape: the overlap, 0 to 1; 0 if the denominator is 0.
    """
    top_left, bottom_right = np.maximum(box[..., :2], others[..., :2]), np.minimum(box[..., 2:], others[..., 2:])
    intersection = np.maximum(bottom_right - top_left + pixel, 0).prod(axis=-1)
    first, second = area(box, pixel=pixel), area(others, pixel=pixel)
    denominator = first + second - intersection if over == "union" else np.minimum(first, second)
    return np.asarray(np.divide(intersection, denominator, out=np.zeros_like(intersection), where=denominator > 0))


def area(boxes: NDArray[Any], *, pixel: float = 0) -> NDArray[Any]:
    """Returns the areas of boxes.

    Args:
        boxes: (..., 4) float: x1, y1, x2, y2.
        pixel: Number added to every width and height.

    Returns:
        (...,) float, square units of `boxes`; 0 if x2 < x1 or y2 < y1.
    """
    return np.asarray(np.maximum(boxes[..., 2:] - boxes[..., :2] + pixel, 0).prod(axis=-1))
