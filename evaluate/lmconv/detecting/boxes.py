"""Boxes: decoded from a network's offsets, how far they overlap, and which of those that overlap stay.

A box is x1, y1, x2, y2. Where its corners are whole pixels that both belong to it, as some published detectors have it,
it is `pixel` = 1 wider and higher than their distance; else `pixel` is 0.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmconv.types import Float32

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
    boxes: NDArray[Any],
    scores: NDArray[Any],
    threshold: float,
    *,
    most: int | None = None,
    over: Over = "union",
    pixel: float = 0,
) -> NDArray[np.intp]:
    """Non-maximum suppression: the surest box stays, and of the others what overlaps with none that stays too far.

    Args:
        boxes: (n, 4) float.
        scores: (n,) float.
        threshold: Boxes that overlap by more are the same face.
        most: So many boxes are looked at, the surest; None looks at all.
        over: See `overlap`.
        pixel: See `overlap`.

    Returns:
        (m,) int: which boxes stay, the surest first; of equally sure ones the last, as in the published detectors.
    """
    order = np.argsort(scores, kind="stable")[::-1][:most]
    kept = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[overlap(boxes[best], boxes[order], over=over, pixel=pixel) <= threshold]
    return np.array(kept, np.intp)


VARIANCES = (0.1, 0.2)
"""What offsets are multiplied by, of a centre and of the logarithm of a size: SSD's (Liu et al. 2016), with which the
published detectors were trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One map of a network, and the prior boxes in each of its cells.

    Attributes:
        stride: Width and height of a cell, input pixels.
        sizes: Side of each prior, input pixels.
        per_side: In how many rows and columns each prior is repeated within a cell (Zhang et al. 2017, FaceBoxes,
            section 3.3, densification); one stands in the middle.
    """

    stride: int
    sizes: tuple[int, ...]
    per_side: tuple[int, ...]


@functools.lru_cache(maxsize=8)
def priors(levels: tuple[Level, ...], height: int, width: int) -> Float32:
    """The prior boxes of a network: by level, row, column, size, and row and column within a cell.

    Args:
        levels: Its maps.
        height: Of its input, pixels.
        width: The same.

    Returns:
        (P, 4) float32: centre x, centre y, width, height, fractions of the input. Not to be changed: the frames of a
        video, which have one size, share them.
    """
    found = np.concatenate([_level(level, height, width) for level in levels])
    found.setflags(write=False)
    return found


def _level(level: Level, height: int, width: int) -> Float32:
    within = [_within(size, per_side) for size, per_side in zip(level.sizes, level.per_side, strict=True)]
    cell = np.concatenate(within)  # x, y in cells, and side, of each prior in a cell
    rows, columns = -(-height // level.stride), -(-width // level.stride)
    y, x, prior = np.meshgrid(np.arange(rows), np.arange(columns), np.arange(len(cell)), indexing="ij")
    centres = (np.stack([x, y], -1) + cell[prior, :2]) * level.stride
    found = np.concatenate([centres, cell[prior][..., 2:].repeat(2, -1)], -1)
    return (found.reshape(-1, 4) / [width, height, width, height]).astype(np.float32)


def _within(size: int, per_side: int) -> NDArray[np.float64]:
    """(per_side ** 2, 3): x and y in a cell, and the side, of the priors of one size."""
    places = np.arange(per_side) / per_side if per_side > 1 else np.array([0.5])
    y, x = np.meshgrid(places, places, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, float(size))], 1)


def decoded(offsets: Float32, priors: Float32) -> Float32:
    """Boxes from a network's offsets.

    Args:
        offsets: (n, 4) float32: of the centre, and of the logarithm of width and height.
        priors: (n, 4) float32, see `priors`.

    Returns:
        (n, 4) float32: x1, y1, x2, y2, fractions of the input.
    """
    centres = priors[:, :2] + np.float32(VARIANCES[0]) * offsets[:, :2] * priors[:, 2:]
    sizes = priors[:, 2:] * np.exp(np.float32(VARIANCES[1]) * offsets[:, 2:])
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], 1)


def decoded_points(offsets: Float32, priors: Float32) -> Float32:
    """The same of points: offsets (n, 2 k) float32, x before y, give (n, k, 2) float32, fractions of the input."""
    moves = offsets.reshape(-1, offsets.shape[1] // 2, 2)
    return priors[:, None, :2] + np.float32(VARIANCES[0]) * moves * priors[:, None, 2:]
