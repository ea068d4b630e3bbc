"""Cumulative error curves of several networks: as a table of their steps, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from lmconv.errors import UsageError
from lmconv.judging import accuracy
from lmconv.judging.face_errors import FaceErrors
from lmconv.store.files import writing
from lmconv.types import Float64
from lmconv.visual.tables import headline

SUFFIXES = (".csv", ".svg")
LIMIT = 10.0
"""ION in percent at which the picture ends; the table has every face."""
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, ROW = 720, 420, 60, 50, 40, 18
"""The picture, its margins, and a row of its legend; pixels."""
COLOURS = ("#1f6fb2", "#c0392b", "#2a7f62", "#e09f3e", "#7d4fa3", "#5b6570")
GRID, DASHED = "#d9dde3", 'stroke-dasharray="5 4"'


def check(path: Path) -> None:
    """Refuses a file that is neither a table nor a picture."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--curve {path} is neither .csv nor .svg", hint="name it ced.csv or ced.svg")


def write(path: Path, curves: Sequence[FaceErrors]) -> None:
    """Writes the curves of at least one network."""
    text = table(curves) if path.suffix.lower() == ".csv" else picture(curves)
    with writing(path):
        path.write_text(text, encoding="utf-8", newline="\n")


def table(curves: Sequence[FaceErrors]) -> str:
    """Every step of every subset: `network,of,subset,ion,share`, as CSV."""
    rows = ["network,of,subset,ion,share"]
    for one in curves:
        name = '"' + one.name.replace('"', '""') + '"' if set(one.name) & set(',"\n') else one.name
        of = "source" if one.source else "artefact"
        for subset, chosen in accuracy.members(one.subsets).items():
            steps = zip(*accuracy.curve(one.values[chosen]), strict=True)
            rows += [f"{name},{of},{subset},{ion:.6g},{share:.6g}" for ion, share in steps]
    return "\n".join(rows) + "\n"


def picture(curves: Sequence[FaceErrors]) -> str:
    """The curves of the headline subset up to `LIMIT`, as SVG; dashed those of sources."""
    subset = headline(dict.fromkeys(accuracy.members(curves[0].subsets)))
    across, up, floor = (WIDTH - LEFT - 30) / LIMIT, HEIGHT - BOTTOM - TOP, HEIGHT - BOTTOM
    parts = [f'<text x="10" y="22" font-size="16">cumulative error, {escape(subset)}</text>']
    for share in np.linspace(0, 1, 6):
        y = floor - share * up
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - 30}" stroke="{GRID}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{100 * share:.0f} %</text>')
    for ion in range(0, int(LIMIT) + 1, 2):
        x = LEFT + ion * across
        parts.append(f'<path d="M{x:.1f} {TOP}V{floor}" stroke="{GRID}"/>')
        parts.append(f'<text x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{ion}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 10}">ION, %: how many faces have at most so much</text>')
    for index, one in enumerate(curves):
        colour, dashes = COLOURS[index // 2 % len(COLOURS)], DASHED if one.source else ""
        chosen = accuracy.members(one.subsets).get(subset, np.arange(0))
        path = _steps(one.values[chosen], across, up, floor) if len(chosen) else ""
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5" {dashes}/>')
        y = HEIGHT + ROW * index
        parts.append(f'<path d="M{LEFT} {y - 4}h30" stroke="{colour}" stroke-width="1.5" {dashes}/>')
        parts.append(f'<text x="{LEFT + 38}" y="{y}">{escape(one.label)}</text>')
    size = f'width="{WIDTH}" height="{HEIGHT + ROW * len(curves)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>", ""])


def _steps(values: Float64, across: float, up: float, floor: float) -> str:
    """The line of one curve, of right angles."""
    at, share = accuracy.curve(values)
    steps = [(ion, part) for ion, part in zip(at, share, strict=True) if ion <= LIMIT]
    line = "".join(f"H{LEFT + ion * across:.1f}V{floor - part * up:.1f}" for ion, part in steps)
    return f"M{LEFT} {floor}{line}H{LEFT + LIMIT * across:.1f}"
