"""Times the artefacts of one network on the CPU, interleaved with the PyTorch network and the plain graph.

An artefact with the network's own input is timed on this input. An artefact with images or frames as input replaces
work of the host. Such artefacts and their baselines are therefore timed from a frame and bounding boxes to landmarks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from lmconv.errors import InputError
from lmconv.inference.latency import interleaved, latency
from lmconv.inference.loading import usable
from lmconv.inference.scenes import scene, whole_way
from lmconv.inference.session import noise
from lmconv.plugins import TARGETS
from lmconv.sources.resolve import open_source, recover
from lmconv.store import artifact as artifacts
from lmconv.types import Artifact, Float64, Json, ModelSpec, OpenOptions, Precision, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
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
    def options(self) -> OpenOptions:
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


def load(path: Path, settings: Settings, batches: Sequence[int] = ()) -> Artifact:
    """Reads an artefact and checks that this machine can time the artefact; opens the artefact once for the check.

    Args:
        path: Folder of the artefact.
        settings: Options of the benchmark.
        batches: Batch sizes to time; empty for the batch size of `settings`.

    Raises:
        InputError: The artefact is missing or broken, or has another fixed batch size.
        MissingRuntime: The runtime or the device of the artefact is missing.
    """
    artifact = artifacts.read(path)
    target = usable(artifact, settings.options)
    fixed, asked = artifact.spec.batch, batches or (settings.batch,)
    if fixed is not None and fixed not in asked:
        others = ", ".join(map(str, asked))
        raise InputError(f"{path} takes {fixed} inputs a run, not {others}", hint=f"use --batch {fixed}")
    with target.open(artifact, settings.options):
        return artifact


def group(loaded: Iterable[Artifact]) -> list[list[Artifact]]:
    """Groups artefacts by source network and kind of input, in the given order; a group is timed together."""
    groups: dict[tuple[object, ...], list[Artifact]] = {}
    for artifact in loaded:
        spec = artifact.spec
        key = (spec.name, spec.backbone, spec.input_size, spec.landmarks, artifact.parents["source"]["sha256"], spec.io)
        groups.setdefault(key, []).append(artifact)
    return list(groups.values())


def bench(group: list[Artifact], settings: Settings, step: Callable[[], object] = lambda: None) -> Rows:
    """Times the artefacts of one network interleaved with the baselines; records the result in the manifests.

    Args:
        group: Artefacts of the same source with the same kind of input.
        settings: Options of the benchmark.
        step: Called after every round.

    Returns:
        The rows and notes.
    """
    rows = Rows()
    first = group[0]
    if first.spec.sample:
        size = "x".join(map(str, first.spec.sample))
        rows.notes.append(f"{first.spec.name} takes pictures of any size: timed at {size}; --input of export fixes one")
    inputs = {"input": noise(first.spec, settings.batch, 0)}
    faces = scene(settings.batch, 0)
    network = replace(first.spec, io="tensor")

    def run(session: Session, spec: ModelSpec) -> Callable[[], object]:
        whole = first.spec.io != "tensor"
        return whole_way(session, spec, faces) if whole else lambda: session.run(inputs)

    with ExitStack() as stack:
        sessions: dict[str, Session] = {}
        for name, opened in (("torch", _torch(first, settings, rows)), ("plain", _plain(group, settings, rows))):
            if opened:
                sessions[name] = stack.enter_context(opened)
        baselines = list(sessions)
        for artifact in group:
            target = TARGETS.load(artifact.target)
            sessions[str(artifact.path)] = stack.enter_context(target.open(artifact, settings.options))
        caveats = {name: session.caveat for name, session in sessions.items()}
        specs = [*(network for _ in baselines), *(artifact.spec for artifact in group)]
        runs = [run(session, spec) for session, spec in zip(sessions.values(), specs, strict=True)]
        times = dict(zip(sessions, interleaved(runs, settings.samples, step), strict=True))
    for name in baselines:
        execution = {"threads": settings.threads}
        what = {"path": None, "model": first.spec.name, "target": name, "precision": "fp32", "execution": execution}
        what |= {"io": "tensor", "timed": _timed(first)}
        rows.baselines.append(what | _row(times[name], times, settings))
    for artifact in group:
        row = (
            about(artifact) | {"caveat": caveats[str(artifact.path)]} | _row(times[str(artifact.path)], times, settings)
        )
        rows.notes += [f"{artifact.path}: {said}" for said in (row["caveat"], artifacts.doubt(artifact)) if said]
        rows.artifacts.append(row)
        artifacts.record(artifact, latency={key: value for key, value in row.items() if key != "path"})
    return rows


def _row(mine: Float64, times: dict[str, Float64], settings: Settings) -> Json:
    middle = float(np.median(mine))
    ratios = {
        f"ratio_{name}": float(np.median(times[name])) / middle if name in times else None
        for name in ("torch", "plain")
    }
    run = {"device": settings.device, "threads": settings.threads, "batch": settings.batch}
    return run | dataclasses.asdict(latency(mine)) | ratios


def about(artifact: Artifact) -> Json:
    """Returns the part of a row of `lmconv bench --json` that describes the artefact."""
    return {
        "path": str(artifact.path),
        "model": artifact.spec.name,
        "target": artifact.target,
        "precision": str(artifact.precision),
        "io": artifact.spec.io,
        "size": list(artifact.spec.input_size),
        "timed": _timed(artifact),
        "execution": artifact.execution,
    }


def _timed(artifact: Artifact) -> str:
    """Returns the timed work of an artefact and its baselines, as in the key `timed` of a row."""
    return "run" if artifact.spec.io == "tensor" else "frame and boxes to landmarks"


def _torch(artifact: Artifact, settings: Settings, rows: Rows) -> Session | None:
    """Opens the PyTorch network. Returns None after a note if the network is missing, or if the source is ONNX."""
    source = recover(artifact, settings.weights, settings.model)
    if source is None or source.kind == "onnx":
        rows.notes.append(f"{artifact.spec.name}: ratio_torch is null: its PyTorch network is not at hand")
        return None
    return open_source(source, threads=settings.threads)


def _plain(group: list[Artifact], settings: Settings, rows: Rows) -> Session | None:
    """Opens the plain graph in ONNX Runtime fp32. Returns None after a note if the plain graph is missing."""
    onnx = TARGETS.load("onnx")
    plain = plain_of(group)
    if plain is None:
        rows.notes.append(f"{group[0].spec.name}: ratio_plain is null: its plain graph is not beside it")
        return None
    return onnx.open(plain, settings.options)


def plain_of(group: list[Artifact]) -> Artifact | None:
    """Returns the plain graph beside the artefacts if all of them were made from this graph; otherwise None."""
    wanted = {artifact.parents["plain"]["sha256"] for artifact in group}
    for path in dict.fromkeys(artifact.path.parent / "plain" for artifact in group):
        try:
            plain = artifacts.read(path)
        except InputError:
            continue
        if {plain.files["model.onnx"]} == wanted and plain.precision == Precision.FP32:
            return plain
    return None
