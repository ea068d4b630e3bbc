"""The layers of a network before and after compaction: as one line of text, and drawn as SVG."""

from __future__ import annotations

from collections.abc import Sequence

from lmconv.types import Json
from lmconv.visual import svg

ROW, NAME, BAR, TEXT = 18, 300, 520, 420
"""Height of a row; widths of the name, of the widest bar and of the text after the bar; pixels."""
TOP = 60
"""y of the first row, pixels."""
REMOVED, USED, DEAD = svg.GRID, "#2a7f62", "#e09f3e"


def summary(compacted: Json) -> str:
    """Returns the decision of the pass in one line.

    Args:
        compacted: Decision of the pass `compact`, from a recipe.
    """
    before, after = (sum(layer["channels"][place] for layer in compacted["layers"]) for place in (0, 1))
    kept = sum(sum(layer["kept"].values()) for layer in compacted["layers"])
    why = f", {kept} dead ones kept (multiple of {compacted['multiple']})" if kept else ""
    return f"{before:,} -> {after:,} channels{why}"


def draw(title: str, layers: Sequence[Json]) -> str:
    """Draws one bar for each layer: channels in use, dead channels that had to stay, and removed channels.

    Args:
        title: Text above the bars.
        layers: `LayerReport.to_json` of each layer.

    Returns:
        An SVG document.
    """
    widest = max((layer["channels"][0] for layer in layers), default=1)
    rows = [element for index, layer in enumerate(layers) for element in _row(layer, TOP + index * ROW, BAR / widest)]
    colours = {USED: "in use", DEAD: "dead, but kept (why: at the right)", REMOVED: "removed"}
    elements = [svg.title(title), svg.legend(10, 44, "channels:", colours), *rows]
    return svg.document(NAME + BAR + TEXT, TOP + 20 + ROW * len(layers), elements)


def _row(layer: Json, top: float, scale: float) -> list[str]:
    """Name, bar and figures of a layer; `scale` is the width of a channel, pixels."""
    before, after = layer["channels"]
    dead = sum(layer["kept"].values())
    why = "; ".join(f"{count} {reason}" for reason, count in layer["kept"].items())
    flops = [f"{count / 1e6:.2f}" for count in layer["flops"]]
    parts = ((before, REMOVED), (after, DEAD), (after - dead, USED))  # each bar covers part of the bar before
    bars = [svg.rectangle(NAME, top, size * scale, ROW - 4, fill) for size, fill in parts if size]
    label = f"{before} → {after}   {flops[0]} → {flops[1]} MFLOP   {why}"
    baseline = top + ROW - 7
    return [
        svg.text(NAME - 8, baseline, f"{layer['operator']} {layer['name']}", anchor="end"),
        *bars,
        svg.text(NAME + BAR + 8, baseline, label),
    ]
