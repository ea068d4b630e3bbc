"""Results of a GPU host: its two files, read and checked, and its outputs as a session."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmconv.errors import InputError
from lmconv.types import Arrays, Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Prepared cases and the host's results.

    Attributes:
        cases: `cases.json`, from `prepare`.
        document: `found.json` of the host.
        arrays: `found.npz` of the host: outputs by `CASE/NAME`.
    """

    cases: Json
    document: Json
    arrays: Arrays

    def outputs(self, case: str) -> Arrays:
        """Outputs of one case, by name; empty if the host kept none."""
        parts = ((key.partition("/"), value) for key, value in self.arrays.items())
        return {name: value for (owner, _, name), value in parts if owner == case}


class Replay:
    """A `Session` that returns the outputs of the host's engine, in the order in which its inputs were run."""

    execution_mismatch = ""

    def __init__(self, outputs: Arrays) -> None:
        self._outputs, self._at = outputs, 0

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See `lmconv.types.Session`."""
        start, self._at = self._at, self._at + len(inputs["input"])
        return {name: value[start : self._at] for name, value in self._outputs.items()}

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def read(out: Path) -> Results:
    """Reads the results of a host from `out/host`.

    Raises:
        InputError: A file is missing or broken, or the results belong to other graphs.
    """
    host = out / "host"
    cases = _document(out / "part0" / "cases.json", ("digest", "models", "made"), "gpu_check.py prepare writes it")
    hint = f"copy found.json and found.npz from the host to {host}"
    document = _document(host / "found.json", ("digest", "machine", "models"), hint)
    if document["digest"] != cases["digest"]:
        raise InputError(f"{host / 'found.json'} is of other graphs", hint="prepare, check and judge in turn")
    return Results(cases=cases, document=document, arrays=_arrays(host / "found.npz", hint))


def _document(path: Path, keys: tuple[str, ...], hint: str) -> Json:
    """Reads a JSON object that has these keys."""
    try:
        document: Json = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    except ValueError as error:
        raise InputError(f"{path} is no whole JSON file: {error}", hint=hint) from error
    if not isinstance(document, dict) or any(key not in document for key in keys):
        raise InputError(f"{path} has not all of {', '.join(keys)}", hint=hint)
    return document


def _arrays(path: Path, hint: str) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}", hint=hint) from error
    except (ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise InputError(f"{path} is no whole file of arrays: {error}", hint=hint) from error
