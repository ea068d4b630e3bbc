"""One-euro filter for landmarks: steady while the face rests, with little lag while the face moves.

Casiez, Roussel, Vogel, "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive Systems",
CHI 2012. The cutoff of a low-pass filter grows with the speed of the point; the speed itself is low-passed. Two choices
differ from the paper. Speeds are in face sizes per second, so that the filter does not depend on the distance to the
camera. Speeds are those of points, not of single coordinates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmconv.types import Float64


@dataclass(frozen=True, slots=True, kw_only=True)
class OneEuro:
    """Parameters of the filter.

    Attributes:
        cutoff: Cutoff of a point at rest, Hz (mincutoff in the paper). A lower value is steadier and reacts later.
        beta: Increase of the cutoff per unit of speed, Hz per face size per second. A higher value has less lag.
        derivative: Cutoff of the speed, Hz (dcutoff in the paper).
    """

    cutoff: float = 1.0
    beta: float = 20.0
    derivative: float = 1.0


DEFAULTS = OneEuro()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Smoothed:
    """State of the filter after one frame.

    Attributes:
        points: (L, 2) float64, filtered landmarks, pixels, x before y.
        speed: (L, 2) float64, low-passed speed, face sizes per second.
    """

    points: Float64
    speed: Float64


def smooth(
    previous: Smoothed | None, points: Float64, *, seconds: float, size: float, parameters: OneEuro = DEFAULTS
) -> Smoothed:
    """Filters the landmarks of one face in one frame.

    Args:
        previous: State after the previous frame; None for a new face, whose points stay unchanged.
        points: (L, 2) float64, pixels, x before y.
        seconds: Time since the previous frame.
        size: Size of the face, pixels.
        parameters: Parameters of the filter.

    Returns:
        The state after this frame.
    """
    if previous is None:
        return Smoothed(points=points, speed=np.zeros_like(points))
    raw_speed = (points - previous.points) / (size * seconds)
    speed = previous.speed + smoothing_factor(parameters.derivative, seconds) * (raw_speed - previous.speed)
    cutoff = parameters.cutoff + parameters.beta * np.linalg.norm(speed, axis=1, keepdims=True)
    factor = smoothing_factor(cutoff, seconds)
    return Smoothed(points=previous.points + factor * (points - previous.points), speed=speed)


def smoothing_factor(cutoff: float | NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """Returns the weight of a new value in exponential smoothing, 0 to 1.

    Args:
        cutoff: Cutoff, Hz; a number or an array.
        seconds: Time between two values.
    """
    return np.asarray(1 / (1 + 1 / (2 * math.pi * cutoff * seconds)))
