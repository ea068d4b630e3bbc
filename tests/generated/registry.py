"""What a network is made of: blocks and heads by name, each with the options that it may be drawn with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

NOTHING = "nothing"
Options: TypeAlias = dict[str, tuple[Any, ...]]
Writer: TypeAlias = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of block; options are listed simplest first, for that is what a failure shrinks to."""

    write: Writer
    options: Options


BLOCKS: dict[str, Kind] = {}
HEADS: dict[str, Kind] = {}


def block(**options: tuple[Any, ...]) -> Callable[[Writer], Writer]:
    """Registers a function (net, x, **options) -> Value under its name; `plan` is what it may plant."""
    return _register(BLOCKS, options)


def head(**options: tuple[Any, ...]) -> Callable[[Writer], Writer]:
    """Registers a function (net, x, **options) -> output shape, which writes `landmarks`."""
    return _register(HEADS, options)


def _register(kinds: dict[str, Kind], options: Options) -> Callable[[Writer], Writer]:
    def register(write: Writer) -> Writer:
        kinds[write.__name__] = Kind(write, options)
        return write

    return register
