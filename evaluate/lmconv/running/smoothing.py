"""The one-euro filter: landmarks that rest when the face rests, and follow it when it moves.

Casiez, Roussel, Vogel, "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive Systems",
CHI 2012. The cutoff of a low-pass filter grows with the speed of the point, itself low-passed. Speeds are in sizes of
the face, so that a face does as well near the camera as far from it, and are those of points rather than coordinates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmconv.types import Float64


@dataclass(frozen=True, slots=True, kw_only=True)
class OneEuro:
    """Settings of the filter.

    Attributes:
        cutoff: Of a point at rest, Hz (the paper's mincutoff): lower is steadier, and slower to start.
        beta: Hz more for every face size a second: higher follows faster, with less lag.
        derivative: Cutoff of the speed, Hz (the paper's dcutoff).
    """

    cutoff: float = 1.0
    beta: float = 20.0
    derivative: float = 1.0


SETTINGS = OneEuro()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Smoothed:
    """A face after the filter.

    Attributes:
        points: (L, 2) float64, pixels.
        speed: (L, 2) float64, low-passed, face sizes a second.
    """

    points: Float64
    speed: Float64


def smooth(
    last: Smoothed | None, points: Float64, *, seconds: float, size: float, settings: OneEuro = SETTINGS
) -> Smoothed:
    """The next state of a face.

    Args:
        last: The state before; None for a face that is new, which stays as it is.
        points: (L, 2) float64, pixels.
        seconds: Since the last.
        size: Of the face, pixels.
        settings: Of the filter.
    """
    if last is None:
        return Smoothed(points=points, speed=np.zeros_like(points))
    change = (points - last.points) / (size * seconds)
    speed = last.speed + weight(settings.derivative, seconds) * (change - last.speed)
    cutoff = settings.cutoff + settings.beta * np.linalg.norm(speed, axis=1, keepdims=True)
    return Smoothed(points=last.points + weight(cutoff, seconds) * (points - last.points), speed=speed)


def weight(cutoff: float | NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """Share of a new value in exponential smoothing, for a cutoff in Hz."""
    return np.asarray(1 / (1 + 1 / (2 * math.pi * cutoff * seconds)))
