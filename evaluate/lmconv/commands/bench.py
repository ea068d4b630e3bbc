"""`lmconv bench`: interleaved latency of artefacts and baselines."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from lmconv.console import Console, Outcome, attempt, command, table
from lmconv.errors import InputError, LmconvError, MissingRuntime, UsageError
from lmconv.options import TRUST
from lmconv.sources import usercode
from lmconv.visual.tables import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmconv.benching.cpu import Rows, Settings
    from lmconv.benching.gpu import Rows as GpuRows
    from lmconv.types import Artifact, Json

HELP = """Times artefacts of one network in turn with the PyTorch network and with its plain graph in ONNX Runtime fp32.

ratio_torch and ratio_plain are the time of those over the artefact's: above 1 is faster. Intervals are 95 % intervals
of the median. Without arguments, everything under build/ is timed.

Artefacts that take images or frames, and what those are compared with, are timed from a frame and boxes to landmarks in
it: what the host has to do is counted.

With --device gpu, TensorRT engines and ONNX artefacts (ONNX Runtime with CUDA) are timed from their input to their
output, each in a process of its own, with PyTorch eager and compiled: the GPU's time, launched and as a CUDA graph,
copies and the host's time apart. Throughput and ratios are of the GPU's time. docs/bench.md has every key of --json.

