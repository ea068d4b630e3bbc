"""`lmconv report`: one table of the results of verify and bench."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmconv.console import Console, Outcome, attempt, command
from lmconv.visual.tables import interval, ion, markdown, number

if TYPE_CHECKING:
    from lmconv.types import Artifact, Json

HELP = """Prints one Markdown table of artefacts; of a folder, all artefacts below it.

The figures come from the manifests, in which verify and bench store their results. This command measures nothing. A
dash marks a figure that was not measured. Without arguments, the table has all artefacts below build/.

\b
Examples:
  lmconv report > report.md
  lmconv report build/pfld build/mobilefacenet
"""


@command(name="report", help=HELP, short_help="Print one table of the results of verify and bench.")
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path), metavar="[ARTIFACT|DIR...]")
def plugin(console: Console, **options: Any) -> Outcome:
    return _report(console, ReportRequest(**options))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """Arguments of `lmconv report`; each field has the name of its argument."""

    artifacts: tuple[Path, ...]


def _report(console: Console, request: ReportRequest) -> Outcome:
    """Reads the manifests of all artefacts at and below some paths."""
    from lmconv.store import artifact as store

    outcome = Outcome(document={"artifacts": []})
    for path in store.below_or_all(request.artifacts):
        artifact = attempt(console, functools.partial(store.read, path), outcome.errors, path=path)
        outcome.document["artifacts"] += [_row(artifact)] if artifact else []
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
    "max px: largest distance to a point of the source network, pixels of the network's input, on random inputs and "
    "faces; on faces: the same on faces only. drift: mean distance on faces, ION points.",
    "ION: inter-ocular error of the artefact, percent. ΔION: mean paired difference to the source's ION, points. Both "
    "with 95 % bootstrap intervals.",
    "median ms: with the 95 % interval of the median. x torch, x plain: speed-up against PyTorch eager and against the "
    "plain graph without denormals in ONNX Runtime fp32. Artefacts that take images or frames are timed from a frame "
    "and boxes to landmarks.",
]


def _row(artifact: Artifact) -> Json:
    from lmconv.store import artifact as store
    from lmconv.store.summary import int8_coverage, summary

    return {
        **summary(artifact, "execution", "bytes", "parameters", "trained"),
        "verified": artifact.measured.get("verified"),
        "normaliser": _unusual_normaliser(artifact),
        "latency": artifact.measured.get("latency"),
        "guard": artifact.measured.get("guard"),
        "doubt": store.forced_reason(artifact),
        "int8": int8_coverage(artifact),
    }


def _unusual_normaliser(artifact: Artifact) -> str | None:
    """Returns the normaliser of the measured ION, unless it is the default normaliser of the points."""
    from lmconv.scheme import scheme

    name: str | None = (artifact.measured.get("verified") or {}).get("normaliser")
    points = scheme(artifact.spec.landmarks)
    return name if name and points and name != points.default else None


def _text(rows: list[Json]) -> str:
    if not rows:
        return ""
    notes = [rf"\* {row['path']}: {_remarks(row)}" for row in rows if _remarks(row)]
    return "\n".join([markdown(HEADER, [_cells(row) for row in rows]), "", *notes, *LEGEND])


def _io_suffix(row: Json) -> str:
    return "" if row["io"] == "tensor" else f" {row['io']}"


def _remarks(row: Json) -> str:
    """Returns the remarks on an artefact for the notes below the table; empty without remarks."""
    from lmconv.quantise.coverage import text

    caveat = (row["verified"] or {}).get("caveat") or (row["latency"] or {}).get("caveat")
    normaliser = row["normaliser"] and f"ION is divided by {row['normaliser']}"
    coverage = row["int8"] and f"int8 in {text(row['int8'])}"
    return "; ".join(filter(None, (caveat, normaliser, row["doubt"], coverage)))


def _cells(row: Json) -> list[str]:
    verified, latency = row["verified"] or {}, row["latency"] or {}
    parity = verified.get("parity") or {}
    return [
        row["model"],
        f"{row['target']} {row['precision']}" + _io_suffix(row) + (r" \*" if _remarks(row) else ""),
        f"{row['bytes'] / 1e6:.2f}",
        number(parity.get("max_px"), ".2g"),
        number(parity.get("max_px_faces"), ".2g"),
        number(parity.get("mean_ion"), ".3f"),
        ion(verified.get("ion")) if row["trained"] else "no trained weights",
        interval(verified.get("delta_ion"), "+.3f"),
        f"{latency['median_ms']:.2f} [{latency['low_ms']:.2f}, {latency['high_ms']:.2f}]" if latency else "-",
        number(latency.get("ratio_torch"), ".2f"),
        number(latency.get("ratio_flushed", latency.get("ratio_plain")), ".2f"),
    ]
