"""The `.pts` files of 300-W: one point a line, x before y; and the pictures they lie beside.

https://ibug.doc.ic.ac.uk/resources/facial-point-annotations/
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lmconv.errors import InputError
from lmconv.types import Float64

PICTURES = (".jpg", ".jpeg", ".png")


def read_pts(path: Path, landmarks: int | None = None) -> Float64:
    """Reads a `.pts` file, with or without the `version`, `n_points`, `{ }` frame.

    Args:
        path: The file.
        landmarks: How many points it must hold; by default as many as it announces, or simply has.

    Returns:
        (landmarks, 2) float64, pixels, values as stored.

    Raises:
        InputError: It cannot be read, or does not hold exactly these points; names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="check the file and its permissions") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    inside, needed = _unframed(path, lines, landmarks)
    points = [_point(path, number, line) for number, line in inside]
    if not points or len(points) != (needed or len(points)):
        last = lines[-1][0] if lines else 1
        raise _broken(path, last, f"{len(points)} points where {needed or 'some'} are needed")
    return np.array(points, dtype=np.float64)


def text_of(points: Float64) -> str:
    """Returns the text of a `.pts` file: (L, 2) points, pixels, in 300-W's frame, to a thousandth of a pixel."""
    lines = "".join(f"{x:.3f} {y:.3f}\n" for x, y in points)
    return f"version: 1\nn_points: {len(points)}\n{{\n{lines}}}\n"


def _unframed(
    path: Path, lines: list[tuple[int, str]], landmarks: int | None
) -> tuple[list[tuple[int, str]], int | None]:
    """The lines that should hold points, and how many there should be."""
    opening = next((i for i, (_, line) in enumerate(lines) if line == "{"), None)
    if opening is None:
        return lines, landmarks
    for number, line in lines[:opening]:
        key, _, value = (part.strip() for part in line.partition(":"))
        if key not in ("version", "n_points"):
            raise _broken(path, number, f"{line[:40]!r} before the opening brace")
        if key == "n_points":
            if landmarks is None and value.isdecimal() and value.isascii():
                landmarks = int(value[:9])
            if value != str(landmarks):
                raise _broken(path, number, f"announces {value[:40]!r} points where {landmarks or 'some'} are needed")
    if lines[-1][1] != "}":
        raise _broken(path, lines[-1][0], "ends without the closing brace")
    return lines[opening + 1 : -1], landmarks


def _point(path: Path, number: int, line: str) -> tuple[float, float]:
    try:
        x, y = map(float, line.split())
    except ValueError:
        raise _broken(path, number, f"{line[:40]!r} is not a point, two numbers") from None
    if not (math.isfinite(x) and math.isfinite(y)):
        raise _broken(path, number, f"{line[:40]!r} is not finite")
    return x, y


def _broken(path: Path, line: int, what: str) -> InputError:
    return InputError(f"{path}:{line}: {what}", hint="restore the file, or remove it together with its picture")


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name; without hidden files, among them the `._*` that macOS leaves in archives."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}", hint="check the folder and its permissions") from error


def files(folder: Path) -> dict[str, tuple[list[Path], list[Path]]]:
    """Pictures and `.pts` files of a folder by the name they share."""
    found: dict[str, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
    for path in entries(folder):
        suffix = path.suffix.lower()
        if (suffix in PICTURES or suffix == ".pts") and path.is_file():
            found[path.stem][suffix == ".pts"].append(path)
    return dict(found)


def pairs(folder: Path, problems: list[str]) -> Iterator[tuple[Path, Path]]:
    """Pictures with their `.pts` file; adds a line to `problems` for each that has no one partner."""
    for pictures, points in files(folder).values():
        if len(pictures) == 1 and len(points) == 1:
            yield pictures[0], points[0]
        elif not points:
            problems.extend(f"{path}: no .pts file beside it" for path in pictures)
        elif not pictures:
            problems.extend(f"{path}: no picture beside it" for path in points)
        else:
            counts = f"{len(pictures)} pictures and {len(points)} .pts files"
            problems.append(f"{points[0]}: left out, {counts} of this name")