\b
Examples:
  lmconv bench
  lmconv bench build/pfld/* --threads 2 --batch 8 --samples 700
  lmconv bench build/pfld/tensorrt-fp16 --device gpu --sweep
"""


@command(name="bench", help=HELP, short_help="Time artefacts, interleaved.")
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path), metavar="[ARTIFACT...]")
@click.option("--device", type=click.Choice(["cpu", "gpu"]), default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Intra-op threads of the CPU, 1 unless given.")
@click.option("--batch", type=click.IntRange(1), help="Inputs a run, 1 unless given.")
@click.option("--sweep", is_flag=True, help="On a GPU: 1, 2, 4, ... 256 inputs a run.")
@click.option("--samples", type=click.IntRange(64), default=200, show_default=True, help="Runs timed; 662 for p99.")
@click.option("--weights", type=click.Path(path_type=Path), help="The checkpoint, or a folder to look in first.")
@click.option("--model", help="FILE.py:NAME of a network of your own; its code runs only when you name it.")
@click.option("--trust", is_flag=True, help=TRUST)
def plugin(
    console: Console,
    *,
    artifacts: tuple[Path, ...],
    device: Literal["cpu", "gpu"],
    threads: int | None,
    batch: int | None,
    sweep: bool,
    samples: int,
    weights: Path | None,
    model: str | None,
    trust: bool,
) -> Outcome:
    if model:
        usercode.require_factory(model)
    _check(device, threads, batch, sweep)
    from lmconv.benching import cpu as benching
    from lmconv.store import artifact as store

    paths = list(artifacts) or store.find(Path("build"))
    if not paths:
        raise InputError("there is no artefact under build/", hint="name some, or make one with lmconv export")
    settings = benching.Settings(
        device=device,
        threads=threads or 1,
        batch=batch or 1,
        samples=samples,
        weights=weights,
        model=model,
        trust=trust,
    )
    if device == "gpu":
        return _on_gpu(console, paths, settings, sweep=sweep, named=bool(artifacts))
    return _on_cpu(console, paths, settings)


def _check(device: str, threads: int | None, batch: int | None, sweep: bool) -> None:
    """Refuses options that contradict each other or this machine, before any work."""
    from lmconv import machine

    cores = machine.describe()["cores"]
    if (threads or 1) > cores:
        raise UsageError(f"--threads {threads} on a machine with {cores} cores", hint=f"at most --threads {cores}")
    if device == "gpu" and threads is not None:
        raise UsageError("--threads is for the CPU", hint="leave it out, or use --device cpu")
    if device == "cpu" and sweep:
        raise UsageError("--sweep is for a GPU", hint="use --device gpu, or one --batch after the other")
    if sweep and batch is not None:
        raise UsageError("--sweep and --batch contradict each other", hint="leave one out")


def _on_cpu(console: Console, paths: list[Path], settings: Settings) -> Outcome:
    from lmconv import machine
    from lmconv.benching import cpu as benching

    outcome = Outcome(document={"machine": machine.describe(), "rows": [], "baselines": []})
    found = [
        attempt(console, functools.partial(benching.load, path, settings), outcome.errors, path=path) for path in paths
    ]
    groups = benching.group([loaded for loaded in found if loaded])
    with console.progress(len(groups) * settings.samples, "timing") as step:
        for group in groups:
            timed = functools.partial(benching.bench, group, settings, step)
            if rows := attempt(console, timed, outcome.errors, path=_label(group)):
                _add(console, outcome, rows)
    outcome.text = _text(outcome.document)
    return outcome


def _on_gpu(console: Console, paths: list[Path], settings: Settings, *, sweep: bool, named: bool) -> Outcome:
    from lmconv import machine
    from lmconv.benching import cpu as benching
    from lmconv.benching import gpu as gpu_benching
    from lmconv.trt.interleaving import BLOCKS

    outcome = Outcome(document={"machine": machine.describe(), "rows": [], "baselines": []})
    gpu = attempt(console, gpu_benching.ready, outcome.errors, path=", ".join(map(str, paths)))
    if gpu is None:
        return outcome
    outcome.document["machine"] |= gpu
    batches = gpu_benching.SWEEP if sweep else (settings.batch,)
    found = [_loaded(console, path, settings, batches, outcome, named=named) for path in paths]
    if not any(found) and not outcome.errors:
        raise MissingRuntime("nothing under build/ can be timed on a GPU here", hint="lmconv export --to tensorrt")
    groups = benching.group([loaded for loaded in found if loaded])
    turns = sum(len(group) + len(gpu_benching.BASELINES) for group in groups)
    with console.progress(turns * len(batches) * BLOCKS, "timing") as step:
        for group in groups:
            timed = functools.partial(gpu_benching.bench, group, settings, batches, step)
            if rows := attempt(console, timed, outcome.errors, path=_label(group)):
                _add(console, outcome, rows)
                _add_failures(console, outcome, rows)
    for remark in gpu_benching.remarks(outcome.document["machine"]["states"]):
        console.note(remark)
    outcome.text = _gpu_text(outcome.document)
    return outcome


def _loaded(
    console: Console, path: Path, settings: Settings, batches: Sequence[int], outcome: Outcome, *, named: bool
) -> Artifact | None:
    """Returns an artefact to time on a GPU. An artefact that cannot run here is an error only if the user named it."""
    from lmconv.benching import gpu as gpu_benching

    load = functools.partial(gpu_benching.load, path, settings, batches)
    if named:
        return attempt(console, load, outcome.errors, path=path)
    try:
        return load()
    except MissingRuntime as error:
        console.note(f"{path} is left out: {error}")
        return None
    except LmconvError:
        return attempt(console, load, outcome.errors, path=path)


def _label(group: list[Artifact]) -> str:
    return ", ".join(str(loaded.path) for loaded in group)


def _add(console: Console, outcome: Outcome, rows: Rows) -> None:
    outcome.document["rows"] += rows.artifacts
    outcome.document["baselines"] += rows.baselines
    for note in rows.notes:
        console.note(note)


def _add_failures(console: Console, outcome: Outcome, rows: GpuRows) -> None:
    outcome.document["machine"]["states"] += rows.states
    for path, error in rows.failed.items():
        attempt(console, functools.partial(_raise, error), outcome.errors, path=path)


def _raise(error: LmconvError) -> None:
    raise error


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


def _gpu_text(document: Json) -> str:
    header = ["artefact", "batch", "GPU ms", "95 %", "as a graph", "in", "out", "host ms", "inputs/s", "x torch"]
    header += ["x compiled", "x plain"]
    rows = [_gpu_cells(row) for row in [*document["rows"], *document["baselines"]]]
    here = document["machine"]["gpu"]
    caption = f"{here['gpu']}, CUDA {here['cuda']}, TensorRT {here['tensorrt'] or '-'}"
    return f"{table(header, rows)}\n{caption}" if rows else ""


def _gpu_cells(row: Json) -> list[str]:
    gpu, run = row["gpu"], row["gpu"]["execute"] or row
    return [
        row["path"] or f"({row['model']}: {row['target']})",
        str(row["batch"]),
        f"{run['median_ms']:.4f}",
        f"[{run['low_ms']:.4f}, {run['high_ms']:.4f}]",
        *(number(gpu[kind] and gpu[kind]["median_ms"], ".4f") for kind in ("graph", "copy_in", "copy_out")),
        f"{row['median_ms']:.4f}",
        f"{row['throughput']:.0f}",
        *(number(row[f"ratio_{base}"], ".2f") for base in ("torch", "compiled", "plain")),
    ]
