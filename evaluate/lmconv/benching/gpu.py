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
from lmconv.benching.cpu import Settings, about, plain_of
from lmconv.errors import Bug, InputError, LmconvError, MissingRuntime, UsageError
from lmconv.inference.latency import latency
from lmconv.sources.resolve import recover
from lmconv.store import artifact as artifacts
from lmconv.trt import device, driver
from lmconv.trt.faults import Fault
from lmconv.trt.timing import KINDS
from lmconv.trt.turns import BLOCKS, LIMIT, Turns, Worker, in_turn, python
from lmconv.types import Artifact, Json

SWEEP = tuple(2**power for power in range(9))
"""Batch sizes of `--sweep`: 1, 2, 4, ... 256."""
COMPILING = 900.0
"""Time limit in seconds for PyTorch to compile a network for one batch size."""
BASELINES = ("torch", "compiled", "plain")
"""Baselines of the artefacts: PyTorch eager, PyTorch compiled, and the plain graph in ONNX Runtime fp32."""
IDLE = 5.0
"""Largest GPU load before timing, in percent, that is not reported as use by others."""
NORMAL = ("idle", "application clocks", "display clocks")
"""Reasons of lowered clocks that do not point to a lack of power or cooling."""

Where = Literal["cpu", "gpu"]


@dataclass(slots=True, kw_only=True)
class Rows(benching.Rows):
    """Rows of `lmconv bench --json`, the GPU's states, and the errors of failed artefacts by path."""

    states: list[Json] = field(default_factory=list)
    failed: dict[str, LmconvError] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """An artefact or a baseline to time.

    Attributes:
        name: Path of the artefact, or name of the baseline.
        command: Command that serves the contestant.
        artifact: The artefact; None for a baseline.
        limit: Time limit of a reply in seconds.
    """

    name: str
    command: list[str]
    artifact: Artifact | None = None
    limit: float = LIMIT


def ready() -> Json:
    """Returns the GPU's description and its state before any work.

    Returns:
        `gpu`, its description; `states`, a list with the state at the `start`.

    Raises:
        MissingRuntime: If this machine has no GPU or no driver.
    """
    try:
        found = driver.describe()
    except Fault as fault:
        message = f"there is no GPU to time on: {fault.message}"
        raise MissingRuntime(
            message, hint="use --device cpu, or a machine with an NVIDIA GPU and its driver"
        ) from fault
    try:
        found |= device.describe()  # more keys if TensorRT is installed
    except Fault:
        found |= {"tensorrt": None}
    return {"gpu": found, "states": [{"when": "start", **device.state()}]}


def load(path: Path, settings: Settings, batches: Sequence[int]) -> Artifact:
    """Reads an artefact and checks that it can be timed on a GPU.

    Opens the artefact once, because its target then runs its own checks.

    Args:
        path: Folder of the artefact.
        settings: Settings of the benchmark.
        batches: Batch sizes to time.

    Raises:
        InputError: If the artefact is missing or broken, or has another fixed batch size.
        MissingRuntime: If its runtime or the GPU is missing, or if its target is timed on the CPU only.
    """
    artifact = benching.load(path, settings, batches)
    if artifact.target not in ("onnx", "tensorrt"):
        raise MissingRuntime(f"{path}: the {artifact.target} target is not timed on a GPU", hint="use --device cpu")
    return artifact


def bench(
    group: list[Artifact],
    settings: Settings,
    batches: Sequence[int],
    step: Callable[[], object] = lambda: None,
    *,
    where: Where = "gpu",
) -> Rows:
    """Times the artefacts of one network interleaved with its baselines; stores the result in the manifests.

    Args:
        group: Artefacts of the same source with the same kind of input.
        settings: Settings of the benchmark; `samples` is the number per contestant and batch size.
        batches: Batch sizes to time.
        step: Called whenever a contestant has been timed.
        where: "cpu" rehearses without a GPU: wall times only, and no engine.

    Returns:
        The rows, notes, states and errors.
    """
    rows = Rows()
    with ExitStack() as stack:
        running = _opened(_contestants(group, settings, where, rows), stack, rows)
        for batch in batches:
            failed = _time(_able(running, batch), batch, settings, rows, step, where)
            running = [one for one in running if one[0].name not in failed]
        _unable(running, batches, rows)
    for artifact in group:
        mine = [row for row in rows.artifacts if row["path"] == str(artifact.path)]
        if mine:
            kept = [{key: value for key, value in row.items() if key != "path"} for row in mine]
            artifacts.record(artifact, latency_gpu={"rows": kept})
    return rows


