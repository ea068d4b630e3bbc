"""Reproducible JSON, atomic writes, and checks of files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmconv.errors import InputError


def sha256(path: Path) -> str:
    """Returns the hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical(value: Any) -> str:
    """Returns the canonical JSON text of a value: sorted keys, one-space indent, newline at the end.

    Raises:
        ValueError: The value holds NaN or infinity.
    """
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def digest(value: Any) -> str:
    """Returns the hex sha256 of `canonical(value)`."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def replace_text(path: Path, text: str) -> None:
    """Replaces a file by text in UTF-8, see `replace_bytes`."""
    replace_bytes(path, text.encode("utf-8"))


def replace_bytes(path: Path, content: bytes) -> None:
    """Replaces a file atomically: a reader sees either the old or the new content.

    Writes a temporary file beside `path` and renames the temporary file. Removes temporary files of earlier processes.
    """
    for stray in path.parent.glob(f".{path.name}.*"):  # left by a process that was killed
        stray.unlink(missing_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def named_in_text(path: Path) -> str:
    """Returns a path as text, for a library that accepts text only; OpenCV crashes on bytes that are not UTF-8.

    Raises:
        InputError: The path is not valid UTF-8.
    """
    try:
        return str(path).encode("utf-8").decode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: its name is not text in UTF-8", hint="rename it") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an `OSError` in the block, which writes below `path`, into an `InputError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write {path}: {reason}", hint="free space there, or name another folder") from error


def jpeg_breaks_off(content: bytes) -> bool:
    """True if `content` is a truncated JPEG file. The decoder fills the missing rest with grey without an error.

    ITU-T T.81, annex B: SOI begins a file, SOS begins every scan, EOI ends the file; neither SOS nor EOI occurs within
    a scan. Content after the end, which some cameras write, does not matter.
    """
    return content.startswith(b"\xff\xd8") and content.rfind(b"\xff\xd9") <= content.rfind(b"\xff\xda")
