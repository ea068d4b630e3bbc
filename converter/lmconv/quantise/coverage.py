"""Coverage of int8: layers and multiply-accumulates in int8, and the reason of every layer that stays in float."""

from __future__ import annotations

from collections.abc import Mapping

from lmconv.errors import listed
from lmconv.graph.index import Graph
from lmconv.quantise.plan import CHOSEN, WEIGHTED, QuantisationPlan, nested_layers
from lmconv.types import Json

LOW = 0.8
"""Share of the multiply-accumulates below which the user is warned."""


def coverage(graph: Graph, plan: QuantisationPlan, macs: Mapping[str, int]) -> Json:
    """Returns the part of the decisions that describes the coverage.

    Args:
        graph: The float graph.
        plan: The int8 part of the graph.
        macs: Multiply-accumulates by the name of the layer's output; layers of subgraphs have none.

    Returns:
        `layers` in int8, `of` all layers; `int8_macs` of `macs`; `float_layers`, names in graph order; `float`, the
        names and multiply-accumulates of the float layers by reason.
    """
    names = {node.output[0]: node.name or node.output[0] for node in nested_layers(graph.proto)}
    groups: Json = {}
    for output in (output for output in names if output in plan.floats):
        group = groups.setdefault(plan.floats[output], {"layers": [], "macs": 0})
        group["layers"].append(names[output])
        group["macs"] += macs.get(output, 0)
    top = (node.output[0] for node in graph.proto.node if node.op_type in WEIGHTED)
    return {
        "layers": len(plan.layers),
        "of": len(plan.layers) + len(plan.floats),
        "macs": sum(macs.values()),
        "int8_macs": sum(macs.get(output, 0) for output in plan.layers),
        "float_layers": [names[output] for output in top if output in plan.floats],
        "float": groups,
    }


def text(figures: Json) -> str:
    """Returns the coverage in words: layers, and percent of the multiply-accumulates."""
    return f"{figures['layers']} of {figures['of']} layers, {100 * _share(figures, figures['int8_macs']):.1f} % of MACs"


def reasons(figures: Json) -> list[str]:
    """Returns one line for each reason of float layers."""
    return [_line(reason, group, _share(figures, group["macs"])) for reason, group in figures["float"].items()]


def warnings(figures: Json) -> list[str]:
    """Returns the lines that warn of a low coverage, with the reasons; empty if tuning chose the float layers."""
    chosen = figures["float"].get(CHOSEN, {"macs": 0})["macs"]
    if _share(figures, figures["int8_macs"] + chosen) >= LOW:
        return []
    return [f"int8 computes only {text(figures)}", *(f"in float: {line}" for line in reasons(figures))]


def _share(figures: Json, macs: int) -> float:
    return float(macs / figures["macs"]) if figures["macs"] else 0.0


def _line(reason: str, group: Json, share: float) -> str:
    layers = group["layers"]
    plural = "layer" if len(layers) == 1 else "layers"
    return f"{len(layers)} {plural}, {100 * share:.1f} % of MACs: {reason} ({listed(layers)})"
