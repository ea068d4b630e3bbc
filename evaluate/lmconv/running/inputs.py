"""What a user names, as a list of pictures, videos, cameras and streams, and what their output is called."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from lmconv.errors import InputError, UsageError

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""What is looked for in folders, and written in its own format; a file that is named may be anything OpenCV reads."""
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mjpeg", ".3gp")
STREAM = re.compile(r"(https?|rtsps?|rtmp|udp)://", re.IGNORECASE)

Kind: TypeAlias = Literal["picture", "video", "camera", "stream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing to find faces in.

    Attributes:
        source: A file, the number of a camera, or the address of a stream.
        label: What it is called in messages and in landmarks.jsonl; the address of a stream without its password.
        name: What its output is called: a path below OUT, without a suffix, with slashes.
    """

    kind: Kind
    source: Path | int | str
    label: str
    name: str

    @property
    def drawn(self) -> str:
        """The file below OUT that shows its landmarks."""
        if self.kind != "picture":
            return f"{self.name}.mp4"
        suffix = PurePosixPath(self.label).suffix
        return self.name + (suffix if suffix.lower() in PICTURES else ".png")


def camera(number: int) -> Item:
    """The camera of this number."""
    return Item(kind="camera", source=number, label=f"camera {number}", name=f"camera{number}")


def named(text: str, out: Path) -> list[Item]:
    """What one argument names; of a folder its pictures and videos, at any depth, sorted.

    Hidden files and what lies in `out` are left out.

    Raises:
        InputError: It does not exist, or there is nothing in it.
    """
    if STREAM.match(text):
        return [_stream(text)]
    path = Path(text)
    if not path.is_dir():
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            raise InputError(f"{text} {what}", hint="name pictures, folders, videos, or the URL of a stream")
        return [_file(path, path.parent)]
    items = [_file(found, path) for found in _below(path, out.resolve())]
    if not items:
        raise InputError(f"{text} has no picture or video in it", hint=f"known are {', '.join(PICTURES + VIDEOS)}")
    return items


def _stream(url: str) -> Item:
    parts = urlsplit(url)
    label = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
    stem = PurePosixPath(parts.path).stem or parts.hostname or "stream"
    return Item(kind="stream", source=url, label=label, name=re.sub(r"[^\w.-]", "_", stem).lstrip(".") or "stream")


def _file(path: Path, above: Path) -> Item:
    kind: Kind = "video" if path.suffix.lower() in VIDEOS else "picture"
    return Item(kind=kind, source=path, label=str(path), name=path.relative_to(above).with_suffix("").as_posix())


def _below(folder: Path, out: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: {error.strerror}", hint="check the folder and its permissions")

    for place, folders, files in os.walk(folder, onerror=refuse):
        here = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and (here / name).resolve() != out)
        for name in sorted(files):
            path = here / name
            if not name.startswith(".") and path.suffix.lower() in PICTURES + VIDEOS and path.is_file():
                yield path


NUMBERED = re.compile(r"(.+)_\d+")
"""What `.pts` files of one of several faces are called, and of a frame."""


def distinct(items: Sequence[Item]) -> list[Item]:
    """The same items, with `-2`, `-3` behind names whose files others would overwrite."""
    taken: set[str] = set()
    bases: set[str] = set()  # of which taken names may be one of several faces
    result = []
    for item in items:
        name, count = item.name, 1
        while (folded := name.casefold()) in taken | bases or _base(folded) in taken:
            count += 1
            name = f"{item.name}-{count}"
        taken.add(folded)
        bases.add(_base(folded))
        result.append(replace(item, name=name))
    return result


def _base(folded: str) -> str:
    """The name of which `folded` may be one of several faces, else itself; some file systems do not tell A from a."""
    base = NUMBERED.fullmatch(folded)
    return base[1] if base else folded


LINES = "landmarks.jsonl"
"""The file below OUT that has the landmarks of all."""


def check_out(items: Sequence[Item], out: Path, boxes: Path | None = None) -> None:
    """Refuses a folder in which the output of one input would overwrite an input, or the file with their boxes."""
    sources = {item.source.resolve() for item in items if isinstance(item.source, Path)}
    sources |= {boxes.resolve()} if boxes else set()
    for name in (LINES, *(item.drawn for item in items)):
        if (out / name).resolve() in sources:
            raise UsageError(f"{out / name} is an input, and would be overwritten", hint="name another --out")
