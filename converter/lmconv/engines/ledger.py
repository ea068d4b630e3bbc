"""Engines that this user has built or said to trust: one sha256 a line.

An engine is native code, run with the rights of whoever loads it. A manifest proves that it is whole, not where it is
from; so what is not in the ledger is not loaded.
"""

from __future__ import annotations

import os
from pathlib import Path

from lmconv.errors import InputError
from lmconv.sources.checkpoints import cache_folder
from lmconv.store.files import writing


def path() -> Path:
    """Where the ledger is."""
    return cache_folder().parent / "engines.txt"


def known(digest: str) -> bool:
    """Whether an engine of this sha256 may be loaded.

    Raises:
        InputError: The ledger cannot be read.
    """
    try:
        return digest.encode() in path().read_bytes().split()  # bytes: rubbish in it is no line of ours
    except FileNotFoundError:
        return False
    except OSError as error:
        raise InputError(f"cannot read {path()}: {error.strerror}", hint="it lists the engines you trust") from error


def note(digest: str) -> None:
    """Lets an engine be loaded from now on.

    Raises:
        InputError: The ledger cannot be written.
    """
    if known(digest):
        return
    file = path()
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        out = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:  # one write, so that no other process's line comes between; and none is added to half a line
            whole = os.fstat(out).st_size == 0 or os.pread(out, 1, os.fstat(out).st_size - 1) == b"\n"
            os.write(out, f"{'' if whole else chr(10)}{digest}\n".encode())
        finally:
            os.close(out)
