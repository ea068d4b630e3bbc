"""Arrays in, differences out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lmconv.types import Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far two sets of landmarks are apart, or the raw outputs of two detectors.

    Attributes:
        max_abs: Largest absolute difference of a coordinate, fractions of the input; or of a raw number.
        mean_abs: Mean of the same.
        max_px: Largest distance of a point, input pixels; not a number of raw outputs.
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


def raw_difference(a: Mapping[str, Float32], b: Mapping[str, Float32]) -> Difference:
    """Compares the raw outputs of two detectors: (n, …) float32 each, by name, the same shapes in both.

    Not a number in either makes every figure infinite.
    """
    apart = {name: (a[name].shape, b[name].shape) for name in b if a[name].shape != b[name].shape}
    if apart:
        raise ValueError(f"outputs of other shapes cannot be compared: {apart}")
    deltas = np.concatenate([np.abs(a[name].astype(np.float64) - b[name]).ravel() for name in b])
    worst, mean = (float(deltas.max()), float(deltas.mean())) if np.isfinite(deltas).all() else (np.inf, np.inf)
    return Difference(max_abs=worst, mean_abs=mean, max_px=np.nan, mean_px=np.nan, n=len(next(iter(b.values()))))


def map_difference(a: Float32, b: Float32) -> tuple[float, float]:
    """Compares heatmaps, or raw outputs: a point jumps where two cells are next to equal, and maps say by how little.

    Args:
        a: Such as (n, L, h, w) float32.
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
