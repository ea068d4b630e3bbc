"""One's own faces as a table, `FILE.csv` or `FILE.json`, or a folder with `landmarks.csv` or `landmarks.json`.

CSV: a header, in any order, of `image`, `x0`, `y0`, ... up to the last point, and if wanted `subset`, `split` (train or
test) and `box_x1`, `box_y1`, `box_x2`, `box_y2`. JSON: a list of `{"image": "a.jpg", "landmarks": [[x, y], ...]}`, and
if wanted `"subset"`, `"split"` and `"box": [x1, y1, x2, y2]`. Pictures are named relative to the file. Faces that name
no split are of every one. Boxes are read and not used: the networks' crops are around the points. Coordinates stay as
stored.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from lmconv.data import Dataset, Face, Listing
from lmconv.errors import InputError
from lmconv.faces.annotations import broken, check_split, listing, numbers, text_of

NAMES = ("landmarks.csv", "landmarks.json")
BOX = ("box_x1", "box_y1", "box_x2", "box_y2")
HINT = "see docs/datasets.md for the columns"


def _file(place: Path) -> Path | None:
    """The file itself, or the one in a folder."""
    if place.is_dir():
        return next((place / name for name in NAMES if (place / name).is_file()), None)
    return place if place.suffix.lower() in (".csv", ".json") and place.is_file() else None


def _faces(place: Path, split: str) -> Listing:
    check_split(split)
    path = _file(place.absolute())
    if path is None:
        raise InputError(f"{place} has no faces", hint=f"expected {' or '.join(NAMES)}")
    rows = _csv(path) if path.suffix.lower() == ".csv" else _json(path)
    chosen = [face for face, own in rows if split == "all" or own in (None, split)]
    return listing(place, chosen)


def _csv(path: Path) -> Iterator[tuple[Face, str | None]]:
    """The faces and their splits."""
    reader = csv.reader(text_of(path).splitlines(), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        landmarks = _landmarks(path, header)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise broken(path, reader.line_num, f"{len(row)} fields where the header has {len(header)}")
            cells = dict(zip(header, row, strict=True))
            points = [cells[f"{axis}{number}"] for number in range(landmarks) for axis in "xy"]
            box = [cells[name] for name in BOX if name in cells]
            yield _face(path, reader.line_num, cells, points, box)
    except csv.Error as error:
        raise broken(path, reader.line_num, f"not CSV: {error}") from error


def _landmarks(path: Path, header: list[str]) -> int:
    """How many points the columns are for."""
    columns = [name for name in header if re.fullmatch(r"[xy][0-9]{1,4}", name)]
    landmarks = max((int(name[1:]) for name in columns), default=-1) + 1
    needed = ["image", *(f"{axis}{number}" for number in range(max(landmarks, 1)) for axis in "xy")]
    needed += BOX if set(BOX) & set(header) else ()
    missing = [name for name in needed if name not in header]
    if missing:
        raise broken(path, 1, f"the header has no column {missing[0]}", HINT)
    others = [name for name in header if name not in {*needed, "subset", "split"}]
    if others or len(set(header)) != len(header):
        what = f"the column {others[0][:40]!r} is not known" if others else "the header names a column twice"
        raise broken(path, 1, what, HINT)
    return landmarks


def _json(path: Path) -> Iterator[tuple[Face, str | None]]:
    """The same of JSON, which is decoded entry by entry, so that each mistake has its line."""
    for line, entry in _entries(path, text_of(path)):
        if not isinstance(entry, dict) or not {"image", "landmarks"} <= entry.keys():
            raise broken(path, line, 'an entry is not {"image": ..., "landmarks": [[x, y], ...]}', HINT)
        pairs, box = entry["landmarks"], entry.get("box", [])
        if (
            not isinstance(pairs, list)
            or not pairs
            or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)
        ):
            raise broken(path, line, "landmarks are not a list of pairs", HINT)
        if not isinstance(box, list) or len(box) not in (0, 4):
            raise broken(path, line, "a box is not [x1, y1, x2, y2]", HINT)
        yield _face(path, line, entry, [value for pair in pairs for value in pair], box)


def _entries(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """The entries of a JSON list, with the line that each begins in."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a number of JSON")

    decoder, space = json.JSONDecoder(parse_constant=refuse), re.compile(r"\s*")

    def skip(at: int) -> int:
        found = space.match(text, at)
        return found.end() if found else at

    at, line, last = skip(0), 1, 0
    if text[at : at + 1] != "[":
        raise broken(path, 1, "not a JSON list of faces", HINT)
    at = skip(at + 1)
    while text[at : at + 1] != "]":
        line, last = line + text.count("\n", last, at), at
        try:
            entry, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise broken(path, error.lineno, f"not JSON: {error.msg}", HINT) from error
        except (ValueError, RecursionError) as error:
            raise broken(path, line, f"not JSON: {error}", HINT) from error
        yield line, entry
        at = skip(at)
        if text[at : at + 1] not in (",", "]"):
            raise broken(path, 1 + text.count("\n", 0, at), "not JSON: the list does not go on, and does not end", HINT)
        at = skip(at + 1) if text[at] == "," else at


def _face(path: Path, line: int, row: Mapping[str, Any], points: list[Any], box: list[Any]) -> tuple[Face, str | None]:
    name, subset, split = row["image"], row.get("subset") or path.stem, row.get("split") or None
    if not all(isinstance(value, str) and value for value in (name, subset)):
        raise broken(path, line, "a face has no picture, or a subset that is no name")
    if split not in (None, "train", "test"):
        raise broken(path, line, f"the split {str(split)[:40]!r} is neither train nor test")
    numbers(path, line, box)
    at = numbers(path, line, points).reshape(-1, 2)
    face = Face(image=path.parent / name, annotation=path, points=at, subsets=(subset,), key=name, line=line)
    return face, split


plugin = Dataset(
    name="table",
    summary="a table of faces: FILE.csv or FILE.json, or landmarks.csv or landmarks.json in a folder",
    matches=lambda place: _file(place) is not None,
    faces=_faces,
)
