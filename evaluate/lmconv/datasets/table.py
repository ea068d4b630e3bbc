"""A table of the user's own faces: `FILE.csv`, `FILE.json`, or a folder with `landmarks.csv` or `landmarks.json`.

CSV: a header with the columns `image`, `x0`, `y0`, ... up to the last point, in any order. Optional columns are
`subset`, `split` (train or test) and `box_x1`, `box_y1`, `box_x2`, `box_y2`. JSON: a list of
`{"image": "a.jpg", "landmarks": [[x, y], ...]}` with the optional keys `"subset"`, `"split"` and
`"box": [x1, y1, x2, y2]`. Paths of pictures are relative to the file. A face without a split belongs to every split.
Boxes are checked and otherwise ignored, because the networks take crops around the landmarks. A table may have boxes
and no points: the two corners of a box are then the points of the face, which is enough for calibration. Coordinates
stay as stored.
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
from lmconv.faces.annotations import build_listing, check_split, finite_numbers, line_error, read_text

NAMES = ("landmarks.csv", "landmarks.json")
BOX = ("box_x1", "box_y1", "box_x2", "box_y2")
HINT = "see docs/datasets.md for the columns"


def _file(source: Path) -> Path | None:
    """Returns the file itself, or the table in a folder; None if there is no table."""
    if source.is_dir():
        return next((source / name for name in NAMES if (source / name).is_file()), None)
    return source if source.suffix.lower() in (".csv", ".json") and source.is_file() else None


def _faces(source: Path, split: str) -> Listing:
    check_split(split)
    path = _file(source.absolute())
    if path is None:
        raise InputError(f"{source} has no faces", hint=f"expected {' or '.join(NAMES)}")
    rows = _csv(path) if path.suffix.lower() == ".csv" else _json(path)
    faces = [face for face, face_split in rows if split == "all" or face_split in (None, split)]
    return build_listing(source, faces)


def _csv(path: Path) -> Iterator[tuple[Face, str | None]]:
    """Yields each face of a CSV table with its split (None: every split)."""
    reader = csv.reader(read_text(path).splitlines(), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        landmarks = _landmarks(path, header)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise line_error(path, reader.line_num, f"{len(row)} fields, but the header has {len(header)}")
            cells = dict(zip(header, row, strict=True))
            points = [cells[f"{axis}{number}"] for number in range(landmarks) for axis in "xy"]
            box = [cells[name] for name in BOX if name in cells]
            yield _face(path, reader.line_num, cells, points or box, box)
    except csv.Error as error:
        raise line_error(path, reader.line_num, f"not CSV: {error}") from error


def _landmarks(path: Path, header: list[str]) -> int:
    """Returns the number of points that the columns of a CSV header describe."""
    columns = [name for name in header if re.fullmatch(r"[xy][0-9]{1,4}", name)]
    landmarks = max((int(name[1:]) for name in columns), default=-1) + 1
    boxes = set(BOX) & set(header)
    needed = landmarks or (0 if boxes else 1)
    required = ["image", *(f"{axis}{number}" for number in range(needed) for axis in "xy")]
    required += BOX if boxes else ()
    missing = [name for name in required if name not in header]
    if missing:
        raise line_error(path, 1, f"the header has no column {missing[0]}", HINT)
    unknown = [name for name in header if name not in {*required, "subset", "split"}]
    if unknown or len(set(header)) != len(header):
        message = f"unknown column {unknown[0][:40]!r}" if unknown else "the header names a column twice"
        raise line_error(path, 1, message, HINT)
    return landmarks


def _json(path: Path) -> Iterator[tuple[Face, str | None]]:
    """Yields each face of a JSON list with its split; an error names the line, because each entry is decoded alone."""
    for line, entry in _entries(path, read_text(path)):
        if not isinstance(entry, dict) or "image" not in entry or not {"landmarks", "box"} & entry.keys():
            raise line_error(path, line, 'an entry is not {"image": ..., "landmarks": [[x, y], ...]}', HINT)
        box = entry.get("box", [])
        pairs = entry.get("landmarks", [box[:2], box[2:]] if isinstance(box, list) else [])
        if (
            not isinstance(pairs, list)
            or not pairs
            or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)
        ):
            raise line_error(path, line, "landmarks are not a list of pairs", HINT)
        if not isinstance(box, list) or len(box) not in (0, 4):
            raise line_error(path, line, "a box is not [x1, y1, x2, y2]", HINT)
        yield _face(path, line, entry, [value for pair in pairs for value in pair], box)


def _entries(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """Yields the entries of a JSON list, each with the line in which the entry begins."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a JSON number")

    decoder, space = json.JSONDecoder(parse_constant=refuse), re.compile(r"\s*")

    def skip_space(position: int) -> int:
        match = space.match(text, position)
        return match.end() if match else position

    position, line, start = skip_space(0), 1, 0
    if text[position : position + 1] != "[":
        raise line_error(path, 1, "not a JSON list of faces", HINT)
    position = skip_space(position + 1)
    while text[position : position + 1] != "]":
        line, start = line + text.count("\n", start, position), position
        try:
            entry, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise line_error(path, error.lineno, f"not JSON: {error.msg}", HINT) from error
        except (ValueError, RecursionError) as error:
            raise line_error(path, line, f"not JSON: {error}", HINT) from error
        yield line, entry
        position = skip_space(position)
        if text[position : position + 1] not in (",", "]"):
            last_line = 1 + text.count("\n", 0, position)
            raise line_error(path, last_line, "not JSON: expected a comma or the end of the list", HINT)
        position = skip_space(position + 1) if text[position] == "," else position


def _face(path: Path, line: int, row: Mapping[str, Any], points: list[Any], box: list[Any]) -> tuple[Face, str | None]:
    name, subset, split = row["image"], row.get("subset") or path.stem, row.get("split") or None
    if not all(isinstance(value, str) and value for value in (name, subset)):
        raise line_error(path, line, "the picture or the subset of a face is not a name")
    if split not in (None, "train", "test"):
        raise line_error(path, line, f"the split {str(split)[:40]!r} is neither train nor test")
    finite_numbers(path, line, box)
    landmarks = finite_numbers(path, line, points).reshape(-1, 2)
    face = Face(image=path.parent / name, annotation=path, points=landmarks, subsets=(subset,), key=name, line=line)
    return face, split


plugin = Dataset(
    name="table",
    summary="a table of faces: FILE.csv or FILE.json, or landmarks.csv or landmarks.json in a folder",
    matches=lambda source: _file(source) is not None,
    faces=_faces,
)
