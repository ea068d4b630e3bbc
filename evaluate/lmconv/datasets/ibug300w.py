"""300-W as iBUG distributes it: `afw`, `helen/{testset,trainset}`, `ibug`, `lfpw/{testset,trainset}`, or any of them.

Each folder holds pictures and, beside each, a `.pts` file of the same name with 68 points. Coordinates stay as stored:
the first pixel is (1, 1) there, but the published networks were trained and judged without subtracting it.

https://ibug.doc.ic.ac.uk/resources/facial-point-annotations/
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lmconv import plugins
from lmconv.data import Dataset, Face, Listing
from lmconv.errors import InputError
from lmconv.types import Float64

LANDMARKS = 68
PICTURES = (".jpg", ".jpeg", ".png")
TEST = ("helen/testset", "ibug", "lfpw/testset")
TRAIN = ("afw", "helen/trainset", "lfpw/trainset")
SPLITS = {"test": TEST, "train": TRAIN, "all": (*TEST, *TRAIN)}
SUBSETS = {"helen/testset": "common", "lfpw/testset": "common", "ibug": "challenge"}
TOTALS = {
    "common": 554,
    "challenge": 135,
    "full": 689,
    "afw": 337,
    "helen/testset": 330,
    "helen/trainset": 2000,
    "ibug": 135,
    "lfpw/testset": 224,
    "lfpw/trainset": 811,
}
DEPTH = 2
"""How many levels below the given folder a layout may start."""


def read_pts(path: Path, landmarks: int = LANDMARKS) -> Float64:
    """Reads a `.pts` file, with or without the `version`, `n_points`, `{ }` frame.

    Args:
        path: The file: one point a line, x before y.
        landmarks: How many points it must hold.

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
    points = [_point(path, number, line) for number, line in _unframed(path, lines, landmarks)]
    if len(points) != landmarks:
        last = lines[-1][0] if lines else 1
        raise _broken(path, last, f"{len(points)} points where {landmarks} are needed")
    return np.array(points, dtype=np.float64)


def _unframed(path: Path, lines: list[tuple[int, str]], landmarks: int) -> list[tuple[int, str]]:
    """The lines that should hold points."""
    opening = next((i for i, (_, line) in enumerate(lines) if line == "{"), None)
    if opening is None:
        return lines
    for number, line in lines[:opening]:
        key, _, value = line.partition(":")
        if key.strip() not in ("version", "n_points"):
            raise _broken(path, number, f"{line[:40]!r} before the opening brace")
        if key.strip() == "n_points" and value.strip() != str(landmarks):
            raise _broken(path, number, f"announces {value.strip()[:40]!r} points where {landmarks} are needed")
    if lines[-1][1] != "}":
        raise _broken(path, lines[-1][0], "ends without the closing brace")
    return lines[opening + 1 : -1]


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


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name; without hidden files, among them the `._*` that macOS leaves in archives."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}", hint="check the folder and its permissions") from error


def _below(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if depth:
        for child in _entries(folder):
            if child.is_dir():
                yield from _below(child, depth - 1)


def _files(folder: Path) -> dict[str, tuple[list[Path], list[Path]]]:
    """Pictures and `.pts` files of a folder by the name they share."""
    files: dict[str, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
    for path in _entries(folder):
        suffix = path.suffix.lower()
        if (suffix in PICTURES or suffix == ".pts") and path.is_file():
            files[path.stem][suffix == ".pts"].append(path)
    return dict(files)


def _parts(folder: Path) -> list[tuple[str, Path]]:
    """The parts of the layout at or below a folder, as (name, folder), sorted."""
    # A user may also give a part, or `helen`: then the layout starts above.
    roots = [folder.parent.parent, folder.parent, *_below(folder, DEPTH)]
    places = {(part, root / part) for root in roots for part in SPLITS["all"]}
    inside = [(part, path) for part, path in sorted(places) if path.is_relative_to(folder)]
    return [(part, path) for part, path in inside if path.is_dir() and _files(path)]


def _matches(folder: Path) -> bool:
    folder = folder.absolute()
    return folder.is_dir() and bool(_parts(folder) or any(pts for _, pts in _files(folder).values()))


def _pairs(folder: Path, problems: list[str]) -> Iterator[tuple[Path, Path]]:
    """Pictures with their `.pts` file; adds a line to `problems` for each that has no one partner."""
    for pictures, points in _files(folder).values():
        if len(pictures) == 1 and len(points) == 1:
            yield pictures[0], points[0]
        elif not points:
            problems.extend(f"{path}: no .pts file beside it" for path in pictures)
        elif not pictures:
            problems.extend(f"{path}: no picture beside it" for path in points)
        else:
            counts = f"{len(pictures)} pictures and {len(points)} .pts files"
            problems.append(f"{points[0]}: left out, {counts} of this name")


def _chosen(folder: Path, split: str) -> list[tuple[str, Path]]:
    """The parts of a split; a folder without the layout is one part, named after itself, of every split."""
    if split not in SPLITS:
        raise plugins.unknown("split", split, list(SPLITS))
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}", hint="name a folder with annotated faces")
    parts = _parts(folder)
    chosen = [(name, path) for name, path in parts if name in SPLITS[split]]
    if parts and not chosen:
        there = ", ".join(sorted({name for name, _ in parts}))
        hint = f"add them, or use the split {'train' if split == 'test' else 'test'}"
        raise InputError(f"{folder} has no {split} faces of 300-W, only {there}", hint=hint)
    return chosen or [(folder.name, folder)]


def _faces(folder: Path, split: str) -> Listing:
    folder = folder.absolute()
    faces: dict[str, Face] = {}
    problems: list[str] = []
    parts = _chosen(folder, split)
    for part, path in parts:
        subsets = (SUBSETS[part], part) if part in SUBSETS else (part,)
        for image, annotation in _pairs(path, problems):
            face = Face(image=image, annotation=annotation, points=read_pts(annotation), subsets=subsets)
            first = faces.setdefault(face.name, face)
            if first is not face:
                problems.append(f"{image}: left out, the same face as {first.image}")
    if not faces:
        hint = problems[0] if problems else "expected pictures with .pts files beside them"
        raise InputError(f"{folder} has no faces", hint=hint)
    # What a folder of its own happens to be called says nothing about the published subsets.
    totals = TOTALS if parts[0][0] in SPLITS["all"] else {}
    return Listing(faces=tuple(faces[name] for name in sorted(faces)), problems=tuple(problems), totals=totals)


plugin = Dataset(
    name="ibug300w",
    summary="300-W: afw, helen, ibug, lfpw with 68-point .pts files, or one folder of such pictures",
    landmarks=LANDMARKS,
    matches=_matches,
    faces=_faces,
)
