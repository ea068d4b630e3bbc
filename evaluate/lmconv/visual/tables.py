"""Cells of tables, made from the JSON documents of the commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmconv.types import Json

HEADLINES = ("full", "common", "challenge")
"""Subsets to show if a table has room for only one subset; the first available subset is shown."""


def number(value: float | None, form: str) -> str:
    """Formats a figure; returns a dash for None, a figure that was not measured."""
    return "-" if value is None else format(value, form)


def headline(subsets: Json) -> str:
    """Returns the name of the first available subset of `HEADLINES`, otherwise of the first subset."""
    return next((name for name in HEADLINES if name in subsets), next(iter(subsets)))


def interval(subsets: Json | None, form: str) -> str:
    """Formats the mean and the interval of the headline subset."""
    if not subsets:
        return "-"
    row = subsets[headline(subsets)]
    return f"{number(row['mean'], form)} [{number(row['low'], form)}, {number(row['high'], form)}]"


def ion(subsets: Json | None) -> str:
    """Formats the ION of the headline subset: mean, interval, name of the subset, number of faces."""
    if not subsets:
        return "-"
    name = headline(subsets)
    return f"{interval(subsets, '.3f')} {name} {subsets[name]['n']}/{subsets[name]['of']}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table with aligned columns, so that the source is readable too."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])
