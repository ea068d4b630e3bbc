"""`lmconv models`: what can be converted."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from lmconv.console import Console, Outcome, attempt, command, table
from lmconv.plugins import BACKBONES

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
    outcome = Outcome(document={})
    listed = recorded()
    found = [
        attempt(console, functools.partial(_row, name, listed.get(name)), outcome.errors, model=name)
        for name in BACKBONES.names()
    ]
    rows = [row for row in found if row]
    header = ["model", "input", "points", "parameters", "GFLOP", "ION common", "ION full", "weights"]
    text = table(header, [_cells(row) for row in rows])
    outcome.document["models"], outcome.text = rows, text
    return outcome


def recorded() -> dict[str, Json]:
    """The rows of networks.json by name: what `described` gives of our networks, without importing PyTorch."""
    import json
    from importlib import resources

    text = (resources.files("lmconv.known") / "networks.json").read_text(encoding="utf-8")
    rows: dict[str, Json] = json.loads(text)
    return {name: row for name, row in rows.items() if BACKBONES.builtin(name)}


def _row(name: str, recorded: Json | None) -> Json:
    from lmconv.sources import checkpoints

    if recorded is None:
        backbone = BACKBONES.load(name)
        name = backbone.spec.name
    known, found = checkpoints.known().get(name), checkpoints.find(name)
    return {
        "name": name,
        **(recorded or described(backbone, found)),
        "published_ion": dict(known.ion) if known else None,
        "weights": str(found) if found else None,
    }


def described(backbone: Backbone, weights: Path | None) -> Json:
    """The part of a row that does not depend on the machine; counts of a network published as ONNX need its file."""
    spec = backbone.spec
    parameters, flops = _counted(backbone, weights)
    return {
        "task": spec.task,
        "summary": backbone.summary,
        "input": list(spec.inputs[0].shape),
        "landmarks": spec.landmarks,
        "parameters": parameters,
        "flops": flops,
    }


def _counted(backbone: Backbone, weights: Path | None) -> tuple[int, int] | tuple[None, None]:
    """Parameters and FLOPs; FLOPs of a network for pictures of any size are those at the size of its sample."""
    if backbone.build is None:
        from lmconv.sources.onnx_files import reading

        return reading.counts(weights) if weights else (None, None)
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
