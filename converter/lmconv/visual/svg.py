"""SVG documents: text, lines, bars, points and the grid of a diagram.

Every function returns one element as text, with its content and attributes escaped. Coordinates are pixels, x to the
right and y down, from the upper left corner.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

GRID = "#d9dde3"
"""Colour of grid lines."""
FONT_SIZE, TITLE_SIZE = 12, 16
"""Height of text and of a title, pixels."""

Anchor = Literal["start", "middle", "end"]


def document(width: float, height: float, elements: Sequence[str]) -> str:
    """Returns an SVG document with a white background."""
    size = f'width="{_number(width)}" height="{_number(height)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="{FONT_SIZE}">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *elements, "</svg>", ""])


def title(content: str) -> str:
    """Large text at the upper left corner."""
    return _element("text", {"x": 10, "y": 22, "font-size": TITLE_SIZE}, escape(content))


def text(x: float, y: float, content: str, *, fill: str | None = None, anchor: Anchor = "start") -> str:
    """One line of text; `y` is the baseline, and `anchor` the part of the text at `x`."""
    where = {"x": x, "y": y, "text-anchor": None if anchor == "start" else anchor, "fill": fill}
    return _element("text", where, escape(content))


def upward_text(x: float, y: float, content: str) -> str:
    """Text along a vertical axis, read from (x, y) upwards."""
    turn = f"rotate(-90 {_number(x)} {_number(y)})"
    return _element("text", {"x": x, "y": y, "transform": turn}, escape(content))


def legend(x: float, y: float, heading: str, entries: Mapping[str, str]) -> str:
    """One line of text with a coloured square before each label; `entries` maps a colour to its label."""
    parts = [f'<tspan fill="{escape(colour)}">&#9632;</tspan> {escape(label)}' for colour, label in entries.items()]
    return _element("text", {"x": x, "y": y}, f"{escape(heading)} {'  '.join(parts)}")


def line(x1: float, y1: float, x2: float, y2: float, stroke: str) -> str:
    """A straight line."""
    return _element("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "stroke": stroke})


def polyline(points: Sequence[tuple[float, float]], stroke: str, *, width: float = 1, dashed: bool = False) -> str:
    """Straight lines from point to point."""
    look = {"stroke-width": width, "stroke-dasharray": "5 4" if dashed else None}
    places = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
    return _element("polyline", {"points": places, "fill": "none", "stroke": stroke, **look})


def rectangle(x: float, y: float, width: float, height: float, fill: str) -> str:
    """A filled rectangle, from its upper left corner."""
    return _element("rect", {"x": x, "y": y, "width": width, "height": height, "fill": fill})


def circle(x: float, y: float, radius: float, fill: str) -> str:
    """A filled circle around (x, y)."""
    return _element("circle", {"cx": x, "cy": y, "r": radius, "fill": fill})


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """The axes of a diagram, from zero on: values to the right and upwards.

    Attributes:
        left: x of the vertical axis, pixels.
        right: End of the horizontal grid lines, pixels.
        top: End of the vertical grid lines, pixels.
        floor: y of the horizontal axis, pixels.
        across: Pixels for one unit to the right.
        up: Pixels for one unit upwards.
    """

    left: float
    right: float
    top: float
    floor: float
    across: float
    up: float

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Returns the point of two values, pixels."""
        return self.left + x * self.across, self.floor - y * self.up

    def grid(self, x_ticks: Mapping[float, str], y_ticks: Mapping[float, str]) -> list[str]:
        """Draws a grid line and a label for each tick; the mappings give the label of a value."""
        elements = []
        for value, label in y_ticks.items():
            _, y = self.place(0, value)
            elements.append(line(self.left, y, self.right, y, GRID))
            elements.append(text(self.left - 8, y + 4, label, anchor="end"))
        for value, label in x_ticks.items():
            x, _ = self.place(value, 0)
            elements.append(line(x, self.top, x, self.floor, GRID))
            elements.append(text(x, self.floor + 18, label, anchor="middle"))
        return elements


def ticks(largest: float) -> dict[float, str]:
    """Returns round values from zero up to `largest`, at most nine, with their labels."""
    power = 10.0 ** math.floor(math.log10(largest / 5))
    step = next(power * digit for digit in (1, 2, 5, 10) if largest / (power * digit) <= 8)
    values = [index * step for index in range(int(largest / step) + 1)]
    return {value: f"{value:.3g}" for value in values}


def _element(name: str, attributes: Mapping[str, str | float | None], content: str | None = None) -> str:
    """An element without the attributes that are None; `content` is escaped already."""
    given = [
        f'{key}="{escape(value) if isinstance(value, str) else _number(value)}"'
        for key, value in attributes.items()
        if value is not None
    ]
    start = f"<{name} {' '.join(given)}"
    return f"{start}/>" if content is None else f"{start}>{content}</{name}>"


def _number(value: float) -> str:
    """A tenth of a pixel is precise enough."""
    return f"{value:.1f}".removesuffix(".0")
