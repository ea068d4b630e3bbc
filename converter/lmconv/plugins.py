"""Registries of plug-ins: built-in ones are found by file name, those of other packages by entry point.

A plug-in is one file in `lmconv/<kind>/` that binds the name `plugin`; no list of plug-ins is edited. Another package
registers the same object under the entry-point group `lmconv.<kind>`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Generic, TypeVar

from lmconv.errors import MissingRuntime, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    import click

    from lmconv.types import Backbone, Pass, Target

P = TypeVar("P")

INSTALL = {
    "torch": "pip install 'lmconv[torch]'",
    "openvino": "pip install 'lmconv[openvino]'",
    "tensorrt": "pip install 'lmconv[tensorrt]' on a machine with an NVIDIA GPU",
}
"""Instruction for installing a missing top-level package."""


class Registry(Generic[P]):
    """The plug-ins of one kind.

    Attributes:
        kind: Name of the folder `lmconv/<kind>/` and of the entry-point group `lmconv.<kind>`.
        noun: Name of one plug-in in messages.
    """

    def __init__(self, kind: str, noun: str) -> None:
        self.kind = kind
        self.noun = noun
        self._added: dict[str, P] = {}

    def names(self) -> list[str]:
        """Names of all plug-ins, sorted; imports no plug-in."""
        return sorted(_builtin(self.kind) | _foreign(self.kind).keys() | self._added.keys())

    def builtin(self, name: str) -> bool:
        """True if the plug-in is part of lmconv, not of another package."""
        return name in _builtin(self.kind)

    def load(self, name: str) -> P:
        """Imports one plug-in; a built-in plug-in hides one of the same name from another package.

        Raises:
            UsageError: No plug-in has this name; the hint names the nearest.
            MissingRuntime: A package that the plug-in imports is not installed.
        """
        if name in self._added:
            return self._added[name]
        try:
            if name in _builtin(self.kind):
                plugin: P = importlib.import_module(f"lmconv.{self.kind}.{name}").plugin
                return plugin
            if name in _foreign(self.kind):
                entry: P = _foreign(self.kind)[name].load()
                return entry
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing in ("", "lmconv"):
                raise
            install = INSTALL.get(missing, f"pip install {missing}")
            message = f"{self.noun} {name} needs {missing}, which is not installed"
            raise MissingRuntime(message, hint=install) from error
        raise unknown(self.noun, name, self.names())

    def load_all(self) -> dict[str, P]:
        """Imports all plug-ins; returns the plug-ins by name."""
        return {name: self.load(name) for name in self.names()}

    @contextmanager
    def using(self, **plugins: P) -> Iterator[None]:
        """Adds plug-ins in this process while the block runs; an added plug-in hides one of the same name."""
        before, self._added = self._added, self._added | plugins
        try:
            yield
        finally:
            self._added = before


@cache
def _builtin(kind: str) -> frozenset[str]:
    package = importlib.import_module(f"lmconv.{kind}")
    return frozenset(info.name for info in pkgutil.iter_modules(package.__path__))


@cache
def _foreign(kind: str) -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # 50 ms, which most commands do not need

    return {point.name: point for point in entry_points(group=f"lmconv.{kind}")}


BACKBONES: Registry[Backbone] = Registry("backbones", "backbone")
PASSES: Registry[Pass] = Registry("passes", "pass")
TARGETS: Registry[Target] = Registry("targets", "target")
COMMANDS: Registry[click.Command] = Registry("commands", "command")


def unknown(what: str, name: str, known: list[str]) -> UsageError:
    """Returns the error for an unknown name; the hint names the nearest known name."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    return UsageError(f"unknown {what} {name!r}", hint=hint)
