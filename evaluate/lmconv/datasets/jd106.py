"""JD-landmark: `picture/NAME.jpg` with `landmark/NAME.jpg.txt`, whose first line is 106 and the others x and y.

Both folders lie in a part such as `Training_data/AFW` or `Test_data`; a part is of the split that its name, or that of
the folder above, speaks of, else of every one. Coordinates stay as stored: the first pixel is (0, 0).

Liu et al., "Grand Challenge of 106-Point Facial Landmark Localization", ICMEW 2019, arXiv:1905.03469; the form of a
file is shown at https://fllc3-icme2021.github.io/evaluation.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lmconv.data import Dataset, Face, Listing
from lmconv.errors import InputError
from lmconv.faces import pts
from lmconv.faces.annotations import broken, check_split, lines, listing, numbers, split_of
from lmconv.faces.layouts import DEPTH, below
from lmconv.types import Float64

PICTURES, POINTS = "picture", "landmark"
LANDMARKS = 106


def _parts(folder: Path) -> list[tuple[str, Path]]:
    """The parts at or below a folder, each with a name that says its split where there is one."""
    if not folder.is_dir():
        return []
    found = []
    for place in below(folder.absolute(), DEPTH):
        if (place / PICTURES).is_dir() and (place / POINTS).is_dir():
            above = place.parent.name
            found.append(
                (f"{above}/{place.name}" if not split_of(place.name) and split_of(above) else place.name, place)
            )
    return found


def _faces(folder: Path, split: str) -> Listing:
    check_split(split)
    parts = _parts(folder)
    chosen = [(name, place) for name, place in parts if split in ("all", split_of(name) or split)]
    if parts and not chosen:
        there = ", ".join(name for name, _ in parts)
        raise InputError(f"{folder} has no {split} faces of JD-landmark, only {there}", hint="use another --split")
    problems: list[str] = []
    found = [face for name, place in chosen for face in _of_part(name, place, problems)]
    return listing(folder, found, problems=problems)


def _of_part(name: str, place: Path, problems: list[str]) -> Iterator[Face]:
    for picture in pts.entries(place / PICTURES):
        if picture.suffix.lower() not in pts.PICTURES:
            continue
        annotation = place / POINTS / f"{picture.name}.txt"
        if annotation.is_file():
            points = _points(annotation)
            yield Face(image=picture, annotation=annotation, points=points, subsets=(name,), key=picture.name)
        else:
            problems.append(f"{picture}: no {POINTS}/{picture.name}.txt")


def _points(path: Path) -> Float64:
    rows = list(lines(path))
    if not rows or rows[0][1] != str(LANDMARKS):
        raise broken(path, 1, f"begins with {rows[0][1][:40] if rows else ''!r}, where {LANDMARKS} is needed")
    points = []
    for number, line in rows[1:]:
        fields = line.split()
        if len(fields) != 2:
            raise broken(path, number, f"{line[:40]!r} is not a point, two numbers")
        points.append(numbers(path, number, fields))
    if len(points) != LANDMARKS:
        raise broken(path, rows[-1][0], f"{len(points)} points where {LANDMARKS} are needed")
    return np.stack(points)


plugin = Dataset(
    name="jd106",
    summary="JD-landmark: folders with picture/NAME.jpg and landmark/NAME.jpg.txt",
    matches=lambda folder: bool(_parts(folder)),
    faces=_faces,
)
