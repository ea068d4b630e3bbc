"""`lmconv models`: what can be converted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmconv import checkpoints, plugins
from lmconv.console import Console, Outcome, command, table

if TYPE_CHECKING:
    from lmconv.types import Backbone, Json

HELP = """Lists the networks that can be converted: input, points, parameters, FLOPs, published ION, weights found.

\b
Example:
  lmconv models --json
"""


@command(name="models", help=HELP, short_help="List the networks that can be converted.")
def plugin(console: Console) -> Outcome:
    rows = [_row(backbone) for backbone in plugins.load_all("backbones").values()]
    header = ["model", "input", "points", "parameters", "GFLOP", "ION common", "ION full", "weights"]
    text = table(header, [_cells(row) for row in rows])
    return Outcome(document={"models": rows}, text=text)


def _row(backbone: Backbone) -> Json:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    spec = backbone.spec
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = backbone.build(spec.landmarks).eval()
        network(torch.empty(1, *(int(side) for side in spec.inputs[0].shape[1:])))
    known = checkpoints.known().get(spec.name)
    found = checkpoints.find(spec.name)
    return {
        "name": spec.name,
        "task": spec.task,
        "summary": backbone.summary,
        "input": list(spec.inputs[0].shape),
        "landmarks": spec.landmarks,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "flops": counter.get_total_flops(),
        "published_ion": dict(known.ion) if known else None,
        "weights": str(found) if found else None,
    }


def _cells(row: Json) -> list[str]:
    ion = row["published_ion"] or {}
    return [
        row["name"],
        "x".join(str(side) for side in row["input"][1:]),
        str(row["landmarks"]),
        f"{row['parameters']:,}",
        f"{row['flops'] / 1e9:.3f}",
        f"{ion['common']:.2f}" if "common" in ion else "-",
        f"{ion['full']:.2f}" if "full" in ion else "-",
        row["weights"] or "not found",
    ]
