"""Figures as cells of a table. JSON comes first; whatever a person reads is made from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmconv.types import Json

HEADLINES = ("full", "common", "challenge")
"""Subsets whose ION is shown where there is room for one, first choice first."""


def number(value: float | None, form: str) -> str:
    """A figure, or a dash where it was not measured."""
    return "-" if value is None else format(value, form)


def headline(subsets: Json) -> str:
    """The first of `HEADLINES` that is there, else the first subset."""
    return next((name for name in HEADLINES if name in subsets), next(iter(subsets)))


def interval(subsets: Json | None, form: str) -> str:
    """A mean and its interval, of the headline subset."""
    if not subsets:
        return "-"
    row = subsets[headline(subsets)]
    return f"{number(row['mean'], form)} [{number(row['low'], form)}, {number(row['high'], form)}]"


def ion(subsets: Json | None) -> str:
    """ION with its interval and the number of faces, of the headline subset."""
    if not subsets:
        return "-"
    name = headline(subsets)
    return f"{interval(subsets, '.3f')} {name} {subsets[name]['n']}/{subsets[name]['of']}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned for whoever reads the source."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])
