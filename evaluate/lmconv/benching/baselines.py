"""Baselines of the artefacts of one network: the PyTorch network and the plain graph, as published and flushed.

The plain graph runs in ONNX Runtime fp32. A published network may hold denormal weights, which some CPUs compute a
hundred times slower. The flushed baseline is the plain graph with zeros in their place: a ratio to this baseline says
what the artefact gains beyond that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lmconv.benching.options import Rows, TimingOptions
from lmconv.graph.denormals import flushed
from lmconv.inference.ort import OrtSession
from lmconv.inference.streams import ThreadStreams
from lmconv.plugins import TARGETS
from lmconv.sources.resolve import open_source, recover
from lmconv.store import artifact as artifacts
from lmconv.types import Artifact, Precision, Session, Streams

LABELS = {"torch": "PyTorch", "plain": "plain graph", "flushed": "plain graph without denormals"}
"""Baselines on a CPU, by the value of `target` in their rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A baseline that is available here.

    Attributes:
        name: Key of `LABELS`.
        open: Opens a session.
        parallel: True if several sessions run at the same time; one thread runs all networks of PyTorch, see
            `lmconv.sources.flushing`.
    """

    name: str
    open: Callable[[], Session]
    parallel: bool = True

    def open_streams(self, count: int) -> Streams:
        """Opens the baseline for several runs at the same time."""
        return ThreadStreams(self.open, count)


def baselines(group: list[Artifact], options: TimingOptions, rows: Rows) -> list[Baseline]:
    """Returns the available baselines of the artefacts of one network; a missing one becomes a note in `rows`."""
    return [*_torch(group[0], options, rows), *_plain(group, options, rows)] if options.baselines else []


def _torch(artifact: Artifact, options: TimingOptions, rows: Rows) -> list[Baseline]:
    """Returns the PyTorch network; empty after a note if the network is missing, or if the source is ONNX."""
    source = recover(artifact, options.weights, options.model)
    if source is None or source.kind == "onnx":
        rows.notes.append(f"{artifact.spec.name}: ratio_torch is null: the PyTorch network is not available")
        return []
    return [Baseline(name="torch", open=lambda: open_source(source, threads=options.threads), parallel=False)]


def _plain(group: list[Artifact], options: TimingOptions, rows: Rows) -> list[Baseline]:
    """Returns the plain graph, and the flushed one if they differ; empty after a note if the plain graph is missing."""
    plain, name = plain_of(group), group[0].spec.name
    if plain is None:
        rows.notes.append(f"{name}: ratio_plain is null: the plain graph is not beside the artefact")
        return []
    import onnx

    published = Baseline(name="plain", open=lambda: TARGETS.load("onnx").open(plain, options.open_options))
    model, count = flushed(onnx.load(artifacts.model_file(plain, ".onnx")))
    if not count:
        return [published]
    rows.notes.append(f"{name}: {count:,} weights of the plain graph are denormal; ratio_flushed counts them as zero")
    content = model.SerializeToString(deterministic=True)
    return [published, Baseline(name="flushed", open=lambda: OrtSession(content, threads=options.threads))]


def is_plain(artifact: Artifact) -> bool:
    """True for a plain graph, which is a baseline also where a user names its folder."""
    return "plain" not in artifact.parents


def plain_of(group: list[Artifact]) -> Artifact | None:
    """Returns the plain graph beside the artefacts if all artefacts were made from this graph; otherwise None."""
    parents = {artifact.parents["plain"]["sha256"] for artifact in group if not is_plain(artifact)}
    named = [artifact for artifact in group if is_plain(artifact)]
    for plain in (*named, *(artifacts.plain_beside(artifact) for artifact in group)):
        if plain and parents <= {plain.files["model.onnx"]} and plain.precision == Precision.FP32:
            return plain
    return None