Running = tuple[Contestant, Worker, Json]
"""A contestant, its process, and the contestant's reply to "about"."""


def _contestants(group: list[Artifact], settings: Settings, where: Where, rows: Rows) -> list[Contestant]:
    """Returns all contestants, and notes which baselines are missing."""
    first = group[0]
    found: list[Contestant] = []
    source = recover(first, settings.weights, settings.model)
    if source is None or source.kind == "onnx":
        rows.notes.append(f"{first.spec.name}: ratio_torch is null: its PyTorch network is not at hand")
    else:
        line: list[str | Path] = [first.path, "--device", "cuda" if where == "gpu" else "cpu"]
        line += ["--weights", settings.weights] if settings.weights else []
        line += ["--model", settings.model] if settings.model else []
        eager = python("lmconv.contestants.pytorch", *line)
        found.append(Contestant(name="torch", command=eager))
        found.append(Contestant(name="compiled", command=[*eager, "--compiled"], limit=COMPILING))
    if plain := plain_of(group):
        found.append(Contestant(name="plain", command=_ort(plain, where)))
    else:
        rows.notes.append(f"{first.spec.name}: ratio_plain is null: its plain graph is not beside it")
    for artifact in group:
        engine = artifact.target == "tensorrt"
        command = _engine(artifact) if engine else _ort(artifact, where)
        found.append(Contestant(name=str(artifact.path), command=command, artifact=artifact))
    return found


def _engine(artifact: Artifact) -> list[str]:
    """Returns the command for an engine. The sha256 ensures that exactly the file runs that `load` has checked."""
    path = artifacts.model_file(artifact, ".engine")
    return python("lmconv.trt.worker", path, artifact.files[path.name])


def _ort(artifact: Artifact, where: Where) -> list[str]:
    return python("lmconv.contestants.ort", artifact.path, "--device", where)


def _opened(contestants: Iterable[Contestant], stack: ExitStack, rows: Rows) -> list[Running]:
    """Starts all contestants; a contestant that cannot be opened is reported and left out."""
    found: list[Running] = []
    for contestant in contestants:
        try:
            worker = stack.enter_context(Worker(contestant.command, contestant.name, limit=contestant.limit))
            said = worker.ask(do="about")["about"]
        except Fault as fault:
            _failed(contestant.name, contestant.artifact, fault, rows)
            continue
        found.append((contestant, worker, said))
        if caveat := said.get("caveat"):
            rows.notes.append(f"{contestant.name}: {caveat}")
    return found


def _failed(name: str, artifact: Artifact | None, fault: Fault, rows: Rows) -> None:
    """Reports a failure: as an error for an artefact, as a note for a baseline."""
    if artifact:
        rows.failed[name] = known(fault)
    else:
        rows.notes.append(f"ratio_{name} is null: {fault}")


def known(fault: Fault) -> LmconvError:
    """Returns a worker's Fault as an error of lmconv, with an exit code. The kind identifies lmconv's own errors."""
    kinds: dict[str, type[LmconvError]] = {"input": InputError, "shape": InputError, "usage": UsageError, "bug": Bug}
    return kinds.get(fault.kind, MissingRuntime)(fault.message, hint=fault.hint)


def takes(batches: Sequence[int], fixed: int | None, profile: Sequence[int] | None) -> list[int]:
    """Returns the batch sizes that an artefact accepts.

    Args:
        batches: Batch sizes to choose from.
        fixed: Fixed batch size of the artefact; None if the batch is free.
        profile: Minimum, optimum and maximum batch size of the profile; None without a profile.
    """
    low, _, high = profile or (1, 1, max(batches))
    return [batch for batch in batches if (batch == fixed if fixed else low <= batch <= high)]


def _of(running: Running, batches: Sequence[int]) -> list[int]:
    contestant, _, said = running
    return takes(batches, contestant.artifact.spec.batch if contestant.artifact else None, said.get("batches"))


def _able(running: Iterable[Running], batch: int) -> list[Running]:
    return [one for one in running if _of(one, [batch])]


def _unable(running: Iterable[Running], batches: Sequence[int], rows: Rows) -> None:
    """Reports the batch sizes that an artefact does not accept; an artefact that accepts none has failed."""
    for one in running:
        artifact, taken = one[0].artifact, _of(one, batches)
        out = [batch for batch in batches if batch not in taken]
        if artifact is None or not out:
            continue
        named = ", ".join(map(str, out))
        if artifact.spec.batch:
            rows.notes.append(f"{artifact.path}: {named} inputs a run are left out: it takes {artifact.spec.batch}")
            continue
        low, best, high = one[2]["batches"]
        message = f"{artifact.path}: {named} inputs a run are left out: its engine takes {low} to {high}"
        hint = f"export it with --batch {min(low, *out)}:{best}:{max(high, *out)}"
        if taken:
            rows.notes.append(f"{message} ({hint})")
        else:
            rows.failed[str(artifact.path)] = InputError(message, hint=hint)


