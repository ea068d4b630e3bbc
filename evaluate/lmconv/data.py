"""Types of annotated faces and of the data sets that hold annotated faces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lmconv.plugins import Registry
from lmconv.types import Float64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Face:
    """One annotated face.

    Attributes:
        image: The picture file, or the video file.
        annotation: The file with the landmarks of the face.
        points: (L, 2) float64, the landmarks as stored: pixels of the picture, x before y.
        subsets: All subsets of the face, the source folder last: `("common", "lfpw/testset")`.
        key: Name of the face in the source folder; by default the file name of the picture.
        line: Line of the annotation file, counted from 1; None if the file holds one face only.
        frame: Frame of the video, counted from 0; None for a picture.
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
        """Unique name: source folder and `key`. The name does not depend on the location of the data set."""
        return f"{self.subsets[-1]}/{self.key or self.image.name}"

    @property
    def place(self) -> str:
        """Annotation file and line of the landmarks, for messages."""
        return f"{self.annotation}:{self.line}" if self.line else str(self.annotation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Faces of one split of a data set.

    Attributes:
        faces: The faces, in an order that depends on the names only.
        problems: One line for each group of faces that is left out, with the reason.
        totals: Number of faces in the full version of each published subset, including faces that are missing here.
    """

    faces: tuple[Face, ...]
    problems: tuple[str, ...] = ()
    totals: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A layout of annotated faces: the plug-in in `datasets/NAME.py`.

    Attributes:
        name: Name of the plug-in: the name of its file.
        summary: The layout in one line, for help and messages.
        matches: Returns True if a folder or annotation file holds this layout, False if the path does not exist.
        faces: Returns the faces of a path in the split `"test"`, `"train"` or `"all"`; raises `InputError` if there are
            none.
        matches_bare: Returns True if this plug-in can read a folder that holds no data set's layout.
    """

    name: str
    summary: str
    matches: Callable[[Path], bool]
    faces: Callable[[Path, str], Listing]
    matches_bare: Callable[[Path], bool] = lambda folder: False


DATASETS: Registry[Dataset] = Registry("datasets", "dataset")
