"""The layers of a network before and after compaction: in a line, and drawn as an SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lmconv.types import Json

ROW, NAME, BAR, TEXT = 18, 300, 520, 420
"""Height of a row, widths of its parts; pixels."""
GONE, STAYED, DEAD = "#d9dde3", "#2a7f62", "#e09f3e"


def summary(compacted: Json) -> str:
    """What the pass decided, in a line."""
    before, after = (sum(layer["channels"][place] for layer in compacted["layers"]) for place in (0, 1))
    kept = sum(sum(layer["kept"].values()) for layer in compacted["layers"])
    why = f", {kept} dead ones kept (multiple of {compacted['multiple']})" if kept else ""
    return f"{before:,} -> {after:,} channels{why}"


def draw(title: str, layers: Sequence[Json]) -> str:
    """Draws a bar for each layer: channels that stay, dead ones that had to stay, and those that went.

    Args:
        title: Stands above.
        layers: `LayerReport.to_json` of each.

    Returns:
        An SVG document.
    """
    widest = max((layer["channels"][0] for layer in layers), default=1)
    rows = [row for index, layer in enumerate(layers) for row in _row(layer, 60 + index * ROW, BAR / widest)]
    width, height = NAME + BAR + TEXT, 80 + ROW * len(layers)
    legend = (
        f"channels: {_mark(STAYED)} in use  {_mark(DEAD)} dead, but kept (why: at the right)  {_mark(GONE)} removed"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            f'<text x="10" y="22" font-size="16">{escape(title)}</text>',
            f'<text x="10" y="44">{legend}</text>',
            *rows,
            "</svg>",
            "",
        ]
    )


def _mark(colour: str) -> str:
    return f'<tspan fill="{colour}">&#9632;</tspan>'


def _row(layer: Json, top: float, scale: float) -> list[str]:
    before, after = layer["channels"]
    dead = sum(layer["kept"].values())
    why = "; ".join(f"{count} {reason}" for reason, count in layer["kept"].items())
    parts = [(0, before, GONE), (0, after, DEAD), (0, after - dead, STAYED)]
    bars = [
        f'<rect x="{NAME + start * scale:.1f}" y="{top}" width="{size * scale:.1f}" height="{ROW - 4}" fill="{fill}"/>'
        for start, size, fill in parts
        if size
    ]
    label = f"{before} → {after}   {layer['flops'][0] / 1e6:.2f} → {layer['flops'][1] / 1e6:.2f} MFLOP   {why}"
    name = f"{layer['operator']} {layer['name']}"
    return [
        f'<text x="{NAME - 8}" y="{top + ROW - 7}" text-anchor="end">{escape(name)}</text>',
        *bars,
        f'<text x="{NAME + BAR + 8}" y="{top + ROW - 7}">{escape(label)}</text>',
    ]
