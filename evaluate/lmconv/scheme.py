"""What the points of a face mean: which is which, what a mirror does to them, what their error is a fraction of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lmconv import plugins
from lmconv.errors import UsageError
from lmconv.types import Float64

Normaliser: TypeAlias = tuple[int, int] | Callable[[Float64], Float64]
"""Two points whose distance it is, or a rule: from (n, L, 2) float64, pixels, to (n,) float64, pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Points that are joined to a line when a face is drawn.

    Attributes:
        points: Indices in the order of the line.
        closed: Whether the last is joined to the first.
    """

    points: tuple[int, ...]
    closed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """A numbering of landmarks: the plug-in of `schemes/<one>.py`. All indices count from 0.

    Attributes:
        landmarks: Number of points L; no other scheme has as many.
        mirror: L indices: point i of a face is point `mirror[i]` of its mirror image.
        normaliser: What a point's error is divided by.
        measure: The same in words, which follow "the": `"distance of the outer eye corners"`.
        groups: The lines of a drawn face; every point is in exactly one. Left and right are the person's.
        source: Where the numbering and the normaliser come from.
    """

    name: str
    summary: str
    landmarks: int
    mirror: tuple[int, ...]
    normaliser: Normaliser
    measure: str
    groups: Mapping[str, Group]
    source: str

    def sizes(self, points: Float64) -> Float64:
        """What errors on these faces are divided by.

        Args:
            points: (n, L, 2) float64, pixels, x before y.

        Returns:
            (n,) float64, pixels.
        """
        if callable(self.normaliser):
            return self.normaliser(points)
        first, second = self.normaliser
        return np.asarray(np.linalg.norm(points[:, first] - points[:, second], axis=-1))


def scheme(landmarks: int) -> Scheme | None:
    """The scheme of faces with this many points; None where no plug-in knows one.

    Raises:
        UsageError: Two plug-ins claim this number: which is meant would be a guess.
    """
    known: dict[str, Scheme] = plugins.load_all("schemes")
    found = {name: one for name, one in known.items() if one.landmarks == landmarks}
    if len(found) > 1:
        raise UsageError(
            f"{landmarks} points are claimed by the schemes {' and '.join(found)}",
            hint="uninstall the package that brings the one not meant",
        )
    return next(iter(found.values()), None)
