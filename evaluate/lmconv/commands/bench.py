"""`lmconv bench`: warm latency of artefacts and baselines."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from lmconv.console import Console, Outcome, attempt, command, table
from lmconv.errors import LmconvError, MissingRuntime, UsageError
from lmconv.options import OWN_MODEL, SOURCE_WEIGHTS, TRUST
from lmconv.visual.tables import number

if TYPE_CHECKING:
    from lmconv.benching.options import Rows, TimingOptions
    from lmconv.types import Artifact, Json

HELP = """Times artefacts in one run with baselines on the same machine.

The baselines are the PyTorch network and the plain graph in ONNX Runtime fp32. Runs are warm: each artefact and
baseline runs in blocks of 5 untimed and 20 timed runs, and the order of the blocks is drawn anew in every round.
ratio_torch, ratio_plain and ratio_flushed are speed-ups: median of the ratios of the blocks of one round, baseline
divided by artefact. Intervals are 95 % intervals of the block medians. Of a folder, all artefacts below it are timed;
without arguments, those below build/.

If the plain graph holds denormal weights, which some CPUs compute slowly, the plain graph with zeros in their place is
a baseline too: the column "x plain" is the ratio to this graph (ratio_flushed), "x published" to the graph as it is
(ratio_plain). A slow baseline takes part in fewer rounds.

Artefacts with --io image or frame, and their baselines, are timed from a frame and boxes to landmarks: these artefacts
replace work of the host.

--cold also times 24 runs each of which follows a sweep of the cache. --streams also measures the throughput: OpenVINO
with N streams, ONNX Runtime with N threads that have a session each.

--device gpu times TensorRT engines and ONNX artefacts (ONNX Runtime with CUDA), and as baselines PyTorch, eager and
compiled, and the plain graph. Each artefact and baseline runs in its own process, from input to output. The result
has the GPU time (launched kernel by kernel, and as a CUDA graph), the time of the copies and the host time. Throughput
and ratios are computed from the GPU time. docs/bench.md explains every key of --json.

\b
Examples:
  lmconv bench
  lmconv bench build/pfld --threads 2 --batch 8 --samples 700
  lmconv bench build/pfld --cold --streams 2
  lmconv bench build/pfld/tensorrt-fp16 --device gpu --sweep
