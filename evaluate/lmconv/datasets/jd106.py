"""JD-landmark: `picture/NAME.jpg` with `landmark/NAME.jpg.txt`.

The first line of a landmark file is 106; each further line is a point, x and y. Both folders lie in a part, for example
`Training_data/AFW` or `Test_data`. The split of a part follows from the part's name, or from the name of the folder
above. If neither name contains train or test, the part belongs to every split. Coordinates stay as stored: the first
pixel is (0, 0).

Liu et al., "Grand Challenge of 106-Point Facial Landmark Localization", ICMEW 2019, arXiv:1905.03469; the file format
is shown at https://fllc3-icme2021.github.io/evaluation.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lmconv.data import Dataset, Face, Listing
from lmconv.errors import InputError
from lmconv.faces import pts
from lmconv.faces.annotations import (
    build_listing,
    check_split,
    finite_numbers,
    line_error,
    numbered_lines,
    split_in_name,
)
from lmconv.faces.layouts import DEPTH, walk_folders
from lmconv.types import Float64

PICTURES, POINTS = "picture", "landmark"
LANDMARKS = 106


def _parts(folder: Path) -> list[tuple[str, Path]]:
    """Returns the parts at or below a folder as (name, path); the name contains the split if the part has a split."""
    if not folder.is_dir():
        return []
    parts = []
    for path in walk_folders(folder.absolute(), DEPTH):
        if (path / PICTURES).is_dir() and (path / POINTS).is_dir():
            parent = path.parent.name
            needs_parent = not split_in_name(path.name) and split_in_name(parent)
            parts.append((f"{parent}/{path.name}" if needs_parent else path.name, path))
    return parts


def _faces(folder: Path, split: str) -> Listing:
    check_split(split)
    parts = _parts(folder)
    chosen = [(name, path) for name, path in parts if split in ("all", split_in_name(name) or split)]
    if parts and not chosen:
        names = ", ".join(name for name, _ in parts)
        raise InputError(f"{folder} has no {split} faces of JD-landmark, only {names}", hint="use another --split")
    problems: list[str] = []
    faces = [face for name, path in chosen for face in _faces_of_part(name, path, problems)]
    return build_listing(folder, faces, problems=problems)


def _faces_of_part(name: str, part: Path, problems: list[str]) -> Iterator[Face]:
    for picture in pts.entries(part / PICTURES):
        if picture.suffix.lower() not in pts.PICTURE_SUFFIXES:
            continue
        annotation = part / POINTS / f"{picture.name}.txt"
        if annotation.is_file():
            points = _points(annotation)
            yield Face(image=picture, annotation=annotation, points=points, subsets=(name,), key=picture.name)
        else:
            problems.append(f"{picture}: no {POINTS}/{picture.name}.txt")


def _points(path: Path) -> Float64:
    rows = list(numbered_lines(path))
    if not rows or rows[0][1] != str(LANDMARKS):
        raise line_error(path, 1, f"begins with {rows[0][1][:40] if rows else ''!r}, expected {LANDMARKS}")
    points = []
    for number, line in rows[1:]:
        fields = line.split()
        if len(fields) != 2:
            raise line_error(path, number, f"{line[:40]!r} is not a point, two numbers")
        points.append(finite_numbers(path, number, fields))
    if len(points) != LANDMARKS:
        raise line_error(path, rows[-1][0], f"{len(points)} points, expected {LANDMARKS}")
    return np.stack(points)


plugin = Dataset(
    name="jd106",
    summary="JD-landmark: folders with picture/NAME.jpg and landmark/NAME.jpg.txt",
    matches=lambda folder: bool(_parts(folder)),
    faces=_faces,
)
