"""Menpo's `.ljson`, beside a picture of the same name: points as [y, x], the first pixel is (0, 0), in JSON.

Version 2 has one set of points, version 3 groups of them: then the one with a number of points that only it has among
`lmconv.schemes` is taken. They are turned to x before y, and else stay as stored. Folders are bare: every split is all
of one, and its `.pts` files are another data set's.

https://docs.menpo.org/en/stable/api/io/export_landmark_file.html
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmconv import plugins
from lmconv.data import Dataset, Face, Listing
from lmconv.errors import InputError
from lmconv.faces import pts
from lmconv.faces.annotations import broken, check_split, listing, numbers, text_of
from lmconv.scheme import Scheme
from lmconv.types import Float64


def _here(folder: Path) -> list[Path]:
    return [path for path in pts.entries(folder) if path.suffix.lower() == ".ljson"] if folder.is_dir() else []


def _bare(folder: Path) -> bool:
    return bool(_here(folder)) and not any(path.suffix.lower() == ".pts" for path in pts.entries(folder))


def _faces(folder: Path, split: str) -> Listing:
    check_split(split)
    folder = folder.absolute()
    return listing(folder, _read(folder))


def _read(folder: Path) -> Iterator[Face]:
    pictures = {path.stem: path for path in pts.entries(folder) if path.suffix.lower() in pts.PICTURES}
    for path in _here(folder):
        picture = pictures.get(path.stem, path.with_suffix(".png"))
        points = _points(path)
        yield Face(image=picture, annotation=path, points=points, subsets=(folder.name,), key=picture.name)


def _points(path: Path) -> Float64:
    try:
        document = json.loads(text_of(path))
        groups = document.get("groups", {"": document})
        sets = [list(group["landmarks"]["points"]) for group in groups.values()]
    except json.JSONDecodeError as error:
        raise broken(path, error.lineno, f"not JSON: {error.msg}", "restore the file") from error
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise broken(path, 1, "has no landmarks with points", "restore the file") from error
    chosen = _chosen(path, sets)
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in chosen):
        raise broken(path, 1, "points are not pairs", "restore the file")
    return numbers(path, 1, [value for pair in chosen for value in pair]).reshape(-1, 2)[:, ::-1].copy()


def _chosen(path: Path, sets: list[list[Any]]) -> list[Any]:
    known: dict[str, Scheme] = plugins.load_all("schemes")
    numbers_of_points = {one.landmarks for one in known.values()}
    fitting = [points for points in sets if len(points) in numbers_of_points]
    chosen = sets if len(sets) == 1 else fitting
    if len(chosen) != 1 or not chosen[0]:
        counts = ", ".join(str(len(points)) for points in sets) or "no"
        raise InputError(
            f"{path}: groups of {counts} points: which is the face is a guess", hint="leave one in the file"
        )
    return chosen[0]


plugin = Dataset(
    name="ljson",
    summary="Menpo's .ljson beside pictures",
    matches=lambda folder: False,
    matches_bare=_bare,
    faces=_faces,
)
