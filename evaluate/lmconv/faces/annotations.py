"""Files that hold the points of many faces: what their readers share, messages with file and line above all."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from lmconv import plugins
from lmconv.data import Face, Listing
from lmconv.errors import InputError
from lmconv.types import Float64

SPLITS = ("test", "train", "all")


def broken(path: Path, line: int, what: str, hint: str = "correct the line, or remove it") -> InputError:
    """The error for a mistake in a line, counted from 1."""
    return InputError(f"{path}:{line}: {what}", hint=hint)


def check_split(split: str) -> None:
    """Refuses a split that no data set has."""
    if split not in SPLITS:
        raise plugins.unknown("split", split, list(SPLITS))


def text_of(path: Path) -> str:
    """The text of a file, whatever its bytes; names it where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="check the file and its permissions") from error


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, with their numbers."""
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if line.strip():
            yield number, line.strip()


def numbers(path: Path, line: int, fields: Sequence[str | float]) -> Float64:
    """(n,) float64: the numbers of a line, every one of them finite."""
    values = np.empty(len(fields))
    for place, field in enumerate(fields):
        try:
            values[place] = float(field)
        except (ValueError, TypeError):
            raise broken(path, line, f"{str(field)[:40]!r} is not a number") from None
        if not math.isfinite(values[place]):
            raise broken(path, line, f"{str(field)[:40]!r} is not finite")
    return values


def split_of(name: str) -> str | None:
    """The split that a name speaks of; None where it says nothing."""
    name = name.lower()
    return "train" if "train" in name else "test" if "test" in name else None


def listing(
    source: Path, found: Iterable[Face], *, problems: Sequence[str] = (), totals: Mapping[str, int] | None = None
) -> Listing:
    """The faces whose pictures are here, each with a name of its own.

    Args:
        source: What was read, for messages.
        found: Faces with a `key`; from the second one of the same name on, it gets a number.
        problems: What was left out before, one line each.
        totals: See `Listing`.

    Raises:
        InputError: None is left.
    """
    counts: Counter[str] = Counter()
    here: dict[Path, bool] = {}
    faces, missing = [], []
    for face in found:
        counts[face.name] += 1
        number = counts[face.name]
        if face.image not in here:
            here[face.image] = face.image.is_file()
        if not here[face.image]:
            missing.append(face)
        else:
            faces.append(face if number == 1 else dataclasses.replace(face, key=f"{face.key}#{number}"))
    left = list(problems)
    if missing:
        first = missing[0]
        all_of = f"{len(missing)} of {len(missing) + len(faces)} faces left out, their pictures are not here"
        left.append(f"{source}: {all_of}: {first.image} ({first.place}) is the first")
    if not faces:
        raise InputError(f"{source} has no faces", hint=left[0] if left else "expected annotations of pictures")
    ordered = tuple(sorted(faces, key=lambda face: face.name))
    return Listing(faces=ordered, problems=tuple(left), totals=totals or {})
