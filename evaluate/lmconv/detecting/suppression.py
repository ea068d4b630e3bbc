"""Non-maximum suppression: of boxes that overlap too much, only the box with the highest score remains."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmconv.detecting.overlap import Over, overlap


def suppress(
    boxes: NDArray[Any],
    scores: NDArray[Any],
    threshold: float,
    *,
    max_candidates: int | None = None,
    over: Over = "union",
    pixel: float = 0,
) -> NDArray[np.intp]:
    """Returns the boxes that remain after greedy non-maximum suppression.

    The box with the highest score remains. Every other box whose overlap with this box exceeds `threshold` is dropped.
    The same step repeats on the remaining boxes.

    Args:
        boxes: (n, 4) float: x1, y1, x2, y2.
        scores: (n,) float.
        threshold: Two boxes with a larger overlap are the same face.
        max_candidates: Number of boxes with the highest scores that are considered; None considers all.
        over: Denominator of the overlap, see `lmconv.detecting.overlap.overlap`.
        pixel: Number added to every width and height, see `lmconv.detecting.overlap.overlap`.

    Returns:
        (m,) int: indices of the remaining boxes, highest score first. Of equal scores the last comes first, as in the
        published detectors.
    """
    order = np.argsort(scores, kind="stable")[::-1][:max_candidates]
    remaining = []
    while order.size:
        best, order = order[0], order[1:]
        remaining.append(best)
        order = order[overlap(boxes[best], boxes[order], over=over, pixel=pixel) <= threshold]
    return np.array(remaining, np.intp)
