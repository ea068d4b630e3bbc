"""Files and JSON, written so that the same content gives the same bytes."""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmconv.errors import InputError


def sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, one-space indent, newline at the end; refuses NaN and infinity."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def canonical_parts(value: Mapping[str, Any]) -> dict[str, str]:
    """Returns the text of each entry of an object, for `canonical_of`: the sums of a manifest share the texts."""
    return {key: canonical(inner)[:-1].replace("\n", "\n ") for key, inner in value.items()}


def canonical_of(parts: Mapping[str, str]) -> str:
    """Returns `canonical` of an object with at least one entry, from the texts of `canonical_parts`."""
    return "{\n" + ",\n".join(f" {canonical(key)[:-1]}: {parts[key]}" for key in sorted(parts)) + "\n}\n"


def digest(value: Any) -> str:
    """Hex sha256 of `canonical(value)`."""
    return text_digest(canonical(value))


def text_digest(text: str) -> str:
    """Hex sha256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def finite(value: Any, *, otherwise: Callable[[float], object] = lambda number: None) -> Any:
    """Returns a copy of a JSON value in which `otherwise` replaces NaN and infinity, which JSON does not have.

    Args:
        value: Objects, lists or tuples, and plain values, nested at will. A tuple becomes a list.
        otherwise: Gets the number; its result stands in the copy. Null by default.
    """
    if isinstance(value, Mapping):
        return {key: finite(inner, otherwise=otherwise) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner, otherwise=otherwise) for inner in value]
    return otherwise(value) if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def replacing(path: Path, *, sweep: bool = True) -> Iterator[Path]:
    """Gives a new path beside `path` for the block to write, and renames that file to `path` when the block ends well.

    A reader sees the old file or the new one, never a part.

    Args:
        path: The file; its folder must exist.
        sweep: Remove the files of earlier writers that died. Every sweep lists the folder, which is slow where a
            folder gets thousands of files.
    """
    if sweep:
        for stray in path.parent.glob(f".{glob.escape(path.name)}.*"):
            stray.unlink(missing_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def replace_bytes(path: Path, content: bytes, *, sweep: bool = True) -> None:
    """Writes a whole file; see `replacing`."""
    with replacing(path, sweep=sweep) as beside:
        beside.write_bytes(content)


def replace_text(path: Path, text: str) -> None:
    """Writes a whole file in UTF-8; see `replacing`."""
    replace_bytes(path, text.encode("utf-8"))


def user_folder() -> Path:
    """Returns the folder of all that lmconv keeps for a user: `XDG_CACHE_HOME/lmconv`, or `~/.cache/lmconv`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lmconv"


def named_in_text(path: Path) -> str:
    """The name of a file for a library that takes text alone; OpenCV crashes on the bytes of another encoding.

    Raises:
        InputError: The name is not text in UTF-8.
    """
    try:
        return str(path).encode("utf-8").decode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: its name is not text in UTF-8", hint="rename it") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the operating system's refusal to write below `path` into an `InputError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write {path}: {reason}", hint="free space there, or name another folder") from error


def jpeg_breaks_off(content: bytes) -> bool:
    """True for a JPEG file without an end: the decoder fills the rest with grey and reports nothing.

    ITU-T T.81, annex B: SOI begins a file, SOS every scan, EOI ends it; within a scan neither occurs. What comes after
    the end, as cameras write it, does not matter.
    """
    return content.startswith(b"\xff\xd8") and content.rfind(b"\xff\xd9") <= content.rfind(b"\xff\xda")
