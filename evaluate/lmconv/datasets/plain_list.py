"""A list of faces as PFLD and others pass them around: `FILE.txt`, one face a line, named itself.

A line has the points, x before y; if wanted a box of four numbers; and a picture, named relative to the list: 136
numbers, 4 and a name for 68 points. How many points there are follows from the number of fields, among those that
`lmconv.schemes` know. A list is of every split. Boxes are not used: the networks' crops are around the points.
Coordinates stay as stored.

https://github.com/samuelyu2002/PFLD, `data/300W/test_anno.txt`
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmconv import plugins
from lmconv.data import Dataset, Face, Listing
from lmconv.errors import InputError
from lmconv.faces.annotations import broken, check_split, lines, listing, numbers
from lmconv.scheme import Scheme

HEAD = 1 << 16
"""Bytes of a file that have to hold its first line."""


def _lengths() -> dict[int, int]:
    """Points by the number of numbers that a line of them has."""
    known: dict[str, Scheme] = plugins.load_all("schemes")
    return {2 * one.landmarks + box: one.landmarks for one in known.values() for box in (0, 4)}


def _matches(place: Path) -> bool:
    if place.suffix.lower() != ".txt" or not place.is_file():
        return False
    with place.open(encoding="utf-8-sig", errors="replace") as file:
        return len(file.read(HEAD).partition("\n")[0].split()) - 1 in _lengths()


def _faces(place: Path, split: str) -> Listing:
    check_split(split)
    if not place.is_file():
        raise InputError(f"{place} has no faces", hint="expected a list, FILE.txt")
    return listing(place, _read(place.absolute()))


def _read(path: Path) -> Iterator[Face]:
    lengths, count = _lengths(), None
    for number, line in lines(path):
        *fields, name = line.split()
        if len(fields) not in lengths or len(fields) != (count or len(fields)):
            wanted = f"{count} as before" if count else f"one of {', '.join(map(str, sorted(lengths)))}"
            raise broken(path, number, f"{len(fields)} numbers before the name of a picture, where {wanted} is needed")
        count = len(fields)
        points = numbers(path, number, fields)[: 2 * lengths[count]].reshape(-1, 2)
        image = path.parent / name
        yield Face(image=image, annotation=path, points=points, subsets=(path.stem,), key=name, line=number)


plugin = Dataset(
    name="plain_list",
    summary="a list of faces: FILE.txt with points, a box and a picture on each line",
    matches=_matches,
    faces=_faces,
)
