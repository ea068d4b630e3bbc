"""Finds and loads plug-ins: ours by file name, those of other packages by entry point.

A plug-in is one file in `lmconv/<kind>/` that binds the name `plugin`; no list is edited anywhere. Another package
registers the same object under the entry-point group `lmconv.<kind>`.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING, Any

from lmconv.errors import MissingRuntime, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

INSTALL = {
    "torch": "pip install 'lmconv[torch]'",
    "openvino": "pip install 'lmconv[openvino]'",
    "tensorrt": "pip install 'lmconv[tensorrt]' on a machine with an NVIDIA GPU",
}
"""What brings a missing top-level package."""


@cache
def _ours(kind: str) -> frozenset[str]:
    package = importlib.import_module(f"lmconv.{kind}")
    return frozenset(info.name for info in pkgutil.iter_modules(package.__path__))


@cache
def _others(kind: str) -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # 50 ms, of which most commands need none

    return {point.name: point for point in entry_points(group=f"lmconv.{kind}")}


def ours(kind: str, name: str) -> bool:
    """Whether a plug-in comes with lmconv, and not from another package."""
    return name in _ours(kind)


def names(kind: str) -> list[str]:
    """Names of all plug-ins of a kind ("backbones", "targets", …), sorted; imports none of them."""
    return sorted(_ours(kind) | _others(kind).keys())


def load(kind: str, name: str) -> Any:
    """Imports one plug-in; ours come before those of other packages.

    Raises:
        UsageError: There is none of this name; the hint names the nearest.
        MissingRuntime: A package that it imports is not installed.
    """
    what = kind.removesuffix("s").removesuffix("e") if kind == "passes" else kind.removesuffix("s")
    try:
        if name in _ours(kind):
            return importlib.import_module(f"lmconv.{kind}.{name}").plugin
        if name in _others(kind):
            return _others(kind)[name].load()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "lmconv"):
            raise
        install = INSTALL.get(missing, f"pip install {missing}")
        raise MissingRuntime(f"{what} {name} needs {missing}, which is not installed", hint=install) from error
    raise unknown(what, name, names(kind))


def load_all(kind: str) -> dict[str, Any]:
    """All plug-ins of a kind by name; imports them all."""
    return {name: load(kind, name) for name in names(kind)}


def unknown(what: str, name: str, known: list[str]) -> UsageError:
    """The error for a name that is not known, with the nearest one as its hint."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    return UsageError(f"unknown {what} {name!r}", hint=hint)
