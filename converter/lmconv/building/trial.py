"""Graphs tried on a target before one of them becomes an artefact."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lmconv.graph.facts import copied
from lmconv.inference.latency import paced
from lmconv.inference.session import noise
from lmconv.plugins import PASSES
from lmconv.types import Artifact, BuildOptions, Float64, OpenOptions, PassContext, Precision, Session, Target

if TYPE_CHECKING:
    import onnx

TIMED_S = 1.0
"""About how long timing graphs may take, seconds, unless they are so slow that 15 rounds and a warm-up take longer."""
MOST = 300
"""Rounds at most."""
ALONE = BuildOptions(profile=(1, 1, 64))
"""One input is what is timed."""


@contextmanager
def opened(
    artifact: Artifact, target: Target, model: onnx.ModelProto, precision: Precision, threads: int = 0
) -> Iterator[Session]:
    """A graph of an artefact's network, built for a target and loaded.

    Args:
        artifact: Whose network it is.
        target: What runs it.
        model: The graph.
        precision: What the runtime is told.
        threads: See `OpenOptions`.
    """
    for name in target.last():
        model, _ = PASSES.load(name).apply(copied(model), PassContext(spec=artifact.spec))
    with tempfile.TemporaryDirectory() as path:
        built = target.build(model, Path(path), artifact.spec, precision, ALONE)
        files = {file.name: "" for file in Path(path).iterdir()}
        made = replace(artifact, path=Path(path), files=files, precision=precision)
        made = replace(made, execution=built.execution, machine=built.machine)
        with target.open(made, OpenOptions(threads=threads)) as session:
            yield session


def timed(
    artifact: Artifact,
    target: Target,
    models: Sequence[onnx.ModelProto],
    precision: Precision | Sequence[Precision] = Precision.FP32,
    seconds: float = TIMED_S,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Float64:
    """Times graphs on a target, one thread, one input or the batch size that the network is tied to, in turn.

    Args:
        artifact: Whose network it is.
        target: What runs them.
        models: The graphs.
        precision: What the runtime is told, of all or of each.
        seconds: About how long, unless they are so slow that 15 rounds and a warm-up take longer.
        clock: Nanoseconds. That of the process counts its work alone, whatever else the machine does.

    Returns:
        (models, samples) float64, milliseconds.
    """
    spec = artifact.spec
    inputs = {"input": noise(spec, spec.batch or 1, 0)}
    told = [precision] * len(models) if isinstance(precision, Precision) else precision
    with ExitStack() as stack:
        runs = [
            functools.partial(stack.enter_context(opened(artifact, target, model, each, threads=1)).run, inputs)
            for model, each in zip(models, told, strict=True)
        ]
        return paced(runs, seconds, MOST, clock=clock)
