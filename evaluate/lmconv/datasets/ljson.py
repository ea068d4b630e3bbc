"""Menpo's `.ljson`, a JSON file beside a picture of the same name; points are [y, x], the first pixel is (0, 0).

A file of version 2 has one set of points. A file of version 3 has groups of points: the reader takes the group whose
number of points has a scheme in `lmconv.schemes`, and refuses a file with none or several of these groups. The result
has x before y; the values stay as stored. A folder is one part that belongs to every split. A folder with `.pts` files
belongs to another data set.

https://docs.menpo.org/en/stable/api/io/export_landmark_file.html
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmconv.data import Dataset, Face, Listing
from lmconv.errors import InputError
from lmconv.faces import pts
from lmconv.faces.annotations import build_listing, check_split, finite_numbers, line_error, read_text
from lmconv.scheme import SCHEMES
from lmconv.types import Float64


def _annotations(folder: Path) -> list[Path]:
    return [path for path in pts.entries(folder) if path.suffix.lower() == ".ljson"] if folder.is_dir() else []


def _bare(folder: Path) -> bool:
    return bool(_annotations(folder)) and not any(path.suffix.lower() == ".pts" for path in pts.entries(folder))


def _faces(folder: Path, split: str) -> Listing:
    check_split(split)
    folder = folder.absolute()
    return build_listing(folder, _read(folder))


def _read(folder: Path) -> Iterator[Face]:
    pictures = {path.stem: path for path in pts.entries(folder) if path.suffix.lower() in pts.PICTURE_SUFFIXES}
    for path in _annotations(folder):
        picture = pictures.get(path.stem, path.with_suffix(".png"))
        points = _points(path)
        yield Face(image=picture, annotation=path, points=points, subsets=(folder.name,), key=picture.name)


def _points(path: Path) -> Float64:
    try:
        document = json.loads(read_text(path))
        groups = document.get("groups", {"": document})
        sets = [list(group["landmarks"]["points"]) for group in groups.values()]
    except json.JSONDecodeError as error:
        raise line_error(path, error.lineno, f"not JSON: {error.msg}", "restore the file") from error
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise line_error(path, 1, "has no landmarks with points", "restore the file") from error
    points = _face_points(path, sets)
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in points):
        raise line_error(path, 1, "points are not pairs", "restore the file")
    return finite_numbers(path, 1, [value for pair in points for value in pair]).reshape(-1, 2)[:, ::-1].copy()


def _face_points(path: Path, sets: list[list[Any]]) -> list[Any]:
    """Returns the only set, or the only set whose number of points has a landmark scheme."""
    schemes = SCHEMES.load_all()
    counts = {scheme.landmarks for scheme in schemes.values()}
    candidates = sets if len(sets) == 1 else [points for points in sets if len(points) in counts]
    if len(candidates) != 1 or not candidates[0]:
        sizes = ", ".join(str(len(points)) for points in sets) or "no"
        message = f"{path}: groups of {sizes} points, and the group of the face is not clear"
        raise InputError(message, hint="leave one group in the file")
    return candidates[0]


plugin = Dataset(
    name="ljson",
    summary="Menpo's .ljson beside pictures",
    matches=lambda folder: False,
    matches_bare=_bare,
    faces=_faces,
)
