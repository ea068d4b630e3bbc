"""Functions that the readers of annotation files share; every error names the file and the line."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from lmconv.data import Face, Listing
from lmconv.errors import InputError
from lmconv.plugins import unknown
from lmconv.types import Float64

SPLITS = ("test", "train", "all")


def line_error(path: Path, line: int, message: str, hint: str = "correct the line, or remove the line") -> InputError:
    """Returns the error for a mistake in a line, counted from 1."""
    return InputError(f"{path}:{line}: {message}", hint=hint)


def check_split(split: str) -> None:
    """Raises a `UsageError` for an unknown split."""
    if split not in SPLITS:
        raise unknown("split", split, list(SPLITS))


def read_text(path: Path) -> str:
    """Reads a file as UTF-8; bytes that are not UTF-8 become replacement characters.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="check the file and its permissions") from error


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields number, counted from 1, and text of every line that is not empty."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield number, line.strip()


def finite_numbers(path: Path, line: int, fields: Sequence[str | float]) -> Float64:
    """Converts the n fields of a line to numbers.

    Returns:
        (n,) float64.

    Raises:
        InputError: A field is not a finite number.
    """
    values = np.empty(len(fields))
    for index, field in enumerate(fields):
        try:
            values[index] = float(field)
        except (ValueError, TypeError):
            raise line_error(path, line, f"{str(field)[:40]!r} is not a number") from None
        if not math.isfinite(values[index]):
            raise line_error(path, line, f"{str(field)[:40]!r} is not finite")
    return values


def split_in_name(name: str) -> str | None:
    """Returns the split that a file or folder name contains; None if the name contains neither train nor test."""
    name = name.lower()
    return "train" if "train" in name else "test" if "test" in name else None


def build_listing(
    source: Path, candidates: Iterable[Face], *, problems: Sequence[str] = (), totals: Mapping[str, int] | None = None
) -> Listing:
    """Lists the faces whose pictures exist, each with a unique name.

    Args:
        source: Path of the data set, for messages.
        candidates: Faces with a `key`. The second face of a name gets the suffix `#2`, the third `#3`, and so on.
        problems: One line for each face or file that the reader has left out.
        totals: See `Listing`.

    Raises:
        InputError: No face has a picture.
    """
    counts: Counter[str] = Counter()
    exists: dict[Path, bool] = {}
    faces, missing = [], []
    for face in candidates:
        counts[face.name] += 1
        number = counts[face.name]
        if face.image not in exists:
            exists[face.image] = face.image.is_file()
        if not exists[face.image]:
            missing.append(face)
        else:
            faces.append(face if number == 1 else dataclasses.replace(face, key=f"{face.key}#{number}"))
    all_problems = list(problems)
    if missing:
        first = missing[0]
        message = f"{len(missing)} of {len(missing) + len(faces)} faces left out, because their pictures are missing"
        all_problems.append(f"{source}: {message}; the first is {first.image} ({first.place})")
    if not faces:
        hint = all_problems[0] if all_problems else "expected annotations of pictures"
        raise InputError(f"{source} has no faces", hint=hint)
    ordered = tuple(sorted(faces, key=lambda face: face.name))
    return Listing(faces=ordered, problems=tuple(all_problems), totals=totals or {})
