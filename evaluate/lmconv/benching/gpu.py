"""Times the artefacts of one network on a GPU, interleaved with the network itself, each in a process of its own.

Contestants are TensorRT engines and ONNX artefacts (ONNX Runtime's CUDA provider); PyTorch, eager and compiled; and the
plain graph in ONNX Runtime. Each is timed from its own inputs to its own outputs: an image artefact starts from crops.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from lmconv.benching import cpu as benching
from lmconv.benching import options as benching_options
from lmconv.benching.baselines import is_plain, plain_of
from lmconv.benching.cpu import artifact_fields
from lmconv.benching.options import TimingOptions
from lmconv.console import phase
from lmconv.errors import Bug, InputError, LmconvError, MissingRuntime, UsageError
from lmconv.inference.latency import latency
from lmconv.plugins import TARGETS
from lmconv.sources.resolve import recover
from lmconv.store import artifact as artifacts
from lmconv.trt import device, driver
from lmconv.trt.faults import Fault
from lmconv.trt.interleaving import (
    BLOCKS,
    REPLY_TIMEOUT,
    InterleavedTimes,
    Worker,
    module_command,
    time_interleaved,
)
from lmconv.trt.timing import KINDS
from lmconv.types import Artifact, Json

SWEEP = tuple(2**power for power in range(9))
"""Batch sizes of `--sweep`: 1, 2, 4, ... 256."""
COMPILE_TIMEOUT = 900.0
"""Time limit in seconds for PyTorch to compile a network for one batch size."""
BASELINES = ("torch", "compiled", "plain")
"""Baselines of the artefacts: PyTorch eager, PyTorch compiled, and the plain graph in ONNX Runtime fp32."""
MAX_IDLE_LOAD = 5.0
"""Largest GPU load before timing, in percent, that is not reported as use by others."""
NORMAL_REASONS = ("idle", "application clocks", "display clocks")
"""Reasons of lowered clocks that do not point to a lack of power or cooling."""

Where = Literal["cpu", "gpu"]


@dataclass(slots=True, kw_only=True)
class Rows(benching_options.Rows):
    """Rows of `lmconv bench --json`, and the GPU's states."""

    states: list[Json] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """An artefact or a baseline to time.

    Attributes:
        name: Path of the artefact, or name of the baseline.
        command: Command that serves the contestant.
        artifact: The artefact; None for a baseline.
        timeout: Time limit of a reply in seconds.
    """

    name: str
    command: list[str]
    artifact: Artifact | None = None
    timeout: float = REPLY_TIMEOUT


def ready() -> Json:
    """Returns the GPU's description and its state before any work.

    Returns:
        `gpu`, its description; `states`, a list with the state at the `start`.

    Raises:
        MissingRuntime: If this machine has no GPU or no driver.
    """
    try:
        description = driver.describe()
    except Fault as fault:
        hint = "use --device cpu, or a machine with an NVIDIA GPU and its driver"
        raise MissingRuntime(f"this machine has no GPU to time on: {fault.message}", hint=hint) from fault
    try:
        description |= device.describe()  # more keys if TensorRT is installed
    except Fault:
        description |= {"tensorrt": None}
    return {"gpu": description, "states": [{"when": "start", **device.state()}]}


def load_artifact(path: Path, options: TimingOptions, batches: Sequence[int]) -> Artifact:
    """Reads an artefact and checks that it can be timed on a GPU.

    Opens the artefact once, because its target then runs its own checks.

    Args:
        path: Folder of the artefact.
        options: Options of the benchmark.
        batches: Batch sizes to time.

    Raises:
        InputError: If the artefact is missing or broken, or has another fixed batch size.
        MissingRuntime: If its runtime or the GPU is missing, or if its target is timed on the CPU only.
    """
    artifact = benching.load_artifact(path, options, batches)
    target = TARGETS.load(artifact.target)
    with target.open(artifact, options.open_options):
        if target.contestant is None:
            raise MissingRuntime(f"{path}: the {artifact.target} target is not timed on a GPU", hint="use --device cpu")
        return artifact


def bench(
    group: list[Artifact],
    options: TimingOptions,
    batches: Sequence[int],
    step: Callable[[], object] = lambda: None,
    *,
    where: Where = "gpu",
) -> Rows:
    """Times the artefacts of one network interleaved with its baselines; stores the result in the manifests.

    Args:
        group: Artefacts of the same source with the same kind of input.
        options: Options of the benchmark; `samples` is the number per contestant and batch size.
        batches: Batch sizes to time.
        step: Called once per contestant and block, even if the contestant has failed.
        where: "cpu" rehearses without a GPU: wall times only, and no engine.

    Returns:
        The rows, notes, states and errors.
    """
    rows = Rows()
    with ExitStack() as stack:
        running = _open_all(_contestants(group, options, where, rows), stack, rows)
        for batch in batches:
            failed = _time(_accepting(running, batch), batch, options, rows, step, where)
            running = [entry for entry in running if entry[0].name not in failed]
        _report_omitted_batches(running, batches, rows)
    for artifact in group:
        own = [row for row in rows.artifacts if row["path"] == str(artifact.path)]
        if own:
            without_path = [{key: value for key, value in row.items() if key != "path"} for row in own]
            artifacts.record(artifact, latency_gpu={"rows": without_path})
    return rows


