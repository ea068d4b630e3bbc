"""Times the artefacts of one network on the CPU, in one run with the PyTorch network and the plain graph.

An artefact with the network's own input is timed on this input. An artefact with images or frames as input replaces
work of the host. Such artefacts and their baselines are therefore timed from a frame and bounding boxes to landmarks.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from lmconv.benching import measuring
from lmconv.benching.baselines import Baseline, baselines, is_plain
from lmconv.benching.measuring import Contestant, Progress, Times
from lmconv.benching.options import Rows, TimingOptions
from lmconv.console import Console, phase
from lmconv.errors import InputError, LmconvError
from lmconv.inference.latency import faster, latency, run_seconds
from lmconv.inference.loading import usable
from lmconv.inference.scenes import whole_way
from lmconv.inference.session import noise
from lmconv.inference.streams import open_streams
from lmconv.networks.interfaces import interface_of
from lmconv.networks.seeded import scene
from lmconv.plugins import TARGETS
from lmconv.store import artifact as artifacts
from lmconv.store.summary import summary
from lmconv.types import Artifact, Json, ModelSpec, Session

SILENT: Progress = Console(quiet=True).progress
RATIOS = ("torch", "plain", "flushed")
"""Baselines by which the time of an artefact is divided; a plain graph without denormals is its own flushed graph."""


def load_artifact(path: Path, options: TimingOptions, batches: Sequence[int] = ()) -> Artifact:
    """Reads an artefact and checks that this machine can time the artefact.

    Args:
        path: Folder of the artefact.
        options: Options of the benchmark.
        batches: Batch sizes to time; empty for the batch size of `options`.

    Raises:
        InputError: The artefact is missing or broken, or has another fixed batch size.
        MissingRuntime: The runtime of the artefact is missing, or the artefact was built for another machine.
    """
    artifact = artifacts.read(path)
    usable(artifact, options.open_options)
    fixed, requested = artifact.spec.batch, batches or (options.batch,)
    if fixed is not None and fixed not in requested:
        sizes = ", ".join(map(str, requested))
        raise InputError(f"{path} takes {fixed} inputs per run, not {sizes}", hint=f"use --batch {fixed}")
    return artifact


def group_by_source(loaded: Iterable[Artifact]) -> list[list[Artifact]]:
    """Groups artefacts by source network and kind of input, in the given order; a group is timed together."""
    groups: dict[tuple[object, ...], list[Artifact]] = {}
    for artifact in loaded:
        spec = artifact.spec
        key = (spec.name, spec.backbone, spec.input_size, spec.landmarks, artifact.parents["source"]["sha256"], spec.io)
        groups.setdefault(key, []).append(artifact)
    return list(groups.values())


def bench(group: list[Artifact], options: TimingOptions, progress: Progress = SILENT) -> Rows:
    """Times the artefacts of one network in one run with the baselines; records the result in the manifests.

    Args:
        group: Artefacts of the same source with the same kind of input; a plain graph among them is a baseline only.
        options: Options of the benchmark.
        progress: Shows the state of every part that may take seconds.

    Returns:
        The rows, notes and errors.
    """
    rows, spec = Rows(), group[0].spec
    if spec.sample:
        size = "x".join(map(str, spec.sample))
        hint = "lmconv export --input fixes a size"
        rows.notes.append(f"{spec.name} takes pictures of any size and is timed at {size} ({hint})")
    titled: Progress = lambda steps, label: progress(steps, f"{spec.name}: {label}")  # noqa: E731
    with ExitStack() as stack:
        contestants = _opened(group, options, stack, rows, titled)
        if len(rows.failed) == len(group):
            return rows
        warm = measuring.warm(contestants, options, titled)
        cold = measuring.cold(contestants, titled) if options.cold else {}
    streams = measuring.streams(contestants, options.streams, options, titled) if options.streams else {}
    for contestant in contestants:
        name, artifact = contestant.name, contestant.artifact
        fields = _latency_fields(warm, name, options)
        fields |= {"cold": _cold_fields(cold, name), "streams": _stream_fields(streams, name, options)}
        if artifact is None:
            rows.baselines.append(_baseline_fields(name, group[0], options) | fields)
            continue
        row = artifact_fields(artifact) | {"caveat": contestant.caveat} | fields
        warnings = (contestant.caveat, artifacts.forced_reason(artifact))
        rows.notes += [f"{name}: {warning}" for warning in warnings if warning]
        rows.artifacts.append(row)
        artifacts.record(artifact, latency={key: value for key, value in row.items() if key != "path"})
    return rows


def _opened(
    group: list[Artifact], options: TimingOptions, stack: ExitStack, rows: Rows, progress: Progress
) -> list[Contestant]:
    """Opens baselines and artefacts, which `stack` closes, and runs each twice; a failure is an error in `rows`."""
    named = [artifact for artifact in group if not is_plain(artifact)]
    contestants: list[Contestant] = []
    with progress(len(named) + 1, "opening") as step:
        with phase("baselines"):
            for baseline in baselines(group, options, rows):
                session = stack.enter_context(baseline.open())
                contestants.append(_baseline(baseline, session, group[0].spec, options.batch))
        step()
        for artifact in named:
            try:
                session = stack.enter_context(TARGETS.load(artifact.target).open(artifact, options.open_options))
                contestants.append(_artefact(artifact, session, options))
            except LmconvError as error:
                rows.failed[str(artifact.path)] = error
            step()
    return contestants


def _baseline(baseline: Baseline, session: Session, spec: ModelSpec, batch: int) -> Contestant:
    """Returns a baseline of artefacts with this spec, ready to be timed."""
    network = replace(spec, io="tensor")
    run = _work(session, network, batch, from_frame=interface_of(spec).from_frame)
    comparable = not interface_of(spec).from_frame  # otherwise an artefact alone does more than the network alone
    return Contestant(
        name=baseline.name,
        run=run,
        seconds=run_seconds(run),
        inputs={"input": noise(network, batch, 0)},
        open_streams=baseline.open_streams if comparable and baseline.parallel else None,
    )


def _artefact(artifact: Artifact, session: Session, options: TimingOptions) -> Contestant:
    """Returns an artefact, ready to be timed."""
    interface = interface_of(artifact.spec)
    run = _work(session, artifact.spec, options.batch, from_frame=interface.from_frame)
    return Contestant(
        name=str(artifact.path),
        run=run,
        seconds=run_seconds(run),
        inputs=interface.timing_inputs(options.batch),
        open_streams=functools.partial(open_streams, artifact, options.open_options),
        artifact=artifact,
        caveat=session.execution_mismatch,
    )


def _work(session: Session, spec: ModelSpec, batch: int, *, from_frame: bool) -> Callable[[], object]:
    """Returns a function that computes the timed work of a session once."""
    if from_frame:
        return whole_way(session, spec, scene(batch, 0))
    return functools.partial(session.run, {"input": noise(spec, batch, 0)})


def _latency_fields(times: Times, name: str, options: TimingOptions) -> Json:
    """Returns the part of a row that follows from the warm runs."""
    run = {"device": options.device, "threads": options.threads, "batch": options.batch}
    return run | dataclasses.asdict(latency(times[name])) | _ratios(times, name)


def _cold_fields(times: Times, name: str) -> Json | None:
    """Returns the value of the key `cold` of a row; None if no cold runs were timed."""
    if name not in times:
        return None
    summary = dataclasses.asdict(latency(times[name]))
    return {key: summary[key] for key in ("samples", "median_ms", "low_ms", "high_ms")} | _ratios(times, name)


def _stream_fields(times: Times, name: str, options: TimingOptions) -> Json | None:
    """Returns the value of the key `streams` of a row; None if the contestant ran in no streams."""
    if name not in times:
        return None
    between = latency(times[name])
    rates = {"throughput": between.median_ms, "low": between.high_ms, "high": between.low_ms}
    rates = {key: options.batch * 1e3 / milliseconds for key, milliseconds in rates.items()}
    return {"count": options.streams} | rates | _ratios(times, name)


def _ratios(times: Times, name: str) -> Json:
    """Returns the speed-up of a contestant over each of `RATIOS`; null for a baseline that was not timed."""
    bases = {base: times.get(base) for base in RATIOS}
    if bases["flushed"] is None:
        bases["flushed"] = bases["plain"]  # the plain graph holds no denormals
    gains = {base: faster(before, times[name]) if before is not None else None for base, before in bases.items()}
    ratios: Json = {f"ratio_{base}": gain and gain.median for base, gain in gains.items()}
    flushed = gains["flushed"]
    return ratios | {"ratio_flushed_low": flushed and flushed.low, "ratio_flushed_high": flushed and flushed.high}


def artifact_fields(artifact: Artifact) -> Json:
    """Returns the part of a row of `lmconv bench --json` that describes the artefact."""
    return summary(artifact, "size") | {"timed": _timed(artifact), "execution": artifact.execution}


def _baseline_fields(name: str, artifact: Artifact, options: TimingOptions) -> Json:
    """Returns the part of a row that describes a baseline of an artefact."""
    row = {"path": None, "model": artifact.spec.name, "target": name, "precision": "fp32", "io": "tensor"}
    flushing = {"flush_denormal": True} if name == "torch" else {}
    return row | {"timed": _timed(artifact), "execution": {"threads": options.threads} | flushing}


def _timed(artifact: Artifact) -> str:
    """Returns the timed work of an artefact and its baselines, as in the key `timed` of a row."""
    return interface_of(artifact.spec).timed
