"""Units of a network's points: conversion to fractions and to pixels of the crop, and the unit that values show."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmconv.types import Axes, Float32, PointUnit


def pixels_per_unit(unit: PointUnit, size: tuple[int, int], count: int = 2) -> tuple[Float32, Float32]:
    """Returns the factors and offsets from a unit to pixels of the crop, one per coordinate.

    Args:
        unit: Unit of the points.
        size: (height, width) of the input, pixels.
        count: Number of coordinates, 2 or 3; z has the factor of x and no offset.

    Returns:
        (count,) float32 factors and (count,) float32 offsets: pixels = value * factor + offset.
    """
    height, width = size
    sides = np.array((width, height, width)[:count], np.float32)
    halves: Float32 = sides * np.array((0.5, 0.5, 0)[:count], np.float32)
    if unit == "pixels":
        return np.ones(count, np.float32), np.zeros(count, np.float32)
    if unit == "[-1,1]":
        return sides * np.float32(0.5), halves
    return sides, np.zeros(count, np.float32)


def to_fractions(points: Float32, unit: PointUnit, size: tuple[int, int]) -> Float32:
    """Converts points to fractions of the crop.

    Args:
        points: (n, L, 2 or 3) float32, x before y.
        unit: Their unit.
        size: (height, width) of the input, pixels.

    Returns:
        The same shape, float32.
    """
    if unit == "fraction":
        return points.astype(np.float32, copy=False)
    count = points.shape[-1]
    factors, offsets = pixels_per_unit(unit, size, count)
    sides = pixels_per_unit("fraction", size, count)[0]
    return ((points * factors + offsets) / sides).astype(np.float32, copy=False)


def shown_unit(values: NDArray[Any], landmarks: int, axes: Axes) -> tuple[PointUnit, str]:
    """Returns the unit that the values of an output show, and the reason in words.

    Points of a face are spread around its centre. A median of x and of y above 2 can only be pixels. Values that fill
    most of the range from -1 to 1, centred at zero, are from -1 to 1 if each point stays near its place from input to
    input, as a trained network's points do. All other values are fractions, the unit without conversion.

    Args:
        values: (n, ...) values for n seeded inputs.
        landmarks: Number of points.
        axes: Coordinates of a point.
    """
    points = values.reshape(len(values), -1)[:, : landmarks * len(axes)].reshape(len(values), -1, len(axes))
    plane = points[..., :2].astype(np.float64)
    if not plane.size or not np.isfinite(plane).all():
        return "fraction", "no value shows another unit"
    low, high, middle = float(plane.min()), float(plane.max()), np.median(plane, (0, 1))
    text = f"x and y are {low:.3g} to {high:.3g} on seeded inputs, with medians {middle[0]:.3g} and {middle[1]:.3g}"
    if middle.min() > 2:
        return "pixels", text
    steady = float(plane.std(0).mean()) < 0.3 * float(plane.std())
    if steady and -1.3 <= low <= -0.5 and 0.5 <= high <= 1.3 and np.abs(middle).max() < 0.25:
        return "[-1,1]", text
    return "fraction", text