Running = tuple[Contestant, Worker, Json]
"""A contestant, its process, and the contestant's reply to "about"."""


def _contestants(group: list[Artifact], options: TimingOptions, where: Where, rows: Rows) -> list[Contestant]:
    """Returns all contestants, and notes which baselines are missing."""
    contestants = _baselines(group, options, where, rows) if options.baselines else []
    for artifact in [artifact for artifact in group if not is_plain(artifact)] or group:
        command = _command(artifact, where)
        contestants.append(Contestant(name=str(artifact.path), command=command, artifact=artifact))
    return contestants


def _baselines(group: list[Artifact], options: TimingOptions, where: Where, rows: Rows) -> list[Contestant]:
    """Returns the available baselines, and notes which baselines are missing."""
    first = group[0]
    contestants: list[Contestant] = []
    source = recover(first, options.weights, options.model)
    if source is None or source.kind == "onnx":
        rows.notes.append(f"{first.spec.name}: ratio_torch is null: the PyTorch network is not available")
    else:
        arguments: list[str | Path] = [first.path, "--device", "cuda" if where == "gpu" else "cpu"]
        arguments += ["--weights", options.weights] if options.weights else []
        arguments += ["--model", options.model] if options.model else []
        eager = module_command("lmconv.contestants.pytorch", *arguments)
        contestants.append(Contestant(name="torch", command=eager))
        contestants.append(Contestant(name="compiled", command=[*eager, "--compiled"], timeout=COMPILE_TIMEOUT))
    if plain := plain_of(group):
        contestants.append(Contestant(name="plain", command=_command(plain, where)))
    else:
        rows.notes.append(f"{first.spec.name}: ratio_plain is null: the plain graph is not beside the artefact")
    return contestants


def _command(artifact: Artifact, where: Where) -> list[str]:
    """Returns the command that serves an artefact; `load` has refused targets without one."""
    contestant = TARGETS.load(artifact.target).contestant
    assert contestant
    module, arguments = contestant(artifact, where)
    return module_command(module, *arguments)


def _open_all(contestants: Iterable[Contestant], stack: ExitStack, rows: Rows) -> list[Running]:
    """Starts all contestants; a contestant that cannot be opened is reported and left out."""
    running: list[Running] = []
    for contestant in contestants:
        try:
            with phase(f"opening {contestant.name}"):
                worker = stack.enter_context(Worker(contestant.command, contestant.name, timeout=contestant.timeout))
                info = worker.ask(do="about")["about"]
        except Fault as fault:
            _report_failure(contestant.name, contestant.artifact, fault, rows)
            continue
        running.append((contestant, worker, info))
        if caveat := info.get("caveat"):
            rows.notes.append(f"{contestant.name}: {caveat}")
    return running


def _report_failure(name: str, artifact: Artifact | None, fault: Fault, rows: Rows) -> None:
    """Reports a failure: as an error for an artefact, as a note for a baseline."""
    if artifact:
        rows.failed[name] = as_error(fault)
    else:
        rows.notes.append(f"ratio_{name} is null: {fault}")


def as_error(fault: Fault) -> LmconvError:
    """Returns a worker's Fault as an error of lmconv, with an exit code. The kind identifies lmconv's own errors."""
    kinds: dict[str, type[LmconvError]] = {"input": InputError, "shape": InputError, "usage": UsageError, "bug": Bug}
    return kinds.get(fault.kind, MissingRuntime)(fault.message, hint=fault.hint)


def accepted_batches(batches: Sequence[int], fixed: int | None, profile: Sequence[int] | None) -> list[int]:
    """Returns the batch sizes that an artefact accepts.

    Args:
        batches: Batch sizes to choose from.
        fixed: Fixed batch size of the artefact; None if the batch is free.
        profile: Minimum, optimum and maximum batch size of the profile; None without a profile.
    """
    low, _, high = profile or (1, 1, max(batches))
    return [batch for batch in batches if (batch == fixed if fixed else low <= batch <= high)]


def _accepted(entry: Running, batches: Sequence[int]) -> list[int]:
    contestant, _, info = entry
    fixed = contestant.artifact.spec.batch if contestant.artifact else None
    return accepted_batches(batches, fixed, info.get("batches"))


def _accepting(running: Iterable[Running], batch: int) -> list[Running]:
    return [entry for entry in running if _accepted(entry, [batch])]


