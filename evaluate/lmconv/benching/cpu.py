"""Times the artefacts of one network on the CPU, in one run with the PyTorch network and the plain graph.

An artefact with the network's own input is timed on this input. An artefact with images or frames as input replaces
work of the host. Such artefacts and their baselines are therefore timed from a frame and bounding boxes to landmarks.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Literal

from lmconv.errors import InputError
from lmconv.inference.latency import BLOCK, block_of, faster, interleaved, latency, run_seconds
from lmconv.inference.loading import usable
from lmconv.inference.scenes import whole_way
from lmconv.inference.session import noise
from lmconv.networks.interfaces import interface_of
from lmconv.networks.seeded import scene
from lmconv.plugins import TARGETS
from lmconv.sources.resolve import open_source, recover
from lmconv.store import artifact as artifacts
from lmconv.store.summary import summary
from lmconv.types import Artifact, Float64, Json, ModelSpec, OpenOptions, Precision, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingOptions:
    """Options of a benchmark.

    Attributes:
        device: Device that runs the artefacts.
        threads: Number of intra-op threads on the CPU.
        batch: Number of inputs per run.
        samples: Number of timed runs per artefact.
        weights: Checkpoint of the network, or a folder to search first, see `lmconv.sources.resolve.recover`.
        model: `FILE.py:NAME` of a user's own network, see `recover`; None if the user named no code to run.
        trust: See `OpenOptions`.
    """

    device: Literal["cpu", "gpu"] = "cpu"
    threads: int = 1
    batch: int = 1
    samples: int = 200
    weights: Path | None = None
    model: str | None = None
    trust: bool = False

    @property
    def rounds(self) -> int:
        """Number of rounds of blocks on the CPU."""
        return ceil(self.samples / BLOCK.timed)

    @property
    def open_options(self) -> OpenOptions:
        """Options for opening an artefact."""
        return OpenOptions(device=self.device, threads=self.threads, trust=self.trust)


@dataclass(slots=True, kw_only=True)
class Rows:
    """Result of a benchmark.

    Attributes:
        artifacts: Rows of `lmconv bench --json` for the artefacts.
        baselines: Rows for the PyTorch network and the plain graph.
        notes: Messages for the user.
    """

    artifacts: list[Json] = field(default_factory=list)
    baselines: list[Json] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def load_artifact(path: Path, options: TimingOptions, batches: Sequence[int] = ()) -> Artifact:
    """Reads an artefact and checks that this machine can time the artefact; opens the artefact once for the check.

    Args:
        path: Folder of the artefact.
        options: Options of the benchmark.
        batches: Batch sizes to time; empty for the batch size of `options`.

    Raises:
        InputError: The artefact is missing or broken, or has another fixed batch size.
        MissingRuntime: The runtime or the device of the artefact is missing.
    """
    artifact = artifacts.read(path)
    target = usable(artifact, options.open_options)
    fixed, requested = artifact.spec.batch, batches or (options.batch,)
    if fixed is not None and fixed not in requested:
        sizes = ", ".join(map(str, requested))
        raise InputError(f"{path} takes {fixed} inputs per run, not {sizes}", hint=f"use --batch {fixed}")
    with target.open(artifact, options.open_options):
        return artifact


def group_by_source(loaded: Iterable[Artifact]) -> list[list[Artifact]]:
    """Groups artefacts by source network and kind of input, in the given order; a group is timed together."""
    groups: dict[tuple[object, ...], list[Artifact]] = {}
    for artifact in loaded:
        spec = artifact.spec
        key = (spec.name, spec.backbone, spec.input_size, spec.landmarks, artifact.parents["source"]["sha256"], spec.io)
        groups.setdefault(key, []).append(artifact)
    return list(groups.values())


def bench(group: list[Artifact], options: TimingOptions, step: Callable[[], object] = lambda: None) -> Rows:
    """Times the artefacts of one network in one run with the baselines; records the result in the manifests.

    Args:
        group: Artefacts of the same source with the same kind of input.
        options: Options of the benchmark.
        step: Called after every round.

    Returns:
        The rows and notes.
    """
    rows = Rows()
    first = group[0]
    if first.spec.sample:
        size = "x".join(map(str, first.spec.sample))
        note = (
            f"{first.spec.name} takes pictures of any size and is timed at {size} (lmconv export --input fixes a size)"
        )
        rows.notes.append(note)
    with ExitStack() as stack:
        baselines = _open_baselines(group, options, stack, rows)
        sessions = dict(baselines)
        for artifact in group:
            target = TARGETS.load(artifact.target)
            sessions[str(artifact.path)] = stack.enter_context(target.open(artifact, options.open_options))
        caveats = {name: session.execution_mismatch for name, session in sessions.items()}
        network = replace(first.spec, io="tensor")
        specs = [*(network for _ in baselines), *(artifact.spec for artifact in group)]
        runs = _runs(first.spec, list(sessions.values()), specs, options.batch)
        blocks = [
            block_of(run_seconds(run)) if name in baselines else BLOCK for name, run in zip(sessions, runs, strict=True)
        ]
        times = dict(zip(sessions, interleaved(runs, options.rounds, step, blocks=blocks), strict=True))
    for name in baselines:
        execution = {"threads": options.threads}
        baseline = {"path": None, "model": first.spec.name, "target": name, "precision": "fp32", "execution": execution}
        baseline |= {"io": "tensor", "timed": _timed(first)}
        rows.baselines.append(baseline | _latency_fields(times[name], times, options))
    for artifact in group:
        name = str(artifact.path)
        row = artifact_fields(artifact) | {"caveat": caveats[name]} | _latency_fields(times[name], times, options)
        rows.notes += [
            f"{name}: {warning}" for warning in (row["caveat"], artifacts.forced_reason(artifact)) if warning
        ]
        rows.artifacts.append(row)
        artifacts.record(artifact, latency={key: value for key, value in row.items() if key != "path"})
    return rows


def _open_baselines(group: list[Artifact], options: TimingOptions, stack: ExitStack, rows: Rows) -> dict[str, Session]:
    """Opens the available baselines, which `stack` closes; a missing baseline becomes a note in `rows`."""
    opened = {"torch": _torch(group[0], options, rows), "plain": _plain(group, options, rows)}
    return {name: stack.enter_context(session) for name, session in opened.items() if session}


def _runs(
    spec: ModelSpec, sessions: Sequence[Session], specs: Sequence[ModelSpec], batch: int
) -> list[Callable[[], object]]:
    """Returns one function per session that computes the timed work once.

    Args:
        spec: Spec of an artefact of the group; its `io` selects the timed work.
        sessions: The baselines and the artefacts.
        specs: Spec of each session.
        batch: Number of inputs per run.
    """
    if interface_of(spec).from_frame:
        frame = scene(batch, 0)
        return [whole_way(session, each, frame) for session, each in zip(sessions, specs, strict=True)]
    inputs = {"input": noise(spec, batch, 0)}
    return [functools.partial(session.run, inputs) for session in sessions]


def _latency_fields(own_times: Float64, times: dict[str, Float64], options: TimingOptions) -> Json:
    """Returns the part of a row that follows from the times.

    Args:
        own_times: (rounds, timed) float64, milliseconds, of the artefact or baseline.
        times: The same for all artefacts and baselines, by name.
        options: Options of the benchmark.
    """
    ratios = {
        f"ratio_{name}": faster(times[name], own_times).median if name in times else None for name in ("torch", "plain")
    }
    run = {"device": options.device, "threads": options.threads, "batch": options.batch}
    return run | dataclasses.asdict(latency(own_times)) | ratios


def artifact_fields(artifact: Artifact) -> Json:
    """Returns the part of a row of `lmconv bench --json` that describes the artefact."""
    return summary(artifact, "size") | {"timed": _timed(artifact), "execution": artifact.execution}


def _timed(artifact: Artifact) -> str:
    """Returns the timed work of an artefact and its baselines, as in the key `timed` of a row."""
    return interface_of(artifact.spec).timed


def _torch(artifact: Artifact, options: TimingOptions, rows: Rows) -> Session | None:
    """Opens the PyTorch network. Returns None after a note if the network is missing, or if the source is ONNX."""
    source = recover(artifact, options.weights, options.model)
    if source is None or source.kind == "onnx":
        rows.notes.append(f"{artifact.spec.name}: ratio_torch is null: the PyTorch network is not available")
        return None
    return open_source(source, threads=options.threads)


def _plain(group: list[Artifact], options: TimingOptions, rows: Rows) -> Session | None:
    """Opens the plain graph in ONNX Runtime fp32. Returns None after a note if the plain graph is missing."""
    onnx = TARGETS.load("onnx")
    plain = plain_of(group)
    if plain is None:
        rows.notes.append(f"{group[0].spec.name}: ratio_plain is null: the plain graph is not beside the artefact")
        return None
    return onnx.open(plain, options.open_options)


def plain_of(group: list[Artifact]) -> Artifact | None:
    """Returns the plain graph beside the artefacts if all artefacts were made from this graph; otherwise None."""
    parents = {artifact.parents["plain"]["sha256"] for artifact in group}
    folders = dict.fromkeys(artifact.path.parent / artifacts.PLAIN for artifact in group)
    for folder in folders:
        try:
            plain = artifacts.read(folder)
        except InputError:
            continue
        if {plain.files["model.onnx"]} == parents and plain.precision == Precision.FP32:
            return plain
    return None
