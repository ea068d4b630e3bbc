"""Folder layouts of pictures with `.pts` files; the user may name a folder above or inside the layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lmconv.data import Face, Listing
from lmconv.errors import InputError
from lmconv.faces import pts
from lmconv.plugins import unknown

DEPTH = 2
"""Largest number of folder levels below the named folder at which a layout may start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Folder layout of a data set of pictures with `.pts` files.

    A part is a folder of one or two levels, for example `"ibug"` or `"helen/testset"`.

    Attributes:
        title: Name of the data set in messages.
        splits: The parts of each split; one of the splits is `"all"`.
        landmarks: Number of points of every face; None if each file states its number.
        subsets: The published subset of a part; some parts have none.
        totals: Number of faces in the full version of each published subset.
        bare: True if a folder of pictures without any of the parts is read as one part. The part has the folder's name
            and belongs to every split.
    """

    title: str
    splits: Mapping[str, tuple[str, ...]]
    landmarks: int | None = None
    subsets: Mapping[str, str] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    bare: bool = False

    def matches(self, folder: Path) -> bool:
        """True if a folder holds a part of this layout with `.pts` files; False if the folder does not exist."""
        folder = folder.absolute()
        if not folder.is_dir():
            return False
        return any(points for _, part in self._parts(folder) for _, points in pts.files_by_stem(part).values())

    def matches_bare(self, folder: Path) -> bool:
        """True if this layout is `bare` and a folder holds `.pts` files."""
        if not self.bare or not folder.is_dir():
            return False
        return any(points for _, points in pts.files_by_stem(folder.absolute()).values())

    def faces(self, folder: Path, split: str) -> Listing:
        """Returns the faces of a folder in a split.

        Raises:
            InputError: There are no faces, or an annotation is broken.
            UsageError: The split is unknown.
        """
        folder = folder.absolute()
        faces: dict[str, Face] = {}
        problems: list[str] = []
        parts = self._parts_of_split(folder, split)
        for part, path in parts:
            subsets = (self.subsets[part], part) if part in self.subsets else (part,)
            for image, annotation in pts.annotated_pictures(path, problems):
                points = pts.read_pts(annotation, self.landmarks)
                face = Face(image=image, annotation=annotation, points=points, subsets=subsets)
                first = faces.setdefault(face.name, face)
                if first is not face:
                    problems.append(f"{image}: left out, the same face as {first.image}")
        if not faces:
            hint = problems[0] if problems else "expected pictures with .pts files beside them"
            raise InputError(f"{folder} has no faces", hint=hint)
        # A bare folder has no published totals, because its name may equal the name of a subset by chance.
        totals = self.totals if parts and parts[0][0] in self.splits["all"] else {}
        return Listing(faces=tuple(faces[name] for name in sorted(faces)), problems=tuple(problems), totals=totals)

    def _parts(self, folder: Path) -> list[tuple[str, Path]]:
        """Returns the parts at or below a folder as (name, path), sorted."""
        # The user may name a part, or `helen`: the layout then starts above the named folder.
        roots = [folder.parent.parent, folder.parent, *walk_folders(folder, DEPTH)]
        candidates = {(part, root / part) for root in roots for part in self.splits["all"]}
        inside = [(part, path) for part, path in sorted(candidates) if path.is_relative_to(folder)]
        return [(part, path) for part, path in inside if path.is_dir() and pts.files_by_stem(path)]

    def _parts_of_split(self, folder: Path, split: str) -> list[tuple[str, Path]]:
        """Returns the parts of a split at or below a folder as (name, path)."""
        if split not in self.splits:
            raise unknown("split", split, list(self.splits))
        if not folder.is_dir():
            problem = "is not a folder" if folder.exists() else "does not exist"
            raise InputError(f"{folder} {problem}", hint="name a folder with annotated faces")
        parts = self._parts(folder)
        chosen = [(name, path) for name, path in parts if name in self.splits[split]]
        if parts and not chosen:
            names = ", ".join(sorted({name for name, _ in parts}))
            hint = f"add {split} faces, or use the split {'train' if split == 'test' else 'test'}"
            raise InputError(f"{folder} has no {split} faces of {self.title}, only {names}", hint=hint)
        return chosen or ([(folder.name, folder)] if self.bare else [])


def walk_folders(folder: Path, depth: int) -> Iterator[Path]:
    """Yields a folder and its subfolders down to `depth` levels."""
    yield folder
    if depth:
        for child in pts.entries(folder):
            if child.is_dir():
                yield from walk_folders(child, depth - 1)
