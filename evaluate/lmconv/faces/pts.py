"""The `.pts` files of 300-W, and the pictures beside the files. A line holds one point, x before y.

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

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


def read_pts(path: Path, landmarks: int | None = None) -> Float64:
    """Reads a `.pts` file with or without the frame of `version`, `n_points` and braces.

    Args:
        path: The file.
        landmarks: Expected number of points; by default the number that the file announces, or any number.

    Returns:
        (landmarks, 2) float64, pixels, x before y, values as stored.

    Raises:
        InputError: The file cannot be read, or does not hold this number of points; the message names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="check the file and its permissions") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    point_lines, expected = _without_frame(path, lines, landmarks)
    points = [_point(path, number, line) for number, line in point_lines]
    if not points or len(points) != (expected or len(points)):
        last = lines[-1][0] if lines else 1
        raise _line_error(path, last, f"{len(points)} points, expected {expected or 'at least 1'}")
    return np.array(points, dtype=np.float64)


def text_of(points: Float64) -> str:
    """Returns the text of a `.pts` file in 300-W's frame, with three decimals.

    Args:
        points: (L, 2) float64, pixels of the picture, x before y.
    """
    lines = "".join(f"{x:.3f} {y:.3f}\n" for x, y in points)
    return f"version: 1\nn_points: {len(points)}\n{{\n{lines}}}\n"


def _without_frame(
    path: Path, lines: list[tuple[int, str]], landmarks: int | None
) -> tuple[list[tuple[int, str]], int | None]:
    """Returns the numbered lines that must hold points, and the expected number of points (None: any)."""
    opening = next((i for i, (_, line) in enumerate(lines) if line == "{"), None)
    if opening is None:
        return lines, landmarks
    for number, line in lines[:opening]:
        key, _, value = (part.strip() for part in line.partition(":"))
        if key not in ("version", "n_points"):
            raise _line_error(path, number, f"unexpected {line[:40]!r} before the opening brace")
        if key == "n_points":
            if landmarks is None and value.isdecimal() and value.isascii():
                landmarks = int(value[:9])
            if value != str(landmarks):
                expected = landmarks or "a number"
                raise _line_error(path, number, f"announces {value[:40]!r} points, expected {expected}")
    if lines[-1][1] != "}":
        raise _line_error(path, lines[-1][0], "ends without the closing brace")
    return lines[opening + 1 : -1], landmarks


def _point(path: Path, number: int, line: str) -> tuple[float, float]:
    try:
        x, y = map(float, line.split())
    except ValueError:
        raise _line_error(path, number, f"{line[:40]!r} is not a point, two numbers") from None
    if not (math.isfinite(x) and math.isfinite(y)):
        raise _line_error(path, number, f"{line[:40]!r} is not finite")
    return x, y


def _line_error(path: Path, line: int, message: str) -> InputError:
    return InputError(f"{path}:{line}: {message}", hint="restore the file, or remove the file and its picture")


def entries(folder: Path) -> list[Path]:
    """Returns the files and folders in a folder by name, without hidden ones.

    macOS leaves hidden files in archives, `._NAME` for each file `NAME`.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}", hint="check the folder and its permissions") from error


def files_by_stem(folder: Path) -> dict[str, tuple[list[Path], list[Path]]]:
    """Returns the pictures and the `.pts` files of a folder for each file name without suffix."""
    result: dict[str, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
    for path in entries(folder):
        suffix = path.suffix.lower()
        if (suffix in PICTURE_SUFFIXES or suffix == ".pts") and path.is_file():
            result[path.stem][suffix == ".pts"].append(path)
    return dict(result)


def annotated_pictures(folder: Path, problems: list[str]) -> Iterator[tuple[Path, Path]]:
    """Yields each picture with its `.pts` file; appends a line to `problems` for each file without a unique partner."""
    for pictures, points in files_by_stem(folder).values():
        if len(pictures) == 1 and len(points) == 1:
            yield pictures[0], points[0]
        elif not points:
            problems.extend(f"{path}: no .pts file beside it" for path in pictures)
        elif not pictures:
            problems.extend(f"{path}: no picture beside it" for path in points)
        else:
            counts = f"{len(pictures)} pictures and {len(points)} .pts files"
            problems.append(f"{points[0]}: left out, {counts} of this name")
