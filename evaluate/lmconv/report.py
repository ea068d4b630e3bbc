"""Figures as cells of a table. JSON comes first; whatever a person reads is made from it."""

from __future__ import annotations

from lmconv.types import Json

HEADLINES = ("full", "common", "challenge")
"""Subsets whose ION is shown where there is room for one, first choice first."""


def number(value: float | None, form: str) -> str:
    """A figure, or a dash where it was not measured."""
    return "-" if value is None else format(value, form)


def ion(subsets: Json | None) -> str:
    """ION with its interval, of the first of `HEADLINES` that is there, else of the first subset."""
    if not subsets:
        return "-"
    name = next((name for name in HEADLINES if name in subsets), next(iter(subsets)))
    row = subsets[name]
    return f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}] {name} {row['n']}/{row['of']}"
