"""Outputs of a network for several inputs, and the gap between the outputs of two networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        undecided: (n, L) bool, points that rounding alone can move: ties between cells of a heatmap, or jumps of a
            network that decodes inside, see `lmconv.inference.ties`. None if no point was looked at.
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


def decided(outputs: Outputs, expected: Outputs) -> Float32:
    """Returns the landmarks, (n, L, 2) float32, with the expected value at each undecided point of `expected`."""
    if expected.undecided is None:
        return outputs.landmarks
    return np.where(expected.undecided[..., None], expected.landmarks, outputs.landmarks)


def joined(parts: Sequence[NDArray[np.bool_] | None]) -> NDArray[np.bool_] | None:
    """Joins the masks of undecided points of several parts; None if a part has no mask."""
    masks = [part for part in parts if part is not None]
    return np.concatenate(masks) if masks and len(masks) == len(parts) else None
