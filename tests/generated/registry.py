"""Registry of blocks and heads by name, with their options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

NOTHING = "nothing"
Options: TypeAlias = dict[str, tuple[Any, ...]]
Writer: TypeAlias = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of block; the first value of each option is the simplest, because failures shrink to the first value."""

    write: Writer
    options: Options


BLOCKS: dict[str, Kind] = {}
HEADS: dict[str, Kind] = {}


def block(**options: tuple[Any, ...]) -> Callable[[Writer], Writer]:
    """Registers a function (net, x, **options) -> Value under its name; option `plan` names the channels to plant."""
    return _register(BLOCKS, options)


def head(**options: tuple[Any, ...]) -> Callable[[Writer], Writer]:
    """Registers a function (net, x, **options) -> output shape, which adds the output `landmarks`."""
    return _register(HEADS, options)


def _register(kinds: dict[str, Kind], options: Options) -> Callable[[Writer], Writer]:
    def register(write: Writer) -> Writer:
        kinds[write.__name__] = Kind(write, options)
        return write

    return register
