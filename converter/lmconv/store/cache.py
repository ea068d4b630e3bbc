"""Arrays kept on disk by the content that they were computed from.

A key is JSON: the sha256 of every input, all options, and `circumstances`. Nothing is ever found under a key whose
content changed, and nothing has to be removed by hand. An entry is one .npz file whose name has the sha256 of the key
and of the file. A damaged entry is removed and computed again; a folder that cannot be written changes no result.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from lmconv import machine
from lmconv.store.files import digest, sha256, user_folder
from lmconv.types import Arrays, Json

MOST = 1 << 30
"""Largest size of a cache, bytes."""
ABANDONED = 24 * 3600
"""Age after which a file that a process did not finish is removed, seconds."""
OPENCV = ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")
"""Packages that may stand for opencv-python-headless."""
SETTINGS = ("ATEN_", "DNNL_", "MKL_", "ONEDNN_", "OPENCV_", "ORT_", "TORCH_")
"""Beginnings of the environment variables with which libraries choose how they compute."""


def of_user() -> Cache:
    """Returns the cache of the user."""
    return Cache(folder=user_folder() / "computed")


def circumstances() -> Json:
    """Returns the part of a key that stands for this program and this machine.

    Results may differ in the last bit from one library, CPU or setting of a library to another; and a changed line of
    lmconv may change everything.
    """
    info = machine.describe()
    settings = {name: value for name, value in sorted(os.environ.items()) if name.startswith(SETTINGS)}
    return {
        "code": _code(),
        "versions": machine.versions((*machine.PACKAGES, *OPENCV)),
        "cpu": [info["cpu"], info["architecture"], info["features"]],
        "settings": settings,
    }


def array_digest(array: NDArray[Any]) -> str:
    """Returns the sha256 of type, shape and values of an array."""
    content = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()


@functools.cache
def _code() -> str:
    """Returns the sha256 of the source code of lmconv."""
    import lmconv

    files: dict[str, Path] = {}
    for root in map(Path, lmconv.__path__):  # the first root that has a file is the one that Python imports
        for path in root.rglob("*.py"):
            files.setdefault(str(path.relative_to(root)), path)
    content = hashlib.sha256()
    for name in sorted(files):
        content.update(f"{name}\n".encode() + files[name].read_bytes())
    return content.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """A folder of arrays, which several processes may use at once.

    Attributes:
        folder: The folder; made when needed, for the user alone, because entries may hold pictures of faces.
        most: Largest size of all entries, bytes; the entries that were not used for the longest time go first.
    """

    folder: Path
    most: int = MOST

    def arrays(self, key: Json, compute: Callable[[], Arrays]) -> dict[str, NDArray[Any]]:
        """Returns the arrays of a key by name; computes and keeps the arrays if the folder has no whole entry."""
        kept = self.read(key)
        if kept is None:
            kept = dict(compute())
            self.write(key, kept)
        return kept

    def read(self, key: Json) -> dict[str, NDArray[Any]] | None:
        """Returns the arrays of a key by name; None without a whole entry."""
        try:
            for path in sorted(self.folder.glob(f"{digest(key)}-*.npz")):
                if (arrays := _whole(path)) is not None:
                    with contextlib.suppress(OSError):  # whose folder cannot be written
                        os.utime(path)
                    return arrays
                path.unlink(missing_ok=True)
        except OSError:
            pass
        return None

    def has(self, key: Json) -> bool:
        """True if there is an entry, which may be damaged."""
        return any(self.folder.glob(f"{digest(key)}-*.npz"))

    def write(self, key: Json, arrays: Arrays) -> None:
        """Keeps arrays under a key; without effect if the folder cannot be written or the entry is too large."""
        if sum(array.nbytes for array in arrays.values()) > self.most:
            return
        named: dict[str, Any] = dict(arrays)
        unfinished = self.folder / f".{digest(key)}.{os.getpid()}"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                np.savez(file, **named)
            unfinished.rename(self.folder / f"{digest(key)}-{sha256(unfinished)}.npz")
            self._trim()
        except OSError:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)

    def _trim(self) -> None:
        """Removes the entries that were not used for the longest time, and files of processes that died."""
        total = 0
        for used, size, path in sorted(self._files(), reverse=True):
            total += size
            unfinished = path.suffix != ".npz"
            if total > self.most or (unfinished and used < time.time() - ABANDONED):
                path.unlink(missing_ok=True)

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        for path in self.folder.iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:  # another process removed the file
                continue
            yield status.st_mtime, status.st_size, path


def _whole(path: Path) -> dict[str, NDArray[Any]] | None:
    """Returns the arrays of an entry; None if its bytes are not those that were written."""
    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != path.stem.rpartition("-")[2]:
                return None
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
    except (FileNotFoundError, ValueError, BadZipFile):
        return None
