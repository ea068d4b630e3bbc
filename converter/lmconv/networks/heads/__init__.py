"""The kinds of output that a network can have: landmarks, heatmaps, SimCC vectors, or the raw outputs of a detector."""

from __future__ import annotations

from lmconv.networks.heads.base import Head
from lmconv.networks.heads.heatmaps import HeatmapsHead
from lmconv.networks.heads.points import PointsHead
from lmconv.networks.heads.raw import RawHead
from lmconv.networks.heads.simcc import SimccHead
from lmconv.types import ModelSpec

__all__ = ["Head", "HeatmapsHead", "PointsHead", "RawHead", "SimccHead", "head_of"]


def head_of(spec: ModelSpec) -> Head:
    """Returns the head of a network."""
    if spec.task == "detection":
        return RawHead(spec)
    if spec.heatmaps:
        return (SimccHead if spec.heatmaps.method == "simcc" else HeatmapsHead)(spec)
    return PointsHead(spec)
