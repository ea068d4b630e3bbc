"""Annotated faces as pictures, with what a network found in them, the worst first; an overview and a table of them."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmconv.errors import InputError
from lmconv.faces.crops import CropSet
from lmconv.networks.squares import around, cut
from lmconv.scheme import scheme
from lmconv.store.files import finite, writing
from lmconv.types import Crop, Float64, Json, Uint8
from lmconv.visual import marks
from lmconv.visual.tables import number

SIDE = 480
"""Of a portrait, pixels."""
MARGIN = Crop(side="max", scale=1.5)
"""How much of the picture around a face is shown."""
TILES, ACROSS, TILE = 30, 6, 240
"""How many portraits the overview has at most, how many beside each other, and the side of each, pixels."""
OVERVIEW, TABLE = "overview.jpg", "faces.csv"
COLUMNS = ("rank", "name", "ion", "subset", "file")
OURS = re.compile(r"\d{4,}-.+\.jpg|overview\.jpg|faces\.csv")
"""What a folder of portraits holds."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """What a network found in faces.

    Attributes:
        points: (n, L, 2) float64, pixels of the pictures.
        errors: (n,) float64, ION of each face, percent.
    """

    points: Float64
    errors: Float64


def write(folder: Path, faces: CropSet, found: Found | None, *, most: int, force: bool = False) -> list[Json]:
    """Draws the worst faces, or without a network the first, into a folder.

    Args:
        folder: Made where it is not there.
        faces: The annotation.
        found: Of a network; without one the annotation alone is drawn.
        most: How many are drawn at most.
        force: Whether portraits that are there are replaced.

    Returns:
        A row for each: rank from 1, name, ION in percent (None where there is none), subset, file.

    Raises:
        InputError: There are files in the way, or the folder cannot be written.
    """
    order = ranked(faces, found)[:most]
    rows = [_row(rank, int(place), faces, found) for rank, place in enumerate(order, 1)]
    with writing(folder):
        _clear(folder, force)
        folder.mkdir(parents=True, exist_ok=True)
        tiles: dict[int, Uint8] = {}
        for rank, picture in _portraits(order, rows, faces, found):
            (folder / rows[rank]["file"]).write_bytes(_jpeg(picture))
            if rank < TILES:
                tiles[rank] = picture
        (folder / OVERVIEW).write_bytes(_jpeg(sheet([tiles[rank] for rank in sorted(tiles)])))
        (folder / TABLE).write_text(_table(rows), encoding="utf-8", newline="\n")
    return rows


def ranked(faces: CropSet, found: Found | None) -> NDArray[np.intp]:
    """The places of the faces, largest error first, what is not finite before all; without a network as they come."""
    if found is None:
        return np.arange(len(faces.names))
    return np.argsort(-np.where(np.isfinite(found.errors), found.errors, np.inf), kind="stable")


def portrait(picture: Uint8, truth: Float64, found: Float64 | None, name: str, ion: str = "") -> Uint8:
    """A face with its annotated points in green and, of a network, those that it found in red, joined to them.

    Args:
        picture: (H, W, 3) uint8, BGR.
        truth: (L, 2) float64, pixels.
        found: The same of a network.
        name: Stands below.
        ion: Stands above, large enough for the overview.

    Returns:
        (SIDE, SIDE, 3) uint8, BGR.
    """
    left, top, side = around((*truth.min(axis=0), *truth.max(axis=0)), MARGIN)
    shown = cut(picture, (left, top, side), (SIDE, SIDE))
    rule = scheme(len(truth))
    groups = tuple(rule.groups.values()) if rule else ()
    here = (truth - (left, top)) * (SIDE / side)
    if found is None:
        marks.draw_landmarks(shown, here, groups=groups)
    else:
        there = (found - (left, top)) * (SIDE / side)
        marks.draw_lines(shown, here, there)
        marks.draw_landmarks(shown, there, groups=groups, colour=marks.RED)
        marks.draw_landmarks(shown, here)
    marks.text(shown, name, (6, SIDE - 8), size=1.2)
    if ion:
        marks.text(shown, ion, (6, 24), size=2)
    return shown


def sheet(pictures: Sequence[Uint8]) -> Uint8:
    """Portraits beside each other, at least one: (rows x TILE, columns x TILE, 3) uint8, BGR."""
    import cv2

    columns = min(ACROSS, len(pictures))
    whole = np.zeros((math.ceil(len(pictures) / columns) * TILE, columns * TILE, 3), np.uint8)
    for place, picture in enumerate(pictures):
        y, x = place // columns * TILE, place % columns * TILE
        whole[y : y + TILE, x : x + TILE] = cv2.resize(picture, (TILE, TILE), interpolation=cv2.INTER_AREA)
    return whole


def _portraits(
    order: NDArray[np.intp], rows: Sequence[Json], faces: CropSet, found: Found | None
) -> Iterator[tuple[int, Uint8]]:
    """Each rank from 0 with its portrait, in the order in which pictures are read."""
    ranks = np.argsort(order, kind="stable")
    for rank, scene in zip(ranks.tolist(), faces.scenes(order[ranks].tolist()), strict=True):
        place, name = order[rank], faces.names[order[rank]]
        if found is None:
            yield rank, portrait(scene.frame, faces.truth[place], None, name)
        else:
            ion = f"ION {number(rows[rank]['ion'], '.2f')}"
            yield rank, portrait(scene.frame, faces.truth[place], found.points[place], name, ion)


def _row(rank: int, place: int, faces: CropSet, found: Found | None) -> Json:
    name = faces.names[place]
    return {
        "rank": rank,
        "name": name,
        "ion": None if found is None else finite(float(found.errors[place])),
        "subset": faces.subsets[place][0],
        "file": f"{rank:04d}-{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[-100:]}.jpg",
    }


def _clear(folder: Path, force: bool) -> None:
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in there:
        if not OURS.fullmatch(path.name):
            raise InputError(f"{path} is no picture of draw's", hint="name another folder with --out")
        if not force:
            raise InputError(f"{folder} has pictures already", hint="name another --out, or replace them with --force")
    for path in there:
        path.unlink()


def _jpeg(picture: Uint8) -> bytes:
    import cv2

    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def _table(rows: Sequence[Json]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {"ion": "" if row["ion"] is None else f"{row['ion']:.4f}"} for row in rows)
    return text.getvalue()
