"""Arrays in, differences out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmconv.types import Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far two sets of landmarks are apart.

    Attributes:
        max_abs: Largest absolute difference of a coordinate, fractions of the input.
        mean_abs: Mean of the same.
        max_px: Largest distance of a point, input pixels.
        mean_px: Mean of the same.
        n: Number of inputs.
    """

    max_abs: float
    mean_abs: float
    max_px: float
    mean_px: float
    n: int


def difference(a: Float32, b: Float32, size: tuple[int, int]) -> Difference:
    """Compares landmarks.

    Args:
        a: (n, L, 2) float32, fractions of the input, x before y.
        b: The same shape.
        size: (height, width) of the input, pixels.

    Returns:
        The difference; not a number in either makes every figure infinite, so that no tolerance lets it pass.
    """
    if a.shape != b.shape:
        raise ValueError(f"landmarks of shape {a.shape} and {b.shape} cannot be compared")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Difference(max_abs=np.inf, mean_abs=np.inf, max_px=np.inf, mean_px=np.inf, n=len(a))
    delta = a.astype(np.float64) - b.astype(np.float64)
    distance = np.linalg.norm(delta * (size[1], size[0]), axis=-1)
    return Difference(
        max_abs=float(np.abs(delta).max()),
        mean_abs=float(np.abs(delta).mean()),
        max_px=float(distance.max()),
        mean_px=float(distance.mean()),
        n=len(a),
    )


def map_difference(a: Float32, b: Float32) -> tuple[float, float]:
    """Compares heatmaps: a point jumps where two cells are next to equal, and the maps say by how little.

    Args:
        a: (n, L, h, w) float32.
        b: The same shape, the reference.

    Returns:
        Largest and mean absolute difference of a value, as fractions of the range of the reference; infinite where
        anything is not a number.
    """
    if a.shape != b.shape:
        raise ValueError(f"heatmaps of shape {a.shape} and {b.shape} cannot be compared")
    span = float(np.ptp(b)) or 1.0
    gap = np.abs(a - b) / span
    if not np.isfinite(gap).all():
        return np.inf, np.inf
    return float(gap.max()), float(gap.mean(dtype=np.float64))
