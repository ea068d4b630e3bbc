"""The ledger: a list of the engines that this user has built or trusts, one sha256 per line.

An engine is native code that runs with the rights of the user who loads it. A manifest proves that an engine is
unchanged, not where the engine comes from. Therefore only engines in the ledger are loaded.
"""

from __future__ import annotations

import os
from pathlib import Path

from lmconv.errors import InputError
from lmconv.store.files import user_folder, writing


def path() -> Path:
    """Returns the path of the ledger."""
    return user_folder() / "engines.txt"


def known(digest: str) -> bool:
    """True if the ledger contains an engine with this sha256.

    Args:
        digest: SHA-256 of the engine, in hexadecimal.

    Raises:
        InputError: If the ledger cannot be read.
    """
    try:
        return digest.encode() in path().read_bytes().split()  # as bytes: the file may contain invalid UTF-8
    except FileNotFoundError:
        return False
    except OSError as error:
        hint = "this file lists the engines that you trust: make the file readable"
        raise InputError(f"cannot read {path()}: {error.strerror}", hint=hint) from error


def note(digest: str) -> None:
    """Adds an engine to the ledger unless the ledger contains it.

    Args:
        digest: SHA-256 of the engine, in hexadecimal.

    Raises:
        InputError: If the ledger cannot be read or written.
    """
    if known(digest):
        return
    file = path()
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:  # one write keeps lines of other processes separate; a newline first ends an incomplete line
            size = os.fstat(descriptor).st_size
            complete = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
            os.write(descriptor, f"{'' if complete else chr(10)}{digest}\n".encode())
        finally:
            os.close(descriptor)
