"""SVG pictures of a search: time against drift of every candidate, and the drift and time of every layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from lmconv.judging.loss import Budget
from lmconv.types import Json

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 420, 70, 60, 40
"""Size and margins of the picture of `front`, pixels."""
ROW, NAME, BAR = 18, 300, 260
"""Picture of `layers`: height of a row, width of a layer's name, width of each of the two bars; pixels."""
GRID, CHOSEN, FRONT, OTHER, OUTSIDE = "#d9dde3", "#c0392b", "#2a7f62", "#8a929c", "#e09f3e"
"""Colours: grid lines, the chosen candidate, Pareto-optimal candidates, all others, the limit of the budget."""


def front(title: str, points: Sequence[Json], budget: Budget) -> str:
    """Draws every candidate by time (x) and drift (y), and joins the Pareto-optimal candidates by a line.

    Args:
        title: Title above the picture.
        points: `points` of the document of `lmconv tune`.
        budget: Budget whose drift limit is drawn as a line, if there is a limit.

    Returns:
        An SVG document.
    """
    slowest = 1.1 * max(point["ms"] for point in points)
    drifts = [point["loss"]["drift"]["mean"] for point in points if point["loss"]["drift"]["mean"] is not None]
    largest = 1.15 * max([*drifts, budget.drift or 0.0, 0.1])
    x_scale = (WIDTH - LEFT - 160) / slowest
    y_scale = (HEIGHT - BOTTOM - TOP) / largest
    axis_y = HEIGHT - BOTTOM

    def position(point: Json) -> tuple[float, float]:
        drift = point["loss"]["drift"]["mean"]
        return LEFT + point["ms"] * x_scale, axis_y - (largest if drift is None else drift) * y_scale

    pareto_front = sorted((position(point) for point in points if point["front"]), key=lambda xy: xy[0])
    polyline = " ".join(f"{x:.1f},{y:.1f}" for x, y in pareto_front)
    lines = [
        f'<text x="10" y="22" font-size="16">{escape(title)}: time and drift (lower left is better)</text>',
        *(_tick_x(LEFT + value * x_scale, axis_y, value) for value in _ticks(slowest)),
        *(_tick_y(axis_y - value * y_scale, value) for value in _ticks(largest)),
        f'<text x="{LEFT}" y="{HEIGHT - 12}">median time of a run, ms</text>',
        f'<text x="14" y="{axis_y}" transform="rotate(-90 14 {axis_y})">mean drift on faces, ION points</text>',
        f'<polyline points="{polyline}" fill="none" stroke="{FRONT}"/>',
    ]
    if budget.drift is not None:
        limit_y = axis_y - budget.drift * y_scale
        lines.append(f'<line x1="{LEFT}" x2="{WIDTH}" y1="{limit_y:.1f}" y2="{limit_y:.1f}" stroke="{OUTSIDE}"/>')
        lines.append(f'<text x="{WIDTH - 90}" y="{limit_y - 4:.1f}" fill="{OUTSIDE}">budget {budget.drift:g}</text>')
    for point in points:
        x, y = position(point)
        colour = CHOSEN if point["chosen"] else FRONT if point["front"] else OTHER
        lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')
        text = f"{point['name']}{' (chosen)' if point['chosen'] else ''}"
        lines.append(f'<text x="{x + 8:.1f}" y="{y - 5:.1f}" fill="{colour}">{escape(text)}</text>')
    return _svg(WIDTH, HEIGHT, lines)


def layers(title: str, rows: Sequence[Json]) -> str:
    """Draws two bars for each layer: the drift of quantising only this layer, and the extra time of the layer in float.

    Args:
        title: Title above the picture.
        rows: `layers` of the document of `lmconv tune`.

    Returns:
        An SVG document.
    """
    largest_drift = max((row["drift"] for row in rows), default=0.0) or 1.0
    largest_cost = max((abs(row["cost_ms"] or 0.0) for row in rows), default=0.0) or 1.0
    drift_x, cost_x = NAME + 10, NAME + BAR + 160
    lines = [
        f'<text x="10" y="22" font-size="16">{escape(title)}: drift of int8 and time of float, by layer</text>',
        f'<text x="{drift_x}" y="44">drift if only this layer is int8, ION points</text>',
        f'<text x="{cost_x}" y="44">extra time if this layer is float, ms</text>',
    ]
    for index, row in enumerate(rows):
        y = 60 + index * ROW
        colour = FRONT if row["int8"] else OTHER
        name = f"{row['layer']}{'' if row['int8'] else ' (float)'}"
        lines.append(f'<text x="{NAME}" y="{y + 12}" text-anchor="end" fill="{colour}">{escape(name)}</text>')
        lines += _bar(drift_x, y, row["drift"] / largest_drift, f"{row['drift']:.4f}", FRONT)
        if row["cost_ms"] is not None:
            bar_colour = OTHER if row["cost_ms"] < 0 else OUTSIDE
            lines += _bar(cost_x, y, abs(row["cost_ms"]) / largest_cost, f"{row['cost_ms']:+.3f}", bar_colour)
    return _svg(cost_x + BAR + 80, 80 + ROW * len(rows), lines)


def _bar(x: float, y: float, fraction: float, text: str, colour: str) -> list[str]:
    """Returns a bar with text after the bar; `fraction` of the full length `BAR`."""
    width = BAR * fraction
    return [
        f'<rect x="{x}" y="{y + 3}" width="{width:.1f}" height="{ROW - 6}" fill="{colour}"/>',
        f'<text x="{x + width + 6:.1f}" y="{y + 12}">{text}</text>',
    ]


def _ticks(largest: float) -> list[float]:
    """Returns at most nine round numbers from 0 to `largest` at equal steps."""
    power = 10.0 ** math.floor(math.log10(largest / 5))
    step = next(power * digit for digit in (1, 2, 5, 10) if largest / (power * digit) <= 8)
    return [index * step for index in range(int(largest / step) + 1)]


def _tick_x(x: float, axis_y: float, value: float) -> str:
    line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{axis_y}" stroke="{GRID}"/>'
    return f'{line}<text x="{x:.1f}" y="{axis_y + 18}" text-anchor="middle">{value:.3g}</text>'


def _tick_y(y: float, value: float) -> str:
    line = f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>'
    return f'{line}<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'


def _svg(width: float, height: float, lines: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
    background = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([f'{head}font-size="12">', background, *lines, "</svg>", ""])