def _time(
    running: list[Running], batch: int, settings: Settings, rows: Rows, step: Callable[[], object], where: Where
) -> set[str]:
    """Times contestants with one batch size; adds rows, states and notes. Returns the names of failed contestants."""
    if not any(one[0].artifact for one in running):
        return set()
    state = device.state if where == "gpu" else dict
    found = in_turn([worker for _, worker, _ in running], batch, settings.samples, BLOCKS, state=state, step=step)
    model = next(one[0].artifact.spec.name for one in running if one[0].artifact)
    rows.states += [{"model": model, "batch": batch, **seen} for seen in found.states]
    for contestant, _, said in running:
        if fault := found.faults.get(contestant.name):
            _failed(contestant.name, contestant.artifact, fault, rows)
            continue
        row = _described(contestant, model, said, settings) | figures(found, contestant.name, batch)
        (rows.artifacts if contestant.artifact else rows.baselines).append(row)
        if not row["warm_up"]["settled"]:
            rows.notes.append(f"{contestant.name}: its times had not settled after {row['warm_up']['seconds']:.0f} s")
    return set(found.faults)


def _described(contestant: Contestant, model: str, said: Json, settings: Settings) -> Json:
    run = {"timed": "run", "caveat": said.get("caveat", ""), "device": settings.device, "threads": None}
    if contestant.artifact:
        return about(contestant.artifact) | run
    what = {"path": None, "model": model, "target": contestant.name, "precision": "fp32", "io": "tensor"}
    return what | {"execution": {"tf32": False}} | run


Times = Mapping[str, Sequence[float]]
"""Milliseconds of one contestant, by kind."""


def figures(found: Turns, name: str, batch: int) -> Json:
    """Returns the part of a row that follows from the times of one contestant.

    `median_ms`, the interval and the percentiles are host times, from arrays to arrays. `throughput`, in inputs per
    second, and the ratios use GPU times: for this contestant the time of the CUDA graph, if captured; for the baselines
    the time launched kernel by kernel.

    Args:
        found: Result of the interleaved timing.
        name: Name of the contestant.
        batch: Inputs per run.
    """
    mine = found.times[name]
    left_out, warm_up = found.left_out[name], found.warm_up[name]
    gpu = {kind: dataclasses.asdict(latency(np.array(mine[kind]))) if kind in mine else None for kind in KINDS}
    ratios = {f"ratio_{base}": ratio(found.times.get(base), mine) for base in BASELINES}
    return {
        "batch": batch,
        **dataclasses.asdict(latency(np.array(mine["wall"]))),
        **ratios,
        "throughput": batch / gpu_ms(mine) * 1000,
        "gpu": {kind: gpu[kind] for kind in KINDS if kind != "wall"} | {"left_out": left_out},
        "warm_up": {key: value for key, value in warm_up.items() if key != "windows"},
    }


def gpu_ms(times: Times) -> float:
    """Returns the median GPU time: as a CUDA graph, if captured; else kernel by kernel; else the host's time."""
    return float(np.median(next(times[kind] for kind in ("graph", "execute", "wall") if kind in times)))


def ratio(base: Times | None, mine: Times) -> float | None:
    """Returns the speed-up against a baseline that is launched kernel by kernel; None if the baseline was not timed."""
    if base is None:
        return None
    return float(np.median(base["execute" if "execute" in base else "wall"])) / gpu_ms(mine)


def remarks(states: Sequence[Json]) -> list[str]:
    """Returns remarks about the GPU's states for the user: lowered clocks, and use of the GPU by others."""
    said = []
    during = [seen for seen in states if str(seen["when"]).startswith("after")]
    slowed = [seen for seen in during if set(seen.get("throttle") or ()) - set(NORMAL)]
    if slowed:
        reasons = sorted({reason for seen in slowed for reason in seen["throttle"] if reason not in NORMAL})
        times = f"in {len(slowed)} of {len(during)} looks"
        said.append(f"the GPU's clocks were slowed ({', '.join(reasons)}) {times}: ratios hold, times may not")
    busy = max((seen.get("utilisation_percent") or 0 for seen in states if seen["when"] == "start"), default=0)
    if busy > IDLE:
        said.append(f"the GPU was in use, {busy:.0f} %, before anything was timed: others work on it")
    return said
