"""`lmconv models`: what can be converted."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from lmconv import machine
from lmconv.console import Console, Outcome, attempt, command, table
from lmconv.errors import MissingRuntime
from lmconv.plugins import BACKBONES, INSTALL
from lmconv.sources import checkpoints

if TYPE_CHECKING:
    from pathlib import Path

    from lmconv.types import Backbone, Json

HELP = """Lists the networks that can be converted: input, points, parameters, FLOPs, published ION, weights found.

\b
Example:
  lmconv models --json
"""


@command(name="models", help=HELP, short_help="List the networks that can be converted.")
def plugin(console: Console) -> Outcome:
    if not machine.has("torch"):
        raise MissingRuntime("looking at networks needs PyTorch", hint=INSTALL["torch"])
    outcome = Outcome(document={})
    found = [attempt(console, functools.partial(_row, name), outcome.errors, model=name) for name in BACKBONES.names()]
    rows = [row for row in found if row]
    header = ["model", "input", "points", "parameters", "GFLOP", "ION common", "ION full", "weights"]
    text = table(header, [_cells(row) for row in rows])
    outcome.document["models"], outcome.text = rows, text
    return outcome


def _row(name: str) -> Json:
    backbone = BACKBONES.load(name)
    spec = backbone.spec
    known = checkpoints.known().get(spec.name)
    found = checkpoints.find(spec.name)
    parameters, flops = _counted(backbone, found)
    return {
        "name": spec.name,
        "task": spec.task,
        "summary": backbone.summary,
        "input": list(spec.inputs[0].shape),
        "landmarks": spec.landmarks,
        "parameters": parameters,
        "flops": flops,
        "published_ion": dict(known.ion) if known else None,
        "weights": str(found) if found else None,
    }


def _counted(backbone: Backbone, found: Path | None) -> tuple[int, int] | tuple[None, None]:
    """Parameters and FLOPs, of one that takes pictures of any size at its sample's; of ONNX what its file has."""
    if backbone.build is None:
        from lmconv.sources import onnx_file

        return onnx_file.counts(found) if found else (None, None)
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = backbone.build(backbone.spec.landmarks).eval()
        network(torch.empty(1, 3, *backbone.spec.input_size))
    return sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops()


def _cells(row: Json) -> list[str]:
    ion = row["published_ion"] or {}
    return [
        row["name"],
        "x".join(str(side) for side in row["input"][1:]),
        str(row["landmarks"]) if row["task"] == "landmarks" else "boxes",
        "-" if row["parameters"] is None else f"{row['parameters']:,}",
        "-" if row["flops"] is None else f"{row['flops'] / 1e9:.3f}",
        f"{ion['common']:.2f}" if "common" in ion else "-",
        f"{ion['full']:.2f}" if "full" in ion else "-",
        row["weights"] or "not found",
    ]
