"""Finds and loads plug-ins: ours by file name, those of other packages by entry point.

A plug-in is one file in `lmconv/<kind>/` that binds the name `plugin`; no list is edited anywhere. Another package
registers the same object under the entry-point group `lmconv.<kind>`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from lmconv.errors import MissingRuntime, UsageError

INSTALL = {
    "torch": "pip install 'lmconv[torch]'",
    "openvino": "pip install 'lmconv[openvino]'",
    "tensorrt": "pip install 'lmconv[tensorrt]' on a machine with an NVIDIA GPU",
}
"""What brings a missing top-level package."""


@cache
def _found(kind: str) -> dict[str, EntryPoint | str]:
    external: dict[str, EntryPoint | str] = {point.name: point for point in entry_points(group=f"lmconv.{kind}")}
    package = importlib.import_module(f"lmconv.{kind}")
    ours = {info.name: f"lmconv.{kind}.{info.name}" for info in pkgutil.iter_modules(package.__path__)}
    return dict(sorted((external | ours).items()))


def names(kind: str) -> list[str]:
    """Names of all plug-ins of a kind ("backbones", "targets", …), sorted; imports none of them."""
    return list(_found(kind))


def load(kind: str, name: str) -> Any:
    """Imports one plug-in.

    Raises:
        UsageError: There is none of this name; the hint names the nearest.
        MissingRuntime: A package that it imports is not installed.
    """
    found = _found(kind).get(name)
    if found is None:
        raise unknown(kind.removesuffix("s"), name, names(kind))
    try:
        return found.load() if isinstance(found, EntryPoint) else importlib.import_module(found).plugin
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "lmconv"):
            raise
        install = INSTALL.get(missing, f"pip install {missing}")
        raise MissingRuntime(f"{kind.removesuffix('s')} {name} needs {missing}, which is not installed", hint=install) from error


def load_all(kind: str) -> dict[str, Any]:
    """All plug-ins of a kind by name; imports them all."""
    return {name: load(kind, name) for name in names(kind)}


def unknown(what: str, name: str, known: list[str]) -> UsageError:
    """The error for a name that is not known, with the nearest one as its hint."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    return UsageError(f"unknown {what} {name!r}", hint=hint)
