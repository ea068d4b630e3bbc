"""What the points of a face mean: which is which, what a mirror does to them, what their error is a fraction of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lmconv import plugins
from lmconv.errors import UsageError
from lmconv.types import Float64

Rule: TypeAlias = tuple[int, int] | Callable[[Float64], Float64]
"""Two points whose distance it is, or a function: from (n, L, 2) float64, pixels, to (n,) float64, pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Normaliser:
    """What the error of a point is divided by.

    Attributes:
        rule: How it is measured.
        measure: The same in words, which follow "the": `"distance of the outer eye corners"`.
    """

    rule: Rule
    measure: str

    def sizes(self, points: Float64) -> Float64:
        """(n,) float64, pixels: of (n, L, 2) float64 points, pixels, x before y."""
        if callable(self.rule):
            return self.rule(points)
        first, second = self.rule
        return np.asarray(np.linalg.norm(points[:, first] - points[:, second], axis=-1))


def centres(first: Sequence[int], second: Sequence[int]) -> Rule:
    """The distance between the means of two sets of points, such as those of the eyes."""

    def sizes(points: Float64) -> Float64:
        apart = points[:, list(first)].mean(axis=1) - points[:, list(second)].mean(axis=1)
        return np.asarray(np.linalg.norm(apart, axis=-1))

    return sizes


BOXES = {
    "box-diagonal": Normaliser(
        rule=lambda points: np.asarray(np.linalg.norm(np.ptp(points, axis=1), axis=-1)),
        measure="diagonal of the box around the annotated points",
    ),
    "box-side": Normaliser(
        rule=lambda points: np.asarray(np.sqrt(np.ptp(points, axis=1).prod(axis=-1))),
        measure="square root of the area of the box around the annotated points",
    ),
}
"""Normalisers that every scheme has."""


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
        normalisers: What a point's error may be divided by, by name; the first unless another is chosen.
        groups: The lines of a drawn face; every point is in exactly one. Left and right are the person's.
        source: Where the numbering and the first normaliser come from.
    """

    name: str
    summary: str
    landmarks: int
    mirror: tuple[int, ...]
    normalisers: Mapping[str, Normaliser]
    groups: Mapping[str, Group]
    source: str

    @property
    def default(self) -> str:
        """The name of the normaliser that its data sets are published with."""
        return next(iter(self.normalisers))

    def normaliser(self, name: str | None = None) -> Normaliser:
        """One of its normalisers, or of those that every scheme has; by default its first.

        Raises:
            UsageError: It has none of this name; says which there are.
        """
        known = {**self.normalisers, **BOXES}
        if name not in (None, *known):
            raise UsageError(f"{self.name} has no normaliser {name!r}", hint=f"it has {', '.join(known)}")
        return known[name or self.default]


def check_normaliser(name: str) -> None:
    """Refuses a name that no scheme has; whether the scheme of some faces has it, `Scheme.normaliser` says."""
    schemes: dict[str, Scheme] = plugins.load_all("schemes")
    known = dict.fromkeys(name for one in schemes.values() for name in one.normalisers) | dict.fromkeys(BOXES)
    if name not in known:
        raise UsageError(f"unknown normaliser {name!r}", hint=f"known: {', '.join(known)}")


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
