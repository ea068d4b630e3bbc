"""`lmconv bench`: latency, interleaved."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from lmconv import usercode
from lmconv.console import Console, Outcome, attempt, command, table
from lmconv.errors import InputError, UsageError
from lmconv.options import TRUST
from lmconv.report import number

if TYPE_CHECKING:
    from lmconv.types import Json

HELP = """Times artefacts of one network in turn with the PyTorch network and with its plain graph in ONNX Runtime fp32.

ratio_torch and ratio_plain are the time of those over the artefact's: above 1 is faster. Intervals are 95 % intervals
of the median. Without arguments, everything under build/ is timed.

Artefacts that take images or frames, and what those are compared with, are timed from a frame and boxes to landmarks in
it: what the host has to do is counted.

\b
Examples:
  lmconv bench
  lmconv bench build/pfld/* --threads 2 --batch 8 --samples 700
"""


@command(name="bench", help=HELP, short_help="Time artefacts, interleaved.")
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path), metavar="[ARTIFACT...]")
@click.option("--device", type=click.Choice(["cpu", "gpu"]), default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Intra-op threads.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Inputs a run.")
@click.option("--samples", type=click.IntRange(64), default=200, show_default=True, help="Runs timed; 662 for p99.")
@click.option("--weights", type=click.Path(path_type=Path), help="The checkpoint, or a folder to look in first.")
@click.option("--model", help="FILE.py:NAME of a network of your own; its code runs only when you name it.")
@click.option("--trust", is_flag=True, help=TRUST)
def plugin(
    console: Console,
    *,
    artifacts: tuple[Path, ...],
    device: Literal["cpu", "gpu"],
    threads: int,
    batch: int,
    samples: int,
    weights: Path | None,
    model: str | None,
    trust: bool,
) -> Outcome:
    if model:
        usercode.check(model)
    from lmconv import artifact as store
    from lmconv import benching, machine

    cores = machine.describe()["cores"]
    if threads > cores:
        raise UsageError(f"--threads {threads} on a machine with {cores} cores", hint=f"at most --threads {cores}")
    paths = list(artifacts) or store.find(Path("build"))
    if not paths:
        raise InputError("there is no artefact under build/", hint="name some, or make one with lmconv export")
    settings = benching.Settings(
        device=device, threads=threads, batch=batch, samples=samples, weights=weights, model=model, trust=trust
    )
    outcome = Outcome(document={"machine": machine.describe(), "rows": [], "baselines": []})
    found = [
        attempt(console, functools.partial(benching.load, path, settings), outcome.errors, path=path) for path in paths
    ]
    groups = benching.group([loaded for loaded in found if loaded])
    with console.progress(len(groups) * samples, "timing") as step:
        for group in groups:
            label = ", ".join(str(loaded.path) for loaded in group)
            timed = functools.partial(benching.bench, group, settings, step)
            rows = attempt(console, timed, outcome.errors, path=label)
            if rows:
                outcome.document["rows"] += rows.artifacts
                outcome.document["baselines"] += rows.baselines
                for note in rows.notes:
                    console.note(note)
    outcome.text = _text(outcome.document)
    return outcome


def _text(document: Json) -> str:
    header = ["artefact", "device", "threads", "batch", "median ms", "95 %", "p90", "p99", "x torch", "x plain"]
    rows = [_cells(row) for row in [*document["rows"], *document["baselines"]]]
    here = document["machine"]
    caption = f"{here['cpu']}, {here['cores']} cores, load {here['load']}"
    return f"{table(header, rows)}\n{caption}" if rows else ""


def _cells(row: Json) -> list[str]:
    return [
        row["path"] or f"({row['model']}: {row['target']}{'' if row['timed'] == 'run' else ', with crop'})",
        row["device"],
        str(row["threads"]),
        str(row["batch"]),
        f"{row['median_ms']:.3f}",
        f"[{row['low_ms']:.3f}, {row['high_ms']:.3f}]",
        f"{row['p90_ms']:.3f}",
        number(row["p99_ms"], ".3f"),
        number(row["ratio_torch"], ".2f"),
        number(row["ratio_plain"], ".2f"),
    ]
