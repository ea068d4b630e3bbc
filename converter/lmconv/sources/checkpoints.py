"""Search for checkpoints by published file name or sha256."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from lmconv.store.files import sha256, user_folder

SUFFIXES = (".safetensors", ".pth", ".pt", ".pth.tar", ".npz")
"""Suffixes of checkpoint files that have the name of their model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A published checkpoint, as listed in known.toml.

    Attributes:
        file: Published file name; lmconv looks for a checkpoint under this name.
        source: Origin of the file.
        licence: Licence of the weights.
        ion: Published ION on subsets of 300-W, percent, by subset; empty for detectors.
        ion_note: Conditions of `ion`.
        sha256: Descriptions of the files with known bytes, by sha256.
    """

    file: str
    source: str
    licence: str
    ion: Mapping[str, float]
    ion_note: str
    sha256: Mapping[str, str]


@cache
def known() -> dict[str, Known]:
    """Returns the published checkpoints by model name."""
    text = (_known_folder() / "known.toml").read_text(encoding="utf-8")
    return {name: Known(**row) for name, row in tomllib.loads(text).items()}


def _known_folder() -> Path:
    """Returns the folder of known.toml and of the checkpoint that ships with lmconv (docs/drawn.md)."""
    return Path(str(resources.files("lmconv.known") / "known.toml")).parent


def cache_folder() -> Path:
    """Returns the user cache folder, to which `lmconv weights add` copies checkpoints."""
    return user_folder() / "weights"


def folders() -> list[Path]:
    """Returns the folders that are searched for checkpoints, in order.

    The order is: folders of LMCONV_WEIGHTS, `weights/`, the user cache, the folder that ships with lmconv.
    """
    listed = [Path(part) for part in os.environ.get("LMCONV_WEIGHTS", "").split(os.pathsep) if part]
    return [*listed, Path("weights"), cache_folder(), _known_folder()]


def file_names(model: str) -> list[str]:
    """Returns the possible file names of a checkpoint of this model, published name first."""
    published = [known()[model].file] if model in known() else []
    suffixes = (".onnx",) if is_published_as_onnx(model) else SUFFIXES
    return [*published, *(f"{model}{suffix}" for suffix in suffixes)]


def is_published_as_onnx(model: str) -> bool:
    """True if only an ONNX file of a model was published."""
    return model in known() and known()[model].file.endswith(".onnx")


def find(model: str, extra: Path | None = None) -> Path | None:
    """Returns the first checkpoint of this model in `extra` or `folders()`, up to two levels deep; None if absent."""
    names = file_names(model)
    return next(candidates(lambda path: path.name in names, extra), None)


def find_digest(
    digest: str, name: str, *, extra: Path | None = None, digest_of: Callable[[Path], str] = sha256
) -> Path | None:
    """Returns a file in `extra` or `folders()` with sha256 `digest`; None if absent.

    Files with the name `name` are checked first, then all files with the same suffix. `digest_of` computes the sha256.
    """
    suffix = Path(name).suffix
    for accepts in (lambda path: path.name == name, lambda path: path.name != name and path.suffix == suffix):
        for path in candidates(accepts, extra):
            if digest_of(path) == digest:
                return path
    return None


def candidates(accepts: Callable[[Path], bool], extra: Path | None = None) -> Iterator[Path]:
    """Yields the files up to two levels below `extra` and `folders()` that `accepts` approves, in a fixed order."""
    for folder in [*([extra] if extra else []), *folders()]:
        for pattern in ("*", "*/*", "*/*/*"):
            yield from (path for path in sorted(folder.glob(pattern)) if accepts(path) and path.is_file())
