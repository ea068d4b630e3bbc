"""Writes synthetic faces in the layout of 300-W: `drawn/testset/00000.png` with `00000.pts` beside it, and so on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from lmconv.errors import InputError
from lmconv.faces.pts import text_of
from lmconv.store.files import replace_bytes, writing
from lmconv.synthetic.picture import SPLITS, face, stream
from lmconv.visual.encoding import encode

OWN_FILE = re.compile(r"\d{5}\.(png|pts)|\.\d{5}\.(png|pts)(\.\d+)?")
"""Names of the files that this module writes. A name with a leading dot is the temporary file of an interrupted run."""


def write(
    out: Path,
    counts: Mapping[str, int],
    *,
    seed: int = 0,
    landmarks: int = 68,
    force: bool = False,
    step: Callable[[], None] = lambda: None,
) -> str:
    """Draws faces into `out/drawn/trainset` and `out/drawn/testset`; an existing file with the same content stays.

    Args:
        out: Folder above `drawn`; created if necessary.
        counts: Number of faces of each split, `{"trainset": 300, "testset": 100}`.
        seed: Seed of the faces, at least 0.
        landmarks: Number of landmarks: 68 (iBUG) or 98 (WFLW).
        force: True to replace the faces of another call.
        step: Called after each face.

    Returns:
        Hex sha256 over all files in order. The same arguments give the same digest with the same OpenCV on the same
        machine.

    Raises:
        InputError: The folder holds other files, or cannot be written.
    """
    folders = {split: out / "drawn" / split for split in SPLITS}
    with writing(out):
        obsolete = [
            path for split, folder in folders.items() for path in _obsolete(folder, counts.get(split, 0), force)
        ]
        for path in obsolete:
            path.unlink()
        digest = hashlib.sha256()
        for split, folder in folders.items():
            if not counts.get(split):
                if folder.is_dir():
                    folder.rmdir()
                continue
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in _files(split, counts[split], seed, landmarks):
                _write_file(folder / name, content, force)
                digest.update(content)
                if name.endswith(".pts"):
                    step()
    return digest.hexdigest()


def _files(split: str, count: int, seed: int, landmarks: int) -> Iterator[tuple[str, bytes]]:
    """Yields name and content of all files of a split."""
    for number in range(count):
        picture, points = face(SPLITS[split], stream(seed, split, number), points=landmarks)
        yield f"{number:05d}.png", encode(picture, ".png")
        yield f"{number:05d}.pts", text_of(points).encode()


def _obsolete(folder: Path, count: int, force: bool) -> list[Path]:
    """Returns the files of earlier calls that do not belong to the first `count` faces.

    Raises:
        InputError: The folder holds other files; or, without `force`, faces beyond `count`.
    """
    obsolete = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not OWN_FILE.fullmatch(path.name):
            raise InputError(f"{path} was not drawn by lmconv", hint="name another folder")
        if path.name.startswith("."):
            obsolete.append(path)
        elif int(path.stem) >= count:
            obsolete.append(path)
            if not force:
                raise _other_drawing(path)
    return obsolete


def _write_file(path: Path, content: bytes, force: bool) -> None:
    """Writes a file beside `path` and renames the file to `path`; leaves a file with the same content.

    Raises:
        InputError: Without `force`, if the existing file has another content.
    """
    if path.exists():
        if path.read_bytes() == content:
            return
        if not force:
            raise _other_drawing(path)
    replace_bytes(path, content, sweep=False)


def _other_drawing(path: Path) -> InputError:
    """Returns the error for a face of a call with other options."""
    hint = "name another folder, or replace the faces with --force"
    return InputError(f"{path} is from a draw with other options", hint=hint)
