"""The types of annotated faces and of what is measured on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lmconv.types import Float64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Face:
    """One annotated face.

    Attributes:
        image: The picture, or the video that it is a frame of.
        annotation: The file that holds its points.
        points: (L, 2) float64, pixels of the picture, x before y, values as the annotation has them.
        subsets: Every subset it counts in, its source folder last: `("common", "lfpw/testset")`.
        key: What it is called in its source folder, where the file name of the picture does not say it.
        line: Of the annotation, where that holds many faces; counted from 1.
        frame: Of the video, counted from 0; None of a picture.
    """

    image: Path
    annotation: Path
    points: Float64
    subsets: tuple[str, ...]
    key: str = ""
    line: int | None = None
    frame: int | None = None

    @property
    def name(self) -> str:
        """Source folder and file name of the picture, the same wherever the data lies; no other face has it."""
        return f"{self.subsets[-1]}/{self.key or self.image.name}"

    @property
    def place(self) -> str:
        """Where its points are written, for messages."""
        return f"{self.annotation}:{self.line}" if self.line else str(self.annotation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The faces of one split.

    Attributes:
        faces: In an order that depends on their names only.
        problems: What was left out and why, one line each.
        totals: How many faces each published subset has in full, whether they are here or not.
    """

    faces: tuple[Face, ...]
    problems: tuple[str, ...] = ()
    totals: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A layout of annotated faces: the plug-in of `datasets/<one>.py`.

    Attributes:
        matches: Whether a folder, or a file with annotations, holds this layout; False where it does not exist.
        matches_bare: Whether a folder that holds no data set's layout can be read as it all the same.
        faces: The faces of a folder in the split `"test"`, `"train"` or `"all"`; an `InputError` when there are none.
    """

    name: str
    summary: str
    matches: Callable[[Path], bool]
    faces: Callable[[Path, str], Listing]
    matches_bare: Callable[[Path], bool] = lambda folder: False


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A figure over many faces: the plug-in of `metrics/<one>.py`.

    Attributes:
        unit: `"%"`, or empty for a plain number.
        better: Which way is good.
        compute: From (n,) float64, ION of each face in percent, n at least 1.
    """

    name: str
    unit: str
    summary: str
    better: Literal["lower", "higher"]
    compute: Callable[[Float64], float]
