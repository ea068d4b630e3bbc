"""Errors of one network on every face of a data set: the data of a cumulative error curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmconv.types import Float64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FaceErrors:
    """Errors of one network on every face.

    Attributes:
        name: Path of the artefact.
        source: True if the errors are those of the source network, not of the artefact itself.
        values: (n,) float64, ION of each face, percent.
        subsets: Subsets of the data set that contain each face.
    """

    name: str
    source: bool
    values: Float64
    subsets: Sequence[tuple[str, ...]]

    @property
    def label(self) -> str:
        """Label of the curve in a picture."""
        return f"source of {self.name}" if self.source else self.name
