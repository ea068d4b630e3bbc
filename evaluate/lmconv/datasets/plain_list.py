"""A list of faces, one face per line, as PFLD and other projects distribute faces: the user names `FILE.txt` itself.

A line has the points, x before y; optionally a box of four numbers; and the path of a picture, relative to the list.
For 68 points a line has 136 numbers, optionally 4 more, and a path. The number of points follows from the number of
fields and must have a scheme in `lmconv.schemes`. A list belongs to every split. The boxes are ignored, because the
networks take crops around the landmarks. Coordinates stay as stored.

https://github.com/samuelyu2002/PFLD, `data/300W/test_anno.txt`
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmconv.data import Dataset, Face, Listing
from lmconv.errors import InputError
from lmconv.faces.annotations import build_listing, check_split, finite_numbers, line_error, numbered_lines
from lmconv.scheme import SCHEMES

HEAD = 1 << 16
"""Number of characters of a file in which its first line must end."""


def _lengths() -> dict[int, int]:
    """Maps the number of numbers in a line to the number of points of the face."""
    schemes = SCHEMES.load_all()
    return {2 * scheme.landmarks + box: scheme.landmarks for scheme in schemes.values() for box in (0, 4)}


def _matches(source: Path) -> bool:
    if source.suffix.lower() != ".txt" or not source.is_file():
        return False
    with source.open(encoding="utf-8-sig", errors="replace") as file:
        return len(file.read(HEAD).partition("\n")[0].split()) - 1 in _lengths()


def _faces(source: Path, split: str) -> Listing:
    check_split(split)
    if not source.is_file():
        raise InputError(f"{source} has no faces", hint="expected a list, FILE.txt")
    return build_listing(source, _read(source.absolute()))


def _read(path: Path) -> Iterator[Face]:
    lengths, count = _lengths(), None
    for number, line in numbered_lines(path):
        *fields, name = line.split()
        if len(fields) not in lengths or len(fields) != (count or len(fields)):
            expected = f"{count} as on the first line" if count else f"one of {', '.join(map(str, sorted(lengths)))}"
            raise line_error(path, number, f"{len(fields)} numbers before the name of a picture, expected {expected}")
        count = len(fields)
        points = finite_numbers(path, number, fields)[: 2 * lengths[count]].reshape(-1, 2)
        image = path.parent / name
        yield Face(image=image, annotation=path, points=points, subsets=(path.stem,), key=name, line=number)


plugin = Dataset(
    name="plain_list",
    summary="a list of faces: FILE.txt with points, a box and a picture on each line",
    matches=_matches,
    faces=_faces,
)
