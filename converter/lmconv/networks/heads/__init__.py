"""The kinds of output that a network can have: landmarks, heatmaps, SimCC vectors, or the raw outputs of a detector."""

from __future__ import annotations

from lmconv.networks.heads.base import Head
from lmconv.networks.heads.heatmaps import HeatmapsHead
from lmconv.networks.heads.points import PointsHead
from lmconv.networks.heads.raw import RawHead
from lmconv.networks.heads.simcc import SimccHead
from lmconv.types import ModelSpec

__all__ = ["Head", "HeatmapsHead", "PointsHead", "RawHead", "SimccHead", "choice_notes", "head_of"]


def head_of(spec: ModelSpec) -> Head:
    """Returns the head of a network."""
    if spec.task == "detection":
        return RawHead(spec)
    if spec.heatmaps:
        return (SimccHead if spec.heatmaps.method == "simcc" else HeatmapsHead)(spec)
    return PointsHead(spec)


def choice_notes(spec: ModelSpec) -> list[str]:
    """Returns notes for the user about the chosen outputs: outputs left out, and a unit that the values show."""
    chosen = spec.chosen
    if chosen is None:
        return []
    notes = []
    if chosen.left_out:
        holder = " and ".join(name or "the output" for name in chosen.names)
        notes.append(f"the landmarks are in {holder}; left out: {'; '.join(chosen.left_out)}")
    if spec.decode != "fraction" and chosen.unit_reason != "--unit":
        notes.append(f"the unit of the landmarks is {spec.decode}: {chosen.unit_reason} (--unit overrides)")
    return notes
