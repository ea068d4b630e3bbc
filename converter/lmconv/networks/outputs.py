"""Outputs of a network for several inputs, and the gap between the outputs of two networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lmconv.networks.compare import Difference
from lmconv.types import Float32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outputs:
    """Outputs of a network for n inputs.

    Attributes:
        landmarks: (n, L, 2 or 3) float32, x before y, fractions of the input; L is 0 for a network with raw outputs.
        heatmaps: (m, L, h, w) float32 of the first m inputs, or (m, L, w) vectors of SimCC; None for a network without
            heatmaps, or if none are kept.
        undecided: (n, L) bool, points that rounding alone can move; None for a network without heatmaps.
        raw: Raw outputs of a detector by name, (n, …) float32; empty for every other network.
    """

    landmarks: Float32
    heatmaps: Float32 | None = None
    undecided: NDArray[np.bool_] | None = None
    raw: Mapping[str, Float32] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Differences between the outputs of two networks.

    Attributes:
        landmarks: Difference of the landmarks, without the undecided points; for raw outputs the difference of all
            numbers.
        max_map: Largest difference of a heatmap value, fractions of the range of the maps; for raw outputs the largest
            difference of a number, fractions of the range of its output. None without heatmaps.
        mean_map: Mean of the same; for raw outputs the mean of the output with the largest mean.
        undecided: Number of undecided points, which are left out.
    """

    landmarks: Difference
    max_map: float | None = None
    mean_map: float | None = None
    undecided: int = 0