"""


@command(name="bench", help=HELP, short_help="Time artefacts and baselines, warm, in one run.")
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path), metavar="[ARTIFACT|DIR...]")
@click.option(
    "--device", type=click.Choice(["cpu", "gpu"]), default="cpu", show_default=True, help="Device to time artefacts on."
)
@click.option("--threads", type=click.IntRange(1), help="Number of intra-op CPU threads of each stream.  [default: 1]")
@click.option("--batch", type=click.IntRange(1), help="Number of inputs per run.  [default: 1]")
@click.option("--cold", is_flag=True, help="Also time runs after a sweep of the cache.")
@click.option(
    "--streams", type=click.IntRange(1), metavar="N", help="Also measure images per second, N runs at the same time."
)
@click.option("--sweep", is_flag=True, help="Time the batch sizes 1, 2, 4, ... 256; needs --device gpu.")
@click.option("--no-baseline", is_flag=True, help="Time the artefacts only; no ratios.")
@click.option(
    "--samples",
    type=click.IntRange(64),
    default=200,
    show_default=True,
    help="Number of timed runs per artefact, in blocks of at most 20; p99 needs 662.",
)
@click.option("--weights", type=click.Path(path_type=Path), help=SOURCE_WEIGHTS)
@click.option("--model", help=OWN_MODEL)
@click.option("--trust", is_flag=True, help=TRUST)
def plugin(console: Console, **options: Any) -> Outcome:
    return _bench(console, BenchRequest(**options))


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """Options of `lmconv bench`; each field has the name of its option or argument.

    Attributes:
        threads: None if not given, because a GPU allows no number of threads.
        batch: None if not given, because `sweep` allows no batch size.
    """

    artifacts: tuple[Path, ...]
    device: Literal["cpu", "gpu"]
    threads: int | None
    batch: int | None
    cold: bool
    streams: int | None
    sweep: bool
    no_baseline: bool
    samples: int
    weights: Path | None
    model: str | None
    trust: bool

    def timing_options(self) -> TimingOptions:
        """Returns the options of the benchmark, with defaults for the options that were not given."""
        from lmconv.benching.options import TimingOptions

        return TimingOptions(
            device=self.device,
            threads=self.threads or 1,
            batch=self.batch or 1,
            samples=self.samples,
            baselines=not self.no_baseline,
            cold=self.cold,
            streams=self.streams,
            weights=self.weights,
            model=self.model,
            trust=self.trust,
        )


def _bench(console: Console, request: BenchRequest) -> Outcome:
    """Checks the whole request before any work, then times the artefacts."""
    _check(request)
    from lmconv.store import artifact as store

    paths = store.below_or_all(request.artifacts)
    options = request.timing_options()
    if request.device == "gpu":
        return _on_gpu(console, paths, options, sweep=request.sweep, named=bool(request.artifacts))
    return _on_cpu(console, paths, options)


def _check(request: BenchRequest) -> None:
    """Refuses options that contradict each other or this machine.

    Raises:
        UsageError: An option is refused.
    """
    from lmconv import machine

    if request.model:
        from lmconv.sources import usercode

        usercode.require_factory(request.model)
    cores, threads, streams = machine.describe()["cores"], request.threads, request.streams
    if (threads or 1) > cores:
        raise UsageError(f"--threads {threads} on a machine with {cores} cores", hint=f"use at most --threads {cores}")
    if (streams or 1) * (threads or 1) > cores:
        message = f"--streams {streams} with --threads {threads or 1} on a machine with {cores} cores"
        raise UsageError(message, hint="use at most one stream per core, divided by --threads")
    for option, given in (("--threads", threads), ("--streams", streams), ("--cold", request.cold or None)):
        if request.device == "gpu" and given is not None:
            raise UsageError(f"{option} is for the CPU", hint=f"omit {option}, or use --device cpu")
    if request.device == "cpu" and request.sweep:
        raise UsageError("--sweep is for a GPU", hint="use --device gpu, or run once for each --batch")
    if request.sweep and request.batch is not None:
        raise UsageError("--sweep and --batch contradict each other", hint="omit one of the two")


def _on_cpu(console: Console, paths: list[Path], options: TimingOptions) -> Outcome:
    from lmconv import machine
    from lmconv.benching import cpu as benching

    outcome = Outcome(document={"machine": machine.describe(), "rows": [], "baselines": []})
    loaded = [
        attempt(console, functools.partial(benching.load_artifact, path, options), outcome.errors, path=path)
        for path in paths
    ]
    for group in benching.group_by_source(artifact for artifact in loaded if artifact):
        timed = functools.partial(benching.bench, group, options, console.progress)
        if rows := attempt(console, timed, outcome.errors, path=_label(group)):
            _add(console, outcome, rows)
    outcome.text = _text(outcome.document)
    return outcome


def _on_gpu(console: Console, paths: list[Path], options: TimingOptions, *, sweep: bool, named: bool) -> Outcome:
    from lmconv import machine
    from lmconv.benching import cpu as benching
    from lmconv.benching import gpu as gpu_benching
    from lmconv.trt.interleaving import BLOCKS

    outcome = Outcome(document={"machine": machine.describe(), "rows": [], "baselines": []})
    gpu = attempt(console, gpu_benching.ready, outcome.errors, path=", ".join(map(str, paths)))
    if gpu is None:
        return outcome
    outcome.document["machine"] |= gpu
    batches = gpu_benching.SWEEP if sweep else (options.batch,)
    loaded = [_load(console, path, options, batches, outcome, named=named) for path in paths]
    if not any(loaded) and not outcome.errors:
        message = "no artefact under build/ can be timed on the GPU of this machine"
        raise MissingRuntime(message, hint="make an engine with lmconv export --to tensorrt")
    groups = benching.group_by_source(artifact for artifact in loaded if artifact)
    turns = sum(len(group) + len(gpu_benching.BASELINES) for group in groups)
    with console.progress(turns * len(batches) * BLOCKS, "timing") as step:
        for group in groups:
            timed = functools.partial(gpu_benching.bench, group, options, batches, step)
            if rows := attempt(console, timed, outcome.errors, path=_label(group)):
                _add(console, outcome, rows)
                outcome.document["machine"]["states"] += rows.states
    for remark in gpu_benching.remarks(outcome.document["machine"]["states"]):
        console.note(remark)
    outcome.text = _gpu_text(outcome.document)
    return outcome


def _load(
    console: Console, path: Path, options: TimingOptions, batches: Sequence[int], outcome: Outcome, *, named: bool
) -> Artifact | None:
    """Returns an artefact to time on a GPU. An artefact that cannot run here is an error only if the user named it."""
    from lmconv.benching import gpu as gpu_benching

    load = functools.partial(gpu_benching.load_artifact, path, options, batches)
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
    return ", ".join(str(artifact.path) for artifact in group)


def _add(console: Console, outcome: Outcome, rows: Rows) -> None:
    outcome.document["rows"] += rows.artifacts
    outcome.document["baselines"] += rows.baselines
    for note in rows.notes:
        console.note(note)
    for path, error in rows.failed.items():
        attempt(console, functools.partial(_raise, error), outcome.errors, path=path)


def _raise(error: LmconvError) -> None:
    raise error


def _text(document: Json) -> str:
    rows = [*document["rows"], *document["baselines"]]
    columns = [column for column in COLUMNS if column.shown(rows)]
    cells = [[_name(row), *(column.cell(row) for column in columns)] for row in rows]
    machine = document["machine"]
    caption = f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']}"
    return f"{table(['artefact', *(column.header for column in columns)], cells)}\n{caption}" if rows else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the table.

    Attributes:
        header: Text above the column.
        cell: Returns the text of a row.
        shown: True if the table of these rows has the column.
    """

    header: str
    cell: Callable[[Json], str]
    shown: Callable[[Sequence[Json]], bool] = lambda rows: True


