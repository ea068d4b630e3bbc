"""Folders of annotated faces: the parts a set is distributed in, found from above and from inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lmconv import plugins
from lmconv.data import Face, Listing
from lmconv.errors import InputError
from lmconv.faces import pts

DEPTH = 2
"""How many levels below the given folder a layout may start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a set of pictures with `.pts` files is laid out in folders.

    Attributes:
        title: What the set is called in messages.
        splits: The parts of each split: folders of one or two levels, `"helen/testset"`; among the splits is `"all"`.
        landmarks: How many points every face has; None where every file says it itself.
        subsets: The published subset that a part belongs to, for those that do.
        totals: How many faces each published subset has in full.
        bare: Whether a folder of pictures without any of the parts is one part, named after itself, of every split.
    """

    title: str
    splits: Mapping[str, tuple[str, ...]]
    landmarks: int | None = None
    subsets: Mapping[str, str] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    bare: bool = False

    def matches(self, folder: Path) -> bool:
        """Whether a folder holds this layout, with points; False where it does not exist."""
        folder = folder.absolute()
        if not folder.is_dir():
            return False
        return any(points for _, part in self._parts(folder) for _, points in pts.files(part).values())

    def matches_bare(self, folder: Path) -> bool:
        """Whether a folder without the layout holds pictures with points that can be read all the same."""
        return self.bare and folder.is_dir() and any(points for _, points in pts.files(folder.absolute()).values())

    def faces(self, folder: Path, split: str) -> Listing:
        """The faces of a folder in a split; an `InputError` when there are none."""
        folder = folder.absolute()
        faces: dict[str, Face] = {}
        problems: list[str] = []
        parts = self._chosen(folder, split)
        for part, path in parts:
            subsets = (self.subsets[part], part) if part in self.subsets else (part,)
            for image, annotation in pts.pairs(path, problems):
                points = pts.read_pts(annotation, self.landmarks)
                face = Face(image=image, annotation=annotation, points=points, subsets=subsets)
                first = faces.setdefault(face.name, face)
                if first is not face:
                    problems.append(f"{image}: left out, the same face as {first.image}")
        if not faces:
            hint = problems[0] if problems else "expected pictures with .pts files beside them"
            raise InputError(f"{folder} has no faces", hint=hint)
        # What a folder of its own happens to be called says nothing about the published subsets.
        totals = self.totals if parts and parts[0][0] in self.splits["all"] else {}
        return Listing(faces=tuple(faces[name] for name in sorted(faces)), problems=tuple(problems), totals=totals)

    def _parts(self, folder: Path) -> list[tuple[str, Path]]:
        """The parts at or below a folder, as (name, folder), sorted."""
        # A user may also give a part, or `helen`: then the layout starts above.
        roots = [folder.parent.parent, folder.parent, *below(folder, DEPTH)]
        places = {(part, root / part) for root in roots for part in self.splits["all"]}
        inside = [(part, path) for part, path in sorted(places) if path.is_relative_to(folder)]
        return [(part, path) for part, path in inside if path.is_dir() and pts.files(path)]

    def _chosen(self, folder: Path, split: str) -> list[tuple[str, Path]]:
        """The parts of a split."""
        if split not in self.splits:
            raise plugins.unknown("split", split, list(self.splits))
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise InputError(f"{folder} {what}", hint="name a folder with annotated faces")
        parts = self._parts(folder)
        chosen = [(name, path) for name, path in parts if name in self.splits[split]]
        if parts and not chosen:
            there = ", ".join(sorted({name for name, _ in parts}))
            hint = f"add them, or use the split {'train' if split == 'test' else 'test'}"
            raise InputError(f"{folder} has no {split} faces of {self.title}, only {there}", hint=hint)
        return chosen or ([(folder.name, folder)] if self.bare else [])


def below(folder: Path, depth: int) -> Iterator[Path]:
    """A folder and those up to so many levels below it."""
    yield folder
    if depth:
        for child in pts.entries(folder):
            if child.is_dir():
                yield from below(child, depth - 1)
