"""Drawn faces on disk, laid out as 300-W is: `drawn/testset/00000.png` with `00000.pts` beside it, and so on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import cv2

from lmconv.errors import InputError
from lmconv.faces.pts import text_of
from lmconv.store.files import replace_bytes, writing
from lmconv.synthetic.picture import SPLITS, face, stream

OURS = re.compile(r"\d{5}\.(png|pts)|\.\d{5}\.(png|pts)(\.\d+)?")
"""What a folder of drawn faces holds; with a dot, what an interrupted run left."""


def write(
    out: Path,
    counts: Mapping[str, int],
    *,
    seed: int = 0,
    landmarks: int = 68,
    force: bool = False,
    step: Callable[[], None] = lambda: None,
) -> str:
    """Draws faces into `out/drawn/trainset` and `out/drawn/testset`; what is there already and the same stays.

    Args:
        out: The folder above `drawn`; it need not exist.
        counts: Faces of each split, `{"trainset": 300, "testset": 100}`.
        seed: At least 0.
        landmarks: 68 (iBUG) or 98 (WFLW).
        force: Whether other drawn faces there are replaced.
        step: Called after each face.

    Returns:
        Hex sha256 over all files in order: the same for the same arguments, with the same OpenCV on the same machine.

    Raises:
        InputError: There are other files in the way, or the folder cannot be written.
    """
    places = {split: out / "drawn" / split for split in SPLITS}
    with writing(out):
        strays = [stray for split, place in places.items() for stray in _strays(place, counts.get(split, 0), force)]
        for stray in strays:
            stray.unlink()
        total = hashlib.sha256()
        for split, folder in places.items():
            if not counts.get(split):
                if folder.is_dir():
                    folder.rmdir()
                continue
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in _files(split, counts[split], seed, landmarks):
                _put(folder / name, content, force)
                total.update(content)
                if name.endswith(".pts"):
                    step()
    return total.hexdigest()


def _files(split: str, count: int, seed: int, landmarks: int) -> Iterator[tuple[str, bytes]]:
    for number in range(count):
        picture, points = face(SPLITS[split], stream(seed, split, number), points=landmarks)
        yield f"{number:05d}.png", cv2.imencode(".png", picture)[1].tobytes()
        yield f"{number:05d}.pts", text_of(points).encode()


def _strays(folder: Path, count: int, force: bool) -> list[Path]:
    """Drawn files that must go before this many faces are all there is; refuses what is not to be removed."""
    strays = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not OURS.fullmatch(path.name):
            raise InputError(f"{path} was not drawn", hint="name another folder")
        if path.name.startswith("."):
            strays.append(path)
        elif int(path.stem) >= count:
            strays.append(path)
            if not force:
                raise InputError(
                    f"{path} is of another drawing", hint="name another folder, or replace it with --force"
                )
    return strays


def _put(path: Path, content: bytes, force: bool) -> None:
    if path.exists():
        if path.read_bytes() == content:
            return
        if not force:
            raise InputError(f"{path} is of another drawing", hint="name another folder, or replace it with --force")
    replace_bytes(path, content, sweep=False)
