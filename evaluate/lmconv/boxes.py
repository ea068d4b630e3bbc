"""Boxes: how far they overlap, and which of those that overlap stay.

A box is x1, y1, x2, y2. Where its corners are whole pixels that both belong to it, as some published detectors have it,
it is `pixel` = 1 wider and higher than their distance; else `pixel` is 0.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Over: TypeAlias = Literal["union", "smaller"]
"""What an intersection is divided by: the union of two boxes, or the smaller of them."""


def overlap(one: NDArray[Any], others: NDArray[Any], *, over: Over = "union", pixel: float = 0) -> NDArray[Any]:
    """How far a box overlaps with others: the intersection as a share of `over`; 0 where that has no area.

    Args:
        one: (4,) or, broadcast against the others, (..., 4) float.
        others: (n, 4) float, in the same unit.
        over: What the intersection is divided by.
        pixel: What is added to every width and height.

    Returns:
        (n,) float, between 0 and 1; of the broadcast shape.
    """
    low, high = np.maximum(one[..., :2], others[..., :2]), np.minimum(one[..., 2:], others[..., 2:])
    shared = np.maximum(high - low + pixel, 0).prod(axis=-1)
    first, second = area(one, pixel=pixel), area(others, pixel=pixel)
    whole = first + second - shared if over == "union" else np.minimum(first, second)
    return np.asarray(np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0))


def area(boxes: NDArray[Any], *, pixel: float = 0) -> NDArray[Any]:
    """(...,) float: of boxes (..., 4); 0 where a corner is on the wrong side."""
    return np.asarray(np.maximum(boxes[..., 2:] - boxes[..., :2] + pixel, 0).prod(axis=-1))


def suppress(
    boxes: NDArray[Any], scores: NDArray[Any], threshold: float, *, over: Over = "union", pixel: float = 0
) -> NDArray[np.intp]:
    """Non-maximum suppression: the surest box stays, and of the others what overlaps with none that stays too far.

    Args:
        boxes: (n, 4) float.
        scores: (n,) float.
        threshold: Boxes that overlap by more are the same face.
        over: See `overlap`.
        pixel: See `overlap`.

    Returns:
        (m,) int: which boxes stay, in the order of `surest`.
    """
    order = surest(scores)
    kept = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[overlap(boxes[best], boxes[order], over=over, pixel=pixel) <= threshold]
    return np.array(kept, np.intp)


def surest(scores: NDArray[Any], most: int | None = None) -> NDArray[np.intp]:
    """Where the `most` highest scores are, the highest first; of equal ones the last, as the published detectors do."""
    return np.argsort(scores, kind="stable")[::-1][:most]
