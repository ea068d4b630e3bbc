"""Squares around faces, cut out on the host; `lmconv.networks.crop_graph` does the same inside a graph.

A square is `(left, top, side)` in whole pixels of the picture. The square may reach beyond the border, where a crop is
black. Landmarks are mapped back by the same, *unclipped* square. (The reference scripts of
cunjian/pytorch_face_landmark clip the square first, which shifts the landmarks of every face at a border.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmconv.types import Crop, Float32, Float64, Uint8

Square: TypeAlias = tuple[int, int, int]


def around(box: Sequence[float], crop: Crop) -> Square:
    """Returns the square around a box.

    A detector's box is first truncated to whole pixels, as in the reference scripts; a box of landmarks is extended to
    whole pixels.

    Args:
        box: x1, y1, x2, y2, pixels of the picture.
        crop: Side of the box that counts, and scale of the square.

    Returns:
        (left, top, side), whole pixels.
    """
    if crop.box == "detector":
        box = [math.trunc(side) for side in box]
    x1, y1 = math.floor(box[0]), math.floor(box[1])
    x2, y2 = math.ceil(box[2]), math.ceil(box[3])
    width, height = x2 - x1 + 1, y2 - y1 + 1
    longer = crop.side == "max"
    side = scaled(max(width, height) if longer else min(width, height), crop)
    return x1 + width // 2 - side // 2, y1 + height // 2 - side // 2, side


def scaled(side: int, crop: Crop) -> int:
    """Returns the side of the square around a box with this side, both whole pixels."""
    return int(side * crop.scale)


def box_of(square: Square, crop: Crop) -> tuple[float, float, float, float]:
    """Returns the box whose square, as `around` computes it, is this square or one pixel smaller.

    A scale above 1 skips some sides: 1.2 times whole pixels is never 11.

    Args:
        square: (left, top, side), whole pixels.
        crop: Rule of the square.

    Returns:
        x1, y1, x2, y2, whole pixels.
    """
    left, top, side = square
    width = max(1, round(side / crop.scale))
    while scaled(width, crop) > side and width > 1:
        width -= 1
    while scaled(width + 1, crop) <= side:
        width += 1
    x, y = left + side // 2 - width // 2, top + side // 2 - width // 2
    return x, y, x + width - 1, y + width - 1


def cut(image: Uint8, square: Square, size: tuple[int, int]) -> Uint8:
    """Cuts a square out of a picture and resizes it bilinearly.

    Args:
        image: (H, W, 3) uint8, BGR.
        square: (left, top, side), pixels; black where it reaches beyond the picture.
        size: (h, w) of the result, pixels.

    Returns:
        (h, w, 3) uint8, BGR.
    """
    import cv2

    left, top, side = square
    height, width = image.shape[:2]
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    inside = image[y1:y2, x1:x2] if x1 < x2 and y1 < y2 else image[:0, :0]
    if inside.shape[:2] != (side, side):
        padded = np.zeros((side, side, 3), np.uint8)
        if inside.size:
            padded[y1 - top : y2 - top, x1 - left : x2 - left] = inside
        inside = padded
    return as_uint8(cv2.resize(inside, size[::-1], interpolation=cv2.INTER_LINEAR))


def to_picture(points: Float32 | Float64, squares: NDArray[np.int64]) -> Float64:
    """Maps landmarks from crops to the pictures.

    Args:
        points: (n, L, 2 or 3) float, fractions of the crop, x before y; a third coordinate is left out.
        squares: (n, 3) int64: left, top, side, pixels.

    Returns:
        (n, L, 2) float64, pixels of the picture.
    """
    return points[..., :2].astype(np.float64) * squares[:, None, 2:] + squares[:, None, :2]


def to_crops(points: Float32 | Float64, squares: NDArray[np.int64]) -> Float32:
    """Maps landmarks from the pictures to crops.

    Args:
        points: (n, L, 2 or 3) float, pixels of the picture, x before y; a third coordinate has no origin.
        squares: (n, 3) int64: left, top, side, pixels.

    Returns:
        The same shape, float32, fractions of the crop.
    """
    corners = np.pad(squares[:, None, :2], ((0, 0), (0, 0), (0, points.shape[-1] - 2)))
    fractions = (points.astype(np.float64) - corners) / squares[:, None, 2:]
    return fractions.astype(np.float32)


def as_uint8(array: NDArray[Any]) -> Uint8:
    """Declares the dtype of an OpenCV result: the stubs of OpenCV declare none."""
    return np.asarray(array, np.uint8)