def _name(row: Json) -> str:
    """Returns the path of an artefact, or the model and name of a baseline."""
    from lmconv.benching.baselines import LABELS

    if row["path"]:
        return str(row["path"])
    return f"({row['model']}: {LABELS[row['target']]}{'' if row['timed'] == 'run' else ', with crop'})"


def _range(values: Json, low: str, high: str, form: str) -> str:
    return f"[{number(values[low], form)}, {number(values[high], form)}]"


def _inside(key: str, cell: Callable[[Json], str]) -> Callable[[Json], str]:
    """Returns a function for a cell of the values under a key; a dash if there are none."""
    return lambda row: cell(row[key]) if row[key] else "-"


def _has(key: str) -> Callable[[Sequence[Json]], bool]:
    return lambda rows: any(row[key] for row in rows)


COLUMNS = (
    Column(header="threads", cell=lambda row: str(row["threads"])),
    Column(header="batch", cell=lambda row: str(row["batch"])),
    Column(header="median ms", cell=lambda row: f"{row['median_ms']:.3f}"),
    Column(header="95 %", cell=lambda row: _range(row, "low_ms", "high_ms", ".3f")),
    Column(header="p90", cell=lambda row: number(row["p90_ms"], ".3f")),
    Column(header="p99", cell=lambda row: number(row["p99_ms"], ".3f")),
    Column(header="cold ms", cell=_inside("cold", lambda cold: f"{cold['median_ms']:.3f}"), shown=_has("cold")),
    Column(
        header="95 %", cell=_inside("cold", lambda cold: _range(cold, "low_ms", "high_ms", ".3f")), shown=_has("cold")
    ),
    Column(
        header="images/s",
        cell=_inside("streams", lambda streams: f"{streams['throughput']:.0f}"),
        shown=_has("streams"),
    ),
    Column(
        header="95 %",
        cell=_inside("streams", lambda streams: _range(streams, "low", "high", ".0f")),
        shown=_has("streams"),
    ),
    Column(header="x torch", cell=lambda row: number(row["ratio_torch"], ".2f")),
    Column(header="x plain", cell=lambda row: number(row["ratio_flushed"], ".2f")),
    Column(
        header="x published",
        cell=lambda row: number(row["ratio_plain"], ".2f"),
        shown=lambda rows: any(row["ratio_plain"] != row["ratio_flushed"] for row in rows),
    ),
)
"""Columns of the table of the CPU, after the name."""


def _gpu_text(document: Json) -> str:
    header = ["artefact", "batch", "GPU ms", "95 %", "as a graph", "in", "out", "host ms", "inputs/s", "x torch"]
    header += ["x compiled", "x plain"]
    rows = [_gpu_cells(row) for row in [*document["rows"], *document["baselines"]]]
    gpu = document["machine"]["gpu"]
    caption = f"{gpu['gpu']}, CUDA {gpu['cuda']}, TensorRT {gpu['tensorrt'] or '-'}"
    return f"{table(header, rows)}\n{caption}" if rows else ""


def _gpu_cells(row: Json) -> list[str]:
    gpu, times = row["gpu"], row["gpu"]["execute"] or row
    return [
        row["path"] or f"({row['model']}: {row['target']})",
        str(row["batch"]),
        f"{times['median_ms']:.4f}",
        f"[{times['low_ms']:.4f}, {times['high_ms']:.4f}]",
        *(number(gpu[kind] and gpu[kind]["median_ms"], ".4f") for kind in ("graph", "copy_in", "copy_out")),
        f"{row['median_ms']:.4f}",
        f"{row['throughput']:.0f}",
        *(number(row[f"ratio_{base}"], ".2f") for base in ("torch", "compiled", "plain")),
    ]