def _report_omitted_batches(running: Iterable[Running], batches: Sequence[int], rows: Rows) -> None:
    """Reports the batch sizes that an artefact does not accept; an artefact that accepts none has failed."""
    for entry in running:
        artifact, accepted = entry[0].artifact, _accepted(entry, batches)
        omitted = [batch for batch in batches if batch not in accepted]
        if artifact is None or not omitted:
            continue
        message = f"{artifact.path}: batch sizes left out: {', '.join(map(str, omitted))}"
        if artifact.spec.batch:
            rows.notes.append(f"{message}: the artefact takes {artifact.spec.batch} inputs per run")
            continue
        minimum, optimum, maximum = entry[2]["batches"]
        message += f": the engine takes {minimum} to {maximum} inputs per run"
        hint = f"export again with --batch {min(minimum, *omitted)}:{optimum}:{max(maximum, *omitted)}"
        if accepted:
            rows.notes.append(f"{message} ({hint})")
        else:
            rows.failed[str(artifact.path)] = InputError(message, hint=hint)


def _time(
    running: list[Running], batch: int, options: TimingOptions, rows: Rows, step: Callable[[], object], where: Where
) -> set[str]:
    """Times contestants with one batch size; adds rows, states and notes. Returns the names of failed contestants."""
    if not any(entry[0].artifact for entry in running):
        return set()
    state = device.state if where == "gpu" else dict
    workers = [worker for _, worker, _ in running]
    result = time_interleaved(workers, batch, options.samples, BLOCKS, state=state, step=step)
    model = next(entry[0].artifact.spec.name for entry in running if entry[0].artifact)
    rows.states += [{"model": model, "batch": batch, **reading} for reading in result.states]
    for contestant, _, info in running:
        if fault := result.faults.get(contestant.name):
            _report_failure(contestant.name, contestant.artifact, fault, rows)
            continue
        row = _description(contestant, model, info, options) | figures(result, contestant.name, batch)
        (rows.artifacts if contestant.artifact else rows.baselines).append(row)
        if not row["warm_up"]["settled"]:
            seconds = row["warm_up"]["seconds"]
            rows.notes.append(f"{contestant.name}: the times had not settled after {seconds:.0f} s of warm-up")
    return set(result.faults)


def _description(contestant: Contestant, model: str, info: Json, options: TimingOptions) -> Json:
    run = {"timed": "run", "caveat": info.get("caveat", ""), "device": options.device, "threads": None}
    if contestant.artifact:
        return artifact_fields(contestant.artifact) | run
    baseline = {"path": None, "model": model, "target": contestant.name, "precision": "fp32", "io": "tensor"}
    return baseline | {"execution": {"tf32": False}} | run


Times = Mapping[str, Sequence[float]]
"""Milliseconds of one contestant, by kind."""


def figures(result: InterleavedTimes, name: str, batch: int) -> Json:
    """Returns the part of a row that follows from the times of one contestant.

    `median_ms`, the interval and the percentiles are host times, from arrays to arrays. `throughput`, in inputs per
    second, and the ratios use GPU times: for this contestant the time of the CUDA graph, if captured; for the baselines
    the time launched kernel by kernel.

    Args:
        result: Result of the interleaved timing.
        name: Name of the contestant.
        batch: Inputs per run.
    """
    times = result.times[name]
    left_out, warm_up = result.left_out[name], result.warm_up[name]
    gpu = {kind: dataclasses.asdict(latency(np.array(times[kind]))) if kind in times else None for kind in KINDS}
    ratios = {f"ratio_{baseline}": ratio(result.times.get(baseline), times) for baseline in BASELINES}
    return {
        "batch": batch,
        **dataclasses.asdict(latency(np.array(times["wall"]))),
        **ratios,
        "throughput": batch / gpu_ms(times) * 1000,
        "gpu": {kind: gpu[kind] for kind in KINDS if kind != "wall"} | {"left_out": left_out},
        "warm_up": {key: value for key, value in warm_up.items() if key != "windows"},
    }


def gpu_ms(times: Times) -> float:
    """Returns the median GPU time: as a CUDA graph, if captured; else kernel by kernel; else the host's time."""
    return float(np.median(next(times[kind] for kind in ("graph", "execute", "wall") if kind in times)))


def ratio(baseline: Times | None, times: Times) -> float | None:
    """Returns the speed-up against a baseline that is launched kernel by kernel; None if the baseline was not timed."""
    if baseline is None:
        return None
    return float(np.median(baseline["execute" if "execute" in baseline else "wall"])) / gpu_ms(times)


def remarks(states: Sequence[Json]) -> list[str]:
    """Returns remarks about the GPU's states for the user: lowered clocks, and use of the GPU by others."""
    lines = []
    during = [state for state in states if str(state["when"]).startswith("after")]
    lowered = [state for state in during if set(state.get("throttle") or ()) - set(NORMAL_REASONS)]
    if lowered:
        reasons = sorted({reason for state in lowered for reason in state["throttle"] if reason not in NORMAL_REASONS})
        count = f"in {len(lowered)} of {len(during)} readings"
        problem = f"the GPU's clocks were lowered ({', '.join(reasons)}) {count}"
        lines.append(f"{problem}: ratios stay valid, but times may be too long")
    load = max((state.get("utilisation_percent") or 0 for state in states if state["when"] == "start"), default=0)
    if load > MAX_IDLE_LOAD:
        lines.append(f"the GPU had a load of {load:.0f} % before timing: other programs use the GPU")
    return lines
