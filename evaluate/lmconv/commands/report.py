"""`lmconv report`: one table of the results of verify and bench."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lmconv.console import Console, Outcome, attempt, command
from lmconv.errors import InputError
from lmconv.visual.tables import interval, ion, markdown, number

if TYPE_CHECKING:
    from lmconv.types import Artifact, Json

HELP = """Prints one Markdown table of all artefacts below DIR, from what verify and bench wrote to their
manifests.

Nothing is measured here: a dash stands where nothing was.

\b
Example:
  lmconv report build > report.md
"""


@command(name="report", help=HELP, short_help="Print what verify and bench have found, in one table.")
@click.argument("folder", type=click.Path(path_type=Path), default="build", metavar="[DIR]")
def plugin(console: Console, *, folder: Path) -> Outcome:
    from lmconv.store import artifact as store

    paths = store.find(folder)
    if not paths:
        raise InputError(f"there is no artefact below {folder}", hint="make one with lmconv export")
    outcome = Outcome(document={"artifacts": []})
    for path in paths:
        found = attempt(console, functools.partial(store.read, path), outcome.errors, path=path)
        outcome.document["artifacts"] += [_row(found)] if found else []
    outcome.text = _text(outcome.document["artifacts"])
    return outcome


HEADER = [
    "model",
    "artefact",
    "MB",
    "max px",
    "on faces",
    "drift",
    "ION %",
    "ΔION",
    "median ms",
    "x torch",
    "x plain",
]
LEGEND = [
    "max px: largest distance to the source network's points, pixels of its input, on random inputs and faces; then on "
    "faces alone. drift: mean distance on faces, ION points.",
    "ION: inter-ocular error of the artefact; ΔION: minus that of its source, paired; 95 % bootstrap intervals.",
    "median ms: with the 95 % interval of the median. x torch, x plain: times faster than PyTorch eager, and than the "
    "plain graph in ONNX Runtime fp32; of an image or frame artefact all are from a frame and boxes to landmarks.",
]


def _row(artifact: Artifact) -> Json:
    from lmconv.store import artifact as store

    return {
        "path": str(artifact.path),
        "model": artifact.spec.name,
        "target": artifact.target,
        "precision": str(artifact.precision),
        "io": artifact.spec.io,
        "execution": artifact.execution,
        "bytes": store.size(artifact),
        "parameters": artifact.parameters,
        "trained": store.trained(artifact),
        "verified": artifact.measured.get("verified"),
        "normaliser": _other(artifact),
        "latency": artifact.measured.get("latency"),
        "guard": artifact.measured.get("guard"),
        "doubt": store.doubt(artifact),
    }


def _other(artifact: Artifact) -> str | None:
    """Returns the normaliser of the measured ION, unless it is the default normaliser of the points."""
    from lmconv.scheme import scheme

    name: str | None = (artifact.measured.get("verified") or {}).get("normaliser")
    usual = scheme(artifact.spec.landmarks)
    return name if name and usual and name != usual.default else None


def _text(rows: list[Json]) -> str:
    if not rows:
        return ""
    notes = [rf"\* {row['path']}: {_caveat(row)}" for row in rows if _caveat(row)]
    return "\n".join([markdown(HEADER, [_cells(row) for row in rows]), "", *notes, *LEGEND])


def _takes(row: Json) -> str:
    return "" if row["io"] == "tensor" else f" {row['io']}"


def _caveat(row: Json) -> str:
    caveat = (row["verified"] or {}).get("caveat") or (row["latency"] or {}).get("caveat")
    other = row["normaliser"] and f"ION is divided by {row['normaliser']}"
    return "; ".join(filter(None, (caveat, other, row["doubt"])))


def _cells(row: Json) -> list[str]:
    verified, latency = row["verified"] or {}, row["latency"] or {}
    parity = verified.get("parity") or {}
    return [
        row["model"],
        f"{row['target']} {row['precision']}" + _takes(row) + (r" \*" if _caveat(row) else ""),
        f"{row['bytes'] / 1e6:.2f}",
        number(parity.get("max_px"), ".2g"),
        number(parity.get("max_px_faces"), ".2g"),
        number(parity.get("mean_ion"), ".3f"),
        ion(verified.get("ion")) if row["trained"] else "no trained weights",
        interval(verified.get("delta_ion"), "+.3f"),
        f"{latency['median_ms']:.2f} [{latency['low_ms']:.2f}, {latency['high_ms']:.2f}]" if latency else "-",
        number(latency.get("ratio_torch"), ".2f"),
        number(latency.get("ratio_plain"), ".2f"),
    ]
