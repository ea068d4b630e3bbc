"""Reads the file of `--boxes`: JSON lines as `lmconv run` writes them, or CSV `image,x1,y1,x2,y2`."""

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
from lmconv.running.faces import Region, can_cut
from lmconv.running.inputs import Item
from lmconv.types import Crop, Uint8

COLUMNS = ("image", "x1", "y1", "x2", "y2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Regions of one picture or frame: one line of JSON, or all CSV lines with the same picture.

    Attributes:
        path: Path of the picture or video, or the last parts of the path.
        frame: Index of the frame in a video, from 0; None for a picture.
        line: Number of the first line, from 1.
        regions: The regions, in the order of the file.
    """

    path: PurePath
    frame: int | None
    line: int
    regions: list[Region] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxFile:
    """Content of a file with boxes.

    Attributes:
        path: Path of the file.
        entries: Entries by file name of the picture or video, and index of the frame.
    """

    path: Path
    entries: dict[tuple[str, int | None], list[Entry]]

    def regions(self, item: Item, frame: int | None, picture: Uint8) -> list[Region] | None:
        """Returns the regions of a picture or frame.

        Args:
            item: The input.
            frame: Index of the frame, from 0; None for a picture.
            picture: (H, W, 3) uint8, BGR.

        Returns:
            The regions; None if the file names other frames of the video, but not this frame.

        Raises:
            InputError: The file does not name the picture, or names no frame of the video; several lines match; or a
                box is not inside the picture.
        """
        name = PurePath(item.label)
        matches = self._matches(name, frame)
        if not matches and (frame is None or (frame == 0 and not self._names(name))):
            raise InputError(f"{item.label}: {self.path} has no boxes for it", hint="add boxes, or leave out the input")
        if len(matches) > 1:
            lines = " and ".join(str(entry.line) for entry in matches[:2])
            raise InputError(
                f"{item.label}: lines {lines} of {self.path} both match",
                hint="add the folders to the paths in the file",
            )
        for region in matches[0].regions if matches else ():
            if not can_cut(region.square, picture):
                height, width = picture.shape[:2]
                box = ", ".join(f"{side:g}" for side in region.box)
                raise InputError(
                    f"{self.path}:{matches[0].line}: box {box} is not within {item.label}, {width} x {height} pixels",
                    hint="check whether the box is of another picture",
                )
        return list(matches[0].regions) if matches else None

    def _matches(self, name: PurePath, frame: int | None) -> list[Entry]:
        """Returns the entries whose path is the end of `name`; without any, the entries whose path ends with `name`."""
        entries = self.entries.get((name.name, frame), [])
        ends = [entry for entry in entries if name.parts[-len(entry.path.parts) :] == entry.path.parts]
        return ends or [entry for entry in entries if entry.path.parts[-len(name.parts) :] == name.parts]

    def _names(self, name: PurePath) -> bool:
        """Returns True if any entry has this file name."""
        return any(name.name == entry_name for entry_name, _ in self.entries)


def read(path: Path, crop: Crop) -> BoxFile:
    """Reads a file with boxes.

    Args:
        path: The file: JSON lines if the first line begins with a brace, otherwise CSV.
        crop: Rule for the square around a box, for boxes without a square of their own.

    Raises:
        InputError: The file or one of its lines cannot be read; the message names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="check the file and its permissions") from error
    except UnicodeDecodeError as error:
        hint = f"write CSV {','.join(COLUMNS)}, or JSON lines, in UTF-8"
        raise InputError(f"{path} is not text in UTF-8", hint=hint) from error
    first = next((line for line in lines if line.strip()), "")
    parse = _from_json if first.lstrip().startswith("{") else _from_csv
    entries: dict[tuple[str, int | None], list[Entry]] = {}
    for entry in parse(path, lines, crop):
        entries.setdefault((entry.path.name, entry.frame), []).append(entry)
    return BoxFile(path=path, entries=entries)


def _from_json(path: Path, lines: Sequence[str], crop: Crop) -> Iterator[Entry]:
    """Yields an entry per line; see `read`."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            regions = [_region(face["box"], face.get("score"), face.get("square"), crop) for face in row["faces"]]
            frame = row.get("frame")
            if frame is not None and not isinstance(frame, int):
                raise TypeError(frame)
            yield Entry(path=PurePath(row["path"]), frame=frame, line=number, regions=regions)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            hint = 'write one object per line: {"path": ..., "frame": null, "faces": [{"box": [x1, y1, x2, y2]}]}'
            raise InputError(f"{path}:{number}: no faces can be read ({error!r:.60})", hint=hint) from error


def _from_csv(path: Path, lines: Sequence[str], crop: Crop) -> Iterator[Entry]:
    """Yields an entry per picture; see `read`."""
    rows = csv.reader(lines)
    header = [name.strip() for name in next(rows, [])]
    if missing := [name for name in COLUMNS if name not in header]:
        hint = f"the first line must be {','.join(COLUMNS)}"
        raise InputError(f"{path}:1: no column {', '.join(missing)}", hint=hint)
    entries: dict[str, Entry] = {}
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        try:
            if len(row) != len(header):
                raise ValueError(f"{len(row)} fields where the header has {len(header)}")
            cells = dict(zip(header, row, strict=True))
            image = cells["image"].strip()
            region = _region([cells[name] for name in COLUMNS[1:]], None, None, crop)
            entry = Entry(path=PurePath(image), frame=None, line=rows.line_num)
            entries.setdefault(image, entry).regions.append(region)
        except ValueError as error:
            hint = f"write {','.join(COLUMNS)}, in pixels"
            raise InputError(f"{path}:{rows.line_num}: no box can be read ({error})", hint=hint) from error
    yield from entries.values()


def _region(box: Sequence[Any], score: Any, square: Any, crop: Crop) -> Region:
    """Checks and converts the values of one face in a file.

    Args:
        box: x1, y1, x2, y2, pixels; numbers or their text.
        score: Number or None.
        square: left, top, side, pixels; None for the square that `crop` gives.
        crop: Rule for the square around a box.

    Raises:
        TypeError: A value is not a number.
        ValueError: A number is not finite, or the box has no area.
    """
    x1, y1, x2, y2 = map(float, box)
    if not (math.isfinite(x1 + y1 + x2 + y2) and x1 < x2 and y1 < y2):
        raise ValueError(f"x1 < x2 and y1 < y2 does not hold for {x1:g}, {y1:g}, {x2:g}, {y2:g}")
    if score is not None and not math.isfinite(float(score)):
        raise ValueError(f"the score {score} is not finite")
    if square is None:
        square = around((x1, y1, x2, y2), crop)
    left, top, side = map(int, square)
    return Region(box=(x1, y1, x2, y2), square=(left, top, side), score=None if score is None else float(score))
