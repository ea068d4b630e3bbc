"""Files that say where faces are: JSON lines as `lmconv run` writes them, or CSV `image,x1,y1,x2,y2`."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from lmconv.errors import InputError
from lmconv.networks.squares import around
from lmconv.running.faces import Found, within
from lmconv.running.inputs import Item
from lmconv.types import Crop, Uint8

COLUMNS = ("image", "x1", "y1", "x2", "y2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The faces that one line names, or several lines of a CSV file about one picture; `line` is the first.

    Attributes:
        path: Of the picture, or its last parts.
        frame: Of a video, from 0; None for a picture.
    """

    path: PurePath
    frame: int | None
    line: int
    faces: list[Found] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """A file with boxes; `entries` by the name of the picture."""

    path: Path
    entries: dict[tuple[str, int | None], list[Entry]]

    def find(self, item: Item, frame: int | None, picture: Uint8) -> list[Found] | None:
        """The faces of a picture or a frame; None for a frame that the file does not name.

        Raises:
            InputError: It does not name this picture, or no frame of this video, or names two that could be meant, or a
                box is not in the picture.
        """
        name = PurePath(item.label)
        known = self.entries.get((name.name, frame), [])
        fitting = [entry for entry in known if name.parts[-len(entry.path.parts) :] == entry.path.parts]
        fitting = fitting or [entry for entry in known if entry.path.parts[-len(name.parts) :] == name.parts]
        if not fitting and (frame is None or (frame == 0 and not any(name.name == known for known, _ in self.entries))):
            raise InputError(f"{item.label}: {self.path} has no boxes for it", hint="add them, or leave it out")
        if len(fitting) > 1:
            lines = " and ".join(str(entry.line) for entry in fitting[:2])
            raise InputError(
                f"{item.label}: lines {lines} of {self.path} may both mean it", hint="name the folders too"
            )
        for row in fitting[0].faces if fitting else ():
            if not within(row.square, picture):
                height, width = picture.shape[:2]
                where = f"{self.path}:{fitting[0].line}: box {', '.join(f'{side:g}' for side in row.box)}"
                hint = "is it of another picture?"
                raise InputError(f"{where} is not within {item.label}, {width} x {height} pixels", hint=hint)
        return list(fitting[0].faces) if fitting else None


def read(path: Path, crop: Crop) -> Boxes:
    """Reads a file with boxes.

    Args:
        path: The file; JSON lines where its first line begins with a brace, else CSV.
        crop: The square to cut around a box, where the file does not say the square itself.

    Raises:
        InputError: It cannot be read, or a line of it; names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="check the file and its permissions") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8", hint=f"CSV {','.join(COLUMNS)}, or JSON lines") from error
    as_json = next((line for line in lines if line.strip()), "").lstrip().startswith("{")
    entries: dict[tuple[str, int | None], list[Entry]] = {}
    for entry in _from_json(path, lines, crop) if as_json else _from_csv(path, lines, crop):
        entries.setdefault((entry.path.name, entry.frame), []).append(entry)
    return Boxes(path=path, entries=entries)


def _from_json(path: Path, lines: Sequence[str], crop: Crop) -> Iterator[Entry]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            faces = [_face(face["box"], face.get("score"), face.get("square"), crop) for face in row["faces"]]
            frame = row.get("frame")
            if frame is not None and not isinstance(frame, int):
                raise TypeError(frame)
            yield Entry(path=PurePath(row["path"]), frame=frame, line=number, faces=faces)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            hint = 'one object a line: {"path": ..., "frame": null, "faces": [{"box": [x1, y1, x2, y2]}]}'
            raise InputError(f"{path}:{number}: no faces can be read from it ({error!r:.60})", hint=hint) from error


def _from_csv(path: Path, lines: Sequence[str], crop: Crop) -> Iterator[Entry]:
    rows = csv.reader(lines)
    header = [name.strip() for name in next(rows, [])]
    if missing := [name for name in COLUMNS if name not in header]:
        raise InputError(f"{path}:1: no column {', '.join(missing)}", hint=f"the first line is {','.join(COLUMNS)}")
    entries: dict[str, Entry] = {}
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        try:
            if len(row) != len(header):
                raise ValueError(f"{len(row)} fields where the header has {len(header)}")
            cells = dict(zip(header, row, strict=True))
            image = cells["image"].strip()
            face = _face([cells[name] for name in COLUMNS[1:]], None, None, crop)
            entry = Entry(path=PurePath(image), frame=None, line=rows.line_num)
            entries.setdefault(image, entry).faces.append(face)
        except ValueError as error:
            hint = f"{','.join(COLUMNS)}, pixels"
            raise InputError(f"{path}:{rows.line_num}: no box can be read from it ({error})", hint=hint) from error
    yield from entries.values()


def _face(box: Sequence[Any], score: Any, square: Any, crop: Crop) -> Found:
    """A face as a file has it.

    Raises:
        TypeError: These are no numbers.
        ValueError: It is not a box, or its numbers are not finite.
    """
    x1, y1, x2, y2 = map(float, box)
    if not (math.isfinite(x1 + y1 + x2 + y2) and x1 < x2 and y1 < y2):
        raise ValueError(f"x1 < x2 and y1 < y2 does not hold of {x1:g}, {y1:g}, {x2:g}, {y2:g}")
    if score is not None and not math.isfinite(float(score)):
        raise ValueError(f"the score {score} is not finite")
    if square is None:
        square = around((x1, y1, x2, y2), crop)
    left, top, side = map(int, square)
    return Found(box=(x1, y1, x2, y2), square=(left, top, side), score=None if score is None else float(score))
