"""Landmark schemes: the numbering of the landmarks, the mirror permutation, the drawn lines and the normalisers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lmconv.errors import UsageError
from lmconv.plugins import Registry
from lmconv.types import Float64

Rule: TypeAlias = tuple[int, int] | Callable[[Float64], Float64]
"""Rule for the size of a face: the indices of two landmarks, whose distance is the size, or a function.

The function maps (n, L, 2) float64, pixels, x before y, to (n,) float64, pixels.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Normaliser:
    """Size of a face, by which the error of a landmark is divided.

    Attributes:
        rule: Computes the size.
        measure: The rule in words that can follow "the": `"distance of the outer eye corners"`.
    """

    rule: Rule
    measure: str

    def sizes(self, points: Float64) -> Float64:
        """Computes the size of each face.

        Args:
            points: (n, L, 2) float64, pixels of the picture, x before y.

        Returns:
            (n,) float64, pixels.
        """
        if callable(self.rule):
            return self.rule(points)
        first, second = self.rule
        return np.asarray(np.linalg.norm(points[:, first] - points[:, second], axis=-1))


def centres(first: Sequence[int], second: Sequence[int]) -> Rule:
    """Returns the rule for the distance between the means of two sets of landmarks, for example of the eyes."""

    def sizes(points: Float64) -> Float64:
        offset = points[:, list(first)].mean(axis=1) - points[:, list(second)].mean(axis=1)
        return np.asarray(np.linalg.norm(offset, axis=-1))

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
"""Normalisers of every scheme, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Landmarks that a drawing of the face joins to a line.

    Attributes:
        points: Indices of the landmarks in the order of the line.
        closed: True if the last landmark is joined to the first.
    """

    points: tuple[int, ...]
    closed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """A numbering of landmarks: the plug-in in `schemes/NAME.py`. All indices count from 0.

    Attributes:
        name: Name of the plug-in: the name of its file.
        summary: The data sets that use the numbering, in one line.
        landmarks: Number of landmarks L; no other scheme may have the same number.
        mirror: L indices: landmark i of a face is landmark `mirror[i]` of the mirror image.
        normalisers: Normalisers of the error, by name; the first is the default.
        groups: The lines of a drawn face, by name; every landmark is in exactly one group. Left and right are the
            person's left and right.
        source: Publication of the numbering and of the default normaliser.
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
        """Name of the default normaliser: published results on the data sets of this scheme use this normaliser."""
        return next(iter(self.normalisers))

    def normaliser(self, name: str | None = None) -> Normaliser:
        """Returns a normaliser of this scheme, or of every scheme (`BOXES`), by name; by default the first.

        Raises:
            UsageError: The scheme has no normaliser of this name; the hint lists the names.
        """
        normalisers = {**self.normalisers, **BOXES}
        if name not in (None, *normalisers):
            hint = f"known: {', '.join(normalisers)}"
            raise UsageError(f"the scheme {self.name} has no normaliser {name!r}", hint=hint)
        return normalisers[name or self.default]


SCHEMES: Registry[Scheme] = Registry("schemes", "scheme")


def check_normaliser(name: str) -> None:
    """Raises a `UsageError` for a normaliser that no scheme has.

    The number of landmarks is not yet known: `Scheme.normaliser` checks the name for the scheme of the faces.
    """
    schemes = SCHEMES.load_all()
    known = dict.fromkeys(name for scheme in schemes.values() for name in scheme.normalisers) | dict.fromkeys(BOXES)
    if name not in known:
        raise UsageError(f"unknown normaliser {name!r}", hint=f"known: {', '.join(known)}")


def scheme(landmarks: int) -> Scheme | None:
    """Returns the scheme with this number of landmarks; None if there is none.

    Raises:
        UsageError: Two plug-ins have this number of landmarks, and the choice is ambiguous.
    """
    schemes = SCHEMES.load_all()
    matches = {name: known for name, known in schemes.items() if known.landmarks == landmarks}
    if len(matches) > 1:
        raise UsageError(
            f"{landmarks} points are claimed by the schemes {' and '.join(matches)}",
            hint="uninstall the package with the scheme that is not needed",
        )
    return next(iter(matches.values()), None)
