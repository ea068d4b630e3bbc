"""Builds and times graphs on a target without writing artefacts."""

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
from lmconv.inference.latency import ROUNDS, paced
from lmconv.inference.session import noise
from lmconv.plugins import PASSES
from lmconv.types import Artifact, BuildOptions, Float64, OpenOptions, PassContext, Precision, Session, Target

if TYPE_CHECKING:
    import onnx

TIMED_S = 1.0
"""Approximate duration of timing, seconds; slow graphs take longer, because nine rounds are the minimum."""
MOST = 30
"""Largest number of rounds of blocks."""
ALONE = BuildOptions(profile=(1, 1, 64))
"""Build options for timing: engines are optimised for one input."""


@contextmanager
def opened(
    artifact: Artifact, target: Target, model: onnx.ModelProto, precision: Precision, threads: int = 0
) -> Iterator[Session]:
    """Yields a session on a graph, built for a target in a temporary folder.

    Args:
        artifact: An artefact of the network.
        target: The target.
        model: The graph.
        precision: Precision hint passed to the runtime.
        threads: Intra-op threads, see `OpenOptions`.
    """
    for name in target.last(model):
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
) -> list[Float64]:
    """Times graphs on one target, see `timed_together`.

    Args:
        artifact: An artefact of the network.
        target: The target.
        models: The graphs.
        precision: Precision hint passed to the runtime, one for all graphs or one for each.
        seconds: Approximate duration, see `TIMED_S`.
        clock: Returns nanoseconds, see `Target.clock`.

    Returns:
        For each graph (rounds, timed) float64, milliseconds.
    """
    hints = [precision] * len(models) if isinstance(precision, Precision) else precision
    return timed_together(
        artifact, [(target, model, hint) for model, hint in zip(models, hints, strict=True)], seconds, clock=clock
    )


def timed_together(
    artifact: Artifact,
    graphs: Sequence[tuple[Target, onnx.ModelProto, Precision]],
    seconds: float = TIMED_S,
    *,
    rounds: int = ROUNDS,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> list[Float64]:
    """Times graphs in blocks, each on its target, with one thread and one input or the fixed batch of the network.

    Args:
        artifact: An artefact of the network.
        graphs: Target, graph, and precision hint passed to the runtime.
        seconds: Approximate duration, see `TIMED_S`.
        rounds: Smallest number of rounds.
        clock: Returns nanoseconds, see `Target.clock`.

    Returns:
        For each graph (rounds, timed) float64, milliseconds, see `lmconv.inference.latency.interleaved`.
    """
    spec = artifact.spec
    inputs = {"input": noise(spec, spec.batch or 1, 0)}
    with ExitStack() as stack:
        runs = [
            functools.partial(stack.enter_context(opened(artifact, target, model, hint, threads=1)).run, inputs)
            for target, model, hint in graphs
        ]
        return paced(runs, seconds, MOST, rounds=rounds, clock=clock)
