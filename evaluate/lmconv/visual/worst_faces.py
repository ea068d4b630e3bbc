"""Writes a folder with pictures of annotated faces, largest error first, a contact sheet and a table of the faces."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmconv.errors import InputError
from lmconv.faces.crops import FaceCrops
from lmconv.store.files import finite, writing
from lmconv.types import Float64, Json, Uint8
from lmconv.visual.encoding import encode
from lmconv.visual.face_picture import contact_sheet, face_picture
from lmconv.visual.tables import number

MAX_TILES = 30
"""Largest number of faces in the contact sheet."""
JPEG_QUALITY = 92
OVERVIEW, TABLE = "overview.jpg", "faces.csv"
COLUMNS = ("rank", "name", "ion", "subset", "file")
OWN_FILE = re.compile(r"\d{4,}-.+\.jpg|overview\.jpg|faces\.csv")
"""Names of the files that this module writes; other files are never removed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """Landmarks that a network predicts for n annotated faces.

    Attributes:
        points: (n, L, 2) float64, pixels of the pictures, x before y.
        errors: (n,) float64, ION of each face, percent.
    """

    points: Float64
    errors: Float64


def write_faces(
    folder: Path, faces: FaceCrops, predictions: Predictions | None, *, count: int, force: bool = False
) -> list[Json]:
    """Draws the faces with the largest errors, or without predictions the first faces, into a folder.

    Args:
        folder: The folder; created if necessary.
        faces: The annotated faces.
        predictions: Predictions for the faces; None to draw the annotated points alone.
        count: Largest number of faces that are drawn.
        force: True to replace the files of an earlier call.

    Returns:
        A row per drawn face: rank from 1, name, ION in percent or None, subset, file.

    Raises:
        InputError: The folder holds other files, or cannot be written.
    """
    order = order_by_error(faces, predictions)[:count]
    rows = [_row(rank, int(index), faces, predictions) for rank, index in enumerate(order, 1)]
    with writing(folder):
        _clear(folder, force)
        folder.mkdir(parents=True, exist_ok=True)
        tiles: dict[int, Uint8] = {}
        for position, picture in _pictures(order, rows, faces, predictions):
            (folder / rows[position]["file"]).write_bytes(encode(picture, ".jpg", jpeg_quality=JPEG_QUALITY))
            if position < MAX_TILES:
                tiles[position] = picture
        sheet = contact_sheet([tiles[position] for position in sorted(tiles)])
        (folder / OVERVIEW).write_bytes(encode(sheet, ".jpg", jpeg_quality=JPEG_QUALITY))
        (folder / TABLE).write_text(_table(rows), encoding="utf-8", newline="\n")
    return rows


def order_by_error(faces: FaceCrops, predictions: Predictions | None) -> NDArray[np.intp]:
    """Returns the indices of the faces, (n,) int, largest error first; errors that are not finite come before all.

    Without predictions the order of the faces is unchanged.
    """
    if predictions is None:
        return np.arange(len(faces.names))
    errors = np.where(np.isfinite(predictions.errors), predictions.errors, np.inf)
    return np.argsort(-errors, kind="stable")


def _pictures(
    order: NDArray[np.intp], rows: Sequence[Json], faces: FaceCrops, predictions: Predictions | None
) -> Iterator[tuple[int, Uint8]]:
    """Yields each position in `order`, from 0, with the picture of the face, (SIDE, SIDE, 3) uint8, BGR.

    The faces come in the order of the data set: faces of one picture follow each other and share the decoded picture.
    """
    positions = np.argsort(order, kind="stable")
    scenes = faces.scenes(order[positions].tolist())
    for position, scene in zip(positions.tolist(), scenes, strict=True):
        index = order[position]
        annotated, name = faces.truth[index], faces.names[index]
        if predictions is None:
            yield position, face_picture(scene.frame, annotated, None, name)
        else:
            ion = f"ION {number(rows[position]['ion'], '.2f')}"
            yield position, face_picture(scene.frame, annotated, predictions.points[index], name, ion)


def _row(rank: int, index: int, faces: FaceCrops, predictions: Predictions | None) -> Json:
    """Returns the row of the face at `index`, for the table and for `--json`; `rank` begins at 1."""
    name = faces.names[index]
    return {
        "rank": rank,
        "name": name,
        "ion": None if predictions is None else finite(float(predictions.errors[index])),
        "subset": faces.subsets[index][0],
        "file": f"{rank:04d}-{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[-100:]}.jpg",
    }


def _clear(folder: Path, force: bool) -> None:
    """Removes the files of an earlier call.

    Raises:
        InputError: The folder holds other files, or `force` is False and the folder is not empty.
    """
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in paths:
        if not OWN_FILE.fullmatch(path.name):
            raise InputError(f"{path} is not a file of lmconv draw", hint="name another folder by --out")
        if not force:
            hint = "name another folder by --out, or replace the pictures with --force"
            raise InputError(f"{folder} has pictures already", hint=hint)
    for path in paths:
        path.unlink()


def _table(rows: Sequence[Json]) -> str:
    """Returns the rows as CSV, ION with four decimals, empty if None."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {"ion": "" if row["ion"] is None else f"{row['ion']:.4f}"} for row in rows)
    return text.getvalue()
