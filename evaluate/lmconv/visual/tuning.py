"""Results of a search drawn as SVG: time against drift, and the drift and the cost of each layer."""

from __future__ import annotations

from collections.abc import Sequence

from lmconv.types import Json
from lmconv.visual import svg

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 420, 70, 60, 40, 160
"""Size of the front's picture and its margins, pixels; names of the slowest points are in the right margin."""
ROW, NAME, BAR = 18, 300, 260
"""Picture of the layers: height of a row, width of the name and of the longest bar; pixels."""
CHOSEN, FRONT, OTHER, OUTSIDE = "#c0392b", "#2a7f62", "#8a929c", "#e09f3e"


def front(title: str, points: Sequence[Json], allowed: float | None) -> str:
    """Draws points by time and drift; left and below is better.

    A line joins the points of the front: no other point is both faster and of less drift.

    Args:
        title: Text above the diagram.
        points: `points` of the document of `lmconv tune`; points that are not judged are left out.
        allowed: Drift that the budget allows, ION points, drawn as a line; None for any.

    Returns:
        An SVG document.
    """
    points = [point for point in points if point["loss"]]
    slowest = 1.1 * max(point["ms"] for point in points)
    drifts: list[float | None] = [point["loss"]["drift"]["mean"] for point in points]
    largest = 1.15 * max(*(drift or 0.0 for drift in drifts), allowed or 0.0, 0.1)
    floor = HEIGHT - BOTTOM
    across, up = (WIDTH - LEFT - RIGHT) / slowest, (floor - TOP) / largest
    axes = svg.Axes(left=LEFT, right=WIDTH, top=TOP, floor=floor, across=across, up=up)
    # A drift that is not finite is None; its point is drawn at the top.
    heights = [largest if drift is None else drift for drift in drifts]
    places = [axes.place(point["ms"], height) for point, height in zip(points, heights, strict=True)]
    best = sorted(place for place, point in zip(places, points, strict=True) if point["front"])
    elements = [
        svg.title(f"{title}: time and drift, left and below is better"),
        *axes.grid(svg.ticks(slowest), svg.ticks(largest)),
        svg.text(LEFT, HEIGHT - 12, "median time of a run, ms"),
        svg.upward_text(14, floor, "mean drift on faces, ION points"),
        svg.polyline(best, FRONT),
        *(_budget(axes, allowed) if allowed is not None else ()),
    ]
    for (x, y), point in zip(places, points, strict=True):
        colour = CHOSEN if point["chosen"] else FRONT if point["front"] else OTHER
        name = f"{point['name']}{' (chosen)' if point['chosen'] else ''}"
        elements += [svg.circle(x, y, 5, colour), svg.text(x + 8, y - 5, name, fill=colour)]
    return svg.document(WIDTH, HEIGHT, elements)


def _budget(axes: svg.Axes, allowed: float) -> list[str]:
    _, level = axes.place(0, allowed)
    label = svg.text(WIDTH - 90, level - 4, f"budget {allowed:g}", fill=OUTSIDE)
    return [svg.line(LEFT, level, WIDTH, level, OUTSIDE), label]


def layers(title: str, rows: Sequence[Json]) -> str:
    """Draws two bars for each layer: the drift that its quantisation alone adds, and the time of float instead of int8.

    Args:
        title: Text above the bars.
        rows: `layers` of the document of `lmconv tune`.

    Returns:
        An SVG document.
    """
    drift = max((row["drift"] for row in rows), default=0.0) or 1.0
    cost = max((abs(row["cost_ms"] or 0.0) for row in rows), default=0.0) or 1.0
    left, right = NAME + 10, NAME + BAR + 160
    elements = [
        svg.title(f"{title}: what int8 costs each layer, and what float costs"),
        svg.text(left, 44, "drift of its quantisation alone, ION points"),
        svg.text(right, 44, "time of leaving it in float, ms"),
    ]
    for index, row in enumerate(rows):
        y = 60 + index * ROW
        name = f"{row['layer']}{'' if row['int8'] else ' (float)'}"
        elements.append(svg.text(NAME, y + 12, name, anchor="end", fill=FRONT if row["int8"] else OTHER))
        elements += _bar(left, y, row["drift"] / drift, f"{row['drift']:.4f}", FRONT)
        if row["cost_ms"] is not None:
            colour = OTHER if row["cost_ms"] < 0 else OUTSIDE
            elements += _bar(right, y, abs(row["cost_ms"]) / cost, f"{row['cost_ms']:+.3f}", colour)
    return svg.document(right + BAR + 80, 80 + ROW * len(rows), elements)


def _bar(left: float, y: float, share: float, figure: str, colour: str) -> list[str]:
    """A bar, as a share of the longest bar, and its figure."""
    width = BAR * share
    return [svg.rectangle(left, y + 3, width, ROW - 6, colour), svg.text(left + width + 6, y + 12, figure)]
