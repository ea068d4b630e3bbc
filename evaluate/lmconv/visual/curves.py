"""Cumulative error curves of several networks: as a table of their steps, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lmconv.errors import UsageError
from lmconv.judging import accuracy
from lmconv.judging.face_errors import FaceErrors
from lmconv.store.files import writing
from lmconv.types import Float64
from lmconv.visual import svg
from lmconv.visual.tables import headline

SUFFIXES = (".csv", ".svg")
LIMIT = 10.0
"""Largest ION of the picture, percent; the table has every face."""
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT, ROW = 720, 420, 60, 50, 40, 30, 18
"""Size of the picture, its margins, and the height of a row of its legend; pixels."""
COLOURS = ("#1f6fb2", "#c0392b", "#2a7f62", "#e09f3e", "#7d4fa3", "#5b6570")


def check_suffix(path: Path) -> None:
    """Refuses a file name that ends neither in .csv nor in .svg.

    Raises:
        UsageError: The file name has another ending.
    """
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
    floor = HEIGHT - BOTTOM
    across, up = (WIDTH - LEFT - RIGHT) / LIMIT, floor - TOP
    axes = svg.Axes(left=LEFT, right=WIDTH - RIGHT, top=TOP, floor=floor, across=across, up=up)
    elements = [
        svg.title(f"cumulative error, {subset}"),
        *axes.grid(
            {ion: str(ion) for ion in range(0, int(LIMIT) + 1, 2)},
            {share / 100: f"{share} %" for share in range(0, 101, 20)},
        ),
        svg.text(LEFT, HEIGHT - 10, "ION, %: share of the faces with at most this error"),
    ]
    for index, one in enumerate(curves):
        colour = COLOURS[index // 2 % len(COLOURS)]
        chosen = accuracy.members(one.subsets).get(subset, np.arange(0))
        y = HEIGHT + ROW * (index + 1)
        lines = [_steps(one.values[chosen], axes)] if len(chosen) else []
        lines.append([(LEFT, y - 4), (LEFT + 30, y - 4)])
        elements += [svg.polyline(points, colour, width=1.5, dashed=one.source) for points in lines]
        elements.append(svg.text(LEFT + 38, y, one.label))
    return svg.document(WIDTH, HEIGHT + ROW * (len(curves) + 1), elements)


def _steps(values: Float64, axes: svg.Axes) -> list[tuple[float, float]]:
    """Points of a curve with right angles, pixels."""
    points = [axes.place(0, 0)]
    for ion, share in zip(*accuracy.curve(values), strict=True):
        if ion <= LIMIT:
            x, y = axes.place(ion, share)
            points += [(x, points[-1][1]), (x, y)]
    return [*points, (axes.place(LIMIT, 0)[0], points[-1][1])]
