"""Differences between the outputs of two networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lmconv.types import Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Difference between two sets of landmarks, or between the raw outputs of two detectors.

    Attributes:
        max_abs: Largest absolute difference of a coordinate, fractions of the input; or of a raw number.
        mean_abs: Mean of the same.
        max_px: Largest distance of a point, input pixels; NaN for raw outputs.
        mean_px: Mean of the same.
        n: Number of inputs.
        scale: Largest absolute coordinate of the reference, at least 1, see `largest`; 1 for raw outputs.
    """

    max_abs: float
    mean_abs: float
    max_px: float
    mean_px: float
    n: int
    scale: float = 1.0


def largest(landmarks: Float32) -> float:
    """Returns the scale by which limits on landmarks are multiplied: the largest absolute coordinate, at least 1.

    float32 and float16 round a number relative to the size of the number. Fractions of the input have the scale 1. A
    network whose outputs reach 192 has the scale 192.

    Args:
        landmarks: (n, L, 2) float32 of the reference.
    """
    return max(1.0, float(np.abs(landmarks).max(initial=0.0)))


def difference(a: Float32, b: Float32, size: tuple[int, int]) -> Difference:
    """Compares landmarks.

    Args:
        a: (n, L, 2 or 3) float32, fractions of the input, x before y; the third coordinate has the scale of x.
        b: Reference, the same shape.
        size: (height, width) of the input, pixels.

    Returns:
        The difference; NaN or infinity in an input makes every figure infinite, which no tolerance accepts.
    """
    if a.shape != b.shape:
        raise ValueError(f"landmarks of shape {a.shape} and {b.shape} cannot be compared")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Difference(max_abs=np.inf, mean_abs=np.inf, max_px=np.inf, mean_px=np.inf, n=len(a))
    delta = a.astype(np.float64) - b.astype(np.float64)
    distance = np.linalg.norm(delta * (size[1], size[0], size[1])[: delta.shape[-1]], axis=-1)
    return Difference(
        max_abs=float(np.abs(delta).max()),
        mean_abs=float(np.abs(delta).mean()),
        max_px=float(distance.max()),
        mean_px=float(distance.mean()),
        n=len(a),
        scale=largest(b),
    )


def raw_difference(a: Mapping[str, Float32], b: Mapping[str, Float32]) -> Difference:
    """Compares the raw outputs of two detectors: (n, …) float32 by name, with equal shapes.

    NaN or infinity makes every figure infinite.
    """
    unequal = {name: (a[name].shape, b[name].shape) for name in b if a[name].shape != b[name].shape}
    if unequal:
        raise ValueError(f"outputs of other shapes cannot be compared: {unequal}")
    deltas = np.concatenate([np.abs(a[name].astype(np.float64) - b[name]).ravel() for name in b])
    worst, mean = (float(deltas.max()), float(deltas.mean())) if np.isfinite(deltas).all() else (np.inf, np.inf)
    return Difference(max_abs=worst, mean_abs=mean, max_px=np.nan, mean_px=np.nan, n=len(next(iter(b.values()))))


def map_difference(a: Float32, b: Float32) -> tuple[float, float]:
    """Compares heatmaps, or raw outputs of a detector.

    A landmark jumps between two cells of almost equal value; the difference of the maps stays small.

    Args:
        a: Any shape, for example (n, L, h, w) float32.
        b: Reference, the same shape.

    Returns:
        Largest and mean absolute difference of a value, as fractions of the range of the reference; infinite if a
        value is NaN or infinite.
    """
    if a.shape != b.shape:
        raise ValueError(f"heatmaps of shape {a.shape} and {b.shape} cannot be compared")
    span = float(np.ptp(b)) or 1.0
    gap = np.abs(a - b) / span
    if not np.isfinite(gap).all():
        return np.inf, np.inf
    return float(gap.max()), float(gap.mean(dtype=np.float64))
