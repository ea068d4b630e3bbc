"""Times the artefacts of one network on the CPU, together with the network itself and its plain graph.

Artefacts that take the network's own input are timed on it. Those that take images or frames do work of the host too:
they, and what they are compared with, are timed from a frame and boxes to landmarks in it.
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
class Settings:
    """How to time: device, intra-op threads, inputs a run, timed runs; where the network is, see `source.recover`.

    For `trust` see `OpenOptions`.
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
        """The part that a session is opened with."""
        return OpenOptions(device=self.device, threads=self.threads, trust=self.trust)


@dataclass(slots=True, kw_only=True)
class Rows:
    """Rows of `lmconv bench --json`, those of the baselines apart, and what a person should know."""

    artifacts: list[Json] = field(default_factory=list)
    baselines: list[Json] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def load(path: Path, settings: Settings, batches: Sequence[int] = ()) -> Artifact:
    """Reads an artefact and checks that it can be timed so; with one of these batch sizes, where some are given.

    Raises:
        InputError: It is missing or broken, or has another fixed batch size.
        MissingRuntime: Its runtime or the device is not here.
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
    """Artefacts of the same source that take the same together, in the order given."""
    groups: dict[tuple[object, ...], list[Artifact]] = {}
    for artifact in loaded:
        spec = artifact.spec
        key = (spec.name, spec.backbone, spec.input_size, spec.landmarks, artifact.parents["source"]["sha256"], spec.io)
        groups.setdefault(key, []).append(artifact)
    return list(groups.values())


def bench(group: list[Artifact], settings: Settings, step: Callable[[], object] = lambda: None) -> Rows:
    """Times the artefacts of one network in turn, with its baselines; records the result in their manifests.

    `step` is called after every round.
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
        whole = interface_of(first.spec).from_frame
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
        caveats = {name: session.execution_mismatch for name, session in sessions.items()}
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
        rows.notes += [
            f"{artifact.path}: {said}" for said in (row["caveat"], artifacts.forced_reason(artifact)) if said
        ]
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
    """What a row of `lmconv bench --json` says of an artefact before its times."""
    return summary(artifact, "size") | {"timed": _timed(artifact), "execution": artifact.execution}


def _timed(artifact: Artifact) -> str:
    """What the times of an artefact and its baselines are of."""
    return interface_of(artifact.spec).timed


def _torch(artifact: Artifact, settings: Settings, rows: Rows) -> Session | None:
    """The PyTorch network, where it is at hand; an ONNX source has none."""
    source = recover(artifact, settings.weights, settings.model)
    if source is None or source.kind == "onnx":
        rows.notes.append(f"{artifact.spec.name}: ratio_torch is null: its PyTorch network is not at hand")
        return None
    return open_source(source, threads=settings.threads)


def _plain(group: list[Artifact], settings: Settings, rows: Rows) -> Session | None:
    """The plain graph in ONNX Runtime fp32, where it is at hand."""
    plain = plain_of(group)
    if plain is None:
        rows.notes.append(f"{group[0].spec.name}: ratio_plain is null: its plain graph is not beside it")
        return None
    return TARGETS.load(plain.target).open(plain, settings.options)


def plain_of(group: list[Artifact]) -> Artifact | None:
    """The plain graph that is kept beside artefacts, if it is still the one they came from."""
    wanted = {artifact.parents["plain"]["sha256"] for artifact in group}
    for path in dict.fromkeys(artifact.path.parent / "plain" for artifact in group):
        try:
            plain = artifacts.read(path)
        except InputError:
            continue
        if {plain.files["model.onnx"]} == wanted and plain.precision == Precision.FP32:
            return plain
    return None
