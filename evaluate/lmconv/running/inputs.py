"""Inputs of `lmconv run`: pictures, videos, cameras and streams that the user names, and the names of their output."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from lmconv.errors import InputError, UsageError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""Suffixes of pictures in a folder, and formats in which a picture is written. A file that the user names may have any
format that OpenCV reads."""
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mjpeg", ".3gp"
)  # fmt: skip
STREAM_URL = re.compile(r"(https?|rtsps?|rtmp|udp)://", re.IGNORECASE)

Kind: TypeAlias = Literal["picture", "video", "camera", "stream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One input: a picture, a video, a camera or a stream.

    Attributes:
        kind: Kind of the input.
        source: Path of a file, number of a camera, or URL of a stream.
        label: Name in messages and in landmarks.jsonl. The label of a stream is its URL without user, password and
            query.
        name: Name of the output: a path below OUT with slashes, without a suffix.
    """

    kind: Kind
    source: Path | int | str
    label: str
    name: str

    @property
    def drawn_file(self) -> str:
        """Path below OUT of the picture or video with the landmarks drawn."""
        if self.kind != "picture":
            return f"{self.name}.mp4"
        suffix = PurePosixPath(self.label).suffix
        return self.name + (suffix if suffix.lower() in PICTURE_SUFFIXES else ".png")


def camera(number: int) -> Item:
    """Returns the camera with this number."""
    return Item(kind="camera", source=number, label=f"camera {number}", name=f"camera{number}")


def resolve_input(text: str, out: Path) -> list[Item]:
    """Returns the inputs that one argument of the command line names.

    A folder stands for its pictures and videos at any depth, sorted by path. Hidden files and folders, and the folder
    `out`, are skipped.

    Args:
        text: Path of a file or folder, or URL of a stream.
        out: Folder for the output.

    Raises:
        InputError: The file or folder does not exist, or the folder holds no picture or video.
    """
    if STREAM_URL.match(text):
        return [_stream(text)]
    path = Path(text)
    if not path.is_dir():
        if not path.is_file():
            problem = "is not a file" if path.exists() else "does not exist"
            raise InputError(f"{text} {problem}", hint="name pictures, folders, videos, or the URL of a stream")
        return [_file(path, path.parent)]
    items = [_file(file, path) for file in _media_files(path, out.resolve())]
    if not items:
        suffixes = ", ".join(PICTURE_SUFFIXES + VIDEO_SUFFIXES)
        raise InputError(f"{text} has no picture or video in it", hint=f"known suffixes: {suffixes}")
    return items


def _stream(url: str) -> Item:
    """Returns the stream of a URL; its name is the stem of the URL's path, or the host."""
    parts = urlsplit(url)
    label = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
    stem = PurePosixPath(parts.path).stem or parts.hostname or "stream"
    return Item(kind="stream", source=url, label=label, name=re.sub(r"[^\w.-]", "_", stem).lstrip(".") or "stream")


def _file(path: Path, root: Path) -> Item:
    """Returns the picture or video of a file; its name is the path relative to `root`."""
    kind: Kind = "video" if path.suffix.lower() in VIDEO_SUFFIXES else "picture"
    return Item(kind=kind, source=path, label=str(path), name=path.relative_to(root).with_suffix("").as_posix())


def _media_files(folder: Path, out: Path) -> Iterator[Path]:
    """Yields the pictures and videos below a folder, sorted; skips hidden ones and the folder `out`."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: {error.strerror}", hint="check the folder and its permissions")

    for parent, folders, files in os.walk(folder, onerror=refuse):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and (here / name).resolve() != out)
        for name in sorted(files):
            path = here / name
            is_media = path.suffix.lower() in PICTURE_SUFFIXES + VIDEO_SUFFIXES
            if is_media and not name.startswith(".") and path.is_file():
                yield path


NUMBERED = re.compile(r"(.+)_\d+")
"""Name of the `.pts` file of one face among several, and of one frame of a video."""


def with_unique_names(items: Sequence[Item]) -> list[Item]:
    """Returns the items with `-2`, `-3` … added to names: no output file overwrites another.

    Names that differ only in case count as equal, because some file systems do not distinguish case. A name `a` also
    conflicts with `a_0`, because the `.pts` files of several faces in `a` are called `a_0`, `a_1` ….
    """
    used: set[str] = set()
    used_bases: set[str] = set()
    renamed = []
    for item in items:
        name, count = item.name, 1
        while (folded := name.casefold()) in used | used_bases or _base(folded) in used:
            count += 1
            name = f"{item.name}-{count}"
        used.add(folded)
        used_bases.add(_base(folded))
        renamed.append(replace(item, name=name))
    return renamed


def _base(name: str) -> str:
    """Returns the name without `_NUMBER` at its end."""
    match = NUMBERED.fullmatch(name)
    return match[1] if match else name


LANDMARKS_FILE = "landmarks.jsonl"
"""Path below OUT of the file with the landmarks of all inputs."""


def check_output(items: Sequence[Item], out: Path, boxes: Path | None = None) -> None:
    """Refuses a folder for the output if an output file would overwrite an input or the file of `--boxes`.

    Raises:
        UsageError: An output file is an input or `boxes`.
    """
    sources = {item.source.resolve() for item in items if isinstance(item.source, Path)}
    sources |= {boxes.resolve()} if boxes else set()
    for name in (LANDMARKS_FILE, *(item.drawn_file for item in items)):
        if (out / name).resolve() in sources:
            raise UsageError(f"{out / name} is an input, and would be overwritten", hint="name another folder by --out")
