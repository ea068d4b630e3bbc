"""Builds and times graphs on a target without writing artefacts; keeps the times of graphs that were timed together."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lmconv.graph.facts import copied
from lmconv.inference.latency import FEWEST_ROUNDS, ROUNDS, halved, paced
from lmconv.inference.session import noise
from lmconv.plugins import PASSES
from lmconv.types import Artifact, BuildOptions, Float64, OpenOptions, PassContext, Precision, Session, Target

if TYPE_CHECKING:
    import onnx

    Timer = Callable[..., list[Float64]]

TIMED_S = 1.0
"""Approximate duration of timing, seconds; slow graphs take longer, because nine rounds are the minimum."""
RACED_S = 0.5
"""Approximate duration of a race, seconds."""
MOST = 30
"""Largest number of rounds of blocks."""
ALONE = BuildOptions(profile=(1, 1, 64))
"""Build options for timing: engines are optimised for one input."""


Key = tuple[str, Precision, str]
"""Target, precision hint, and structure of a graph: everything on which the time of a graph depends."""


@dataclass(slots=True)
class Timings:
    """Times of the graphs of one network, kept so that nothing is timed twice.

    Only times of one race have a valid ratio.

    Attributes:
        races: Times of the graphs that were timed together: (rounds, timed) float64, milliseconds, by graph.
    """

    races: list[dict[Key, Float64]] = field(default_factory=list)

    def together(self, keys: Sequence[Key]) -> list[Float64] | None:
        """Returns the times of graphs from one race; None if the graphs were never timed together."""
        race = next((race for race in self.races if race.keys() >= set(keys)), None)
        return None if race is None else [race[key] for key in keys]


def key(target: Target, hint: Precision, model: onnx.ModelProto) -> Key:
    """Returns the key of a graph on a target with a precision hint, for `Timings`."""
    return target.name, target.floats(hint), structure(model)


def structure(model: onnx.ModelProto) -> str:
    """Returns a digest of everything on which the speed of a graph depends.

    The values of weights, biases and scales do not count. 64-bit integers count, because shapes and axes are such
    integers; of an 8-bit zero point counts only that it is zero, or not.
    """
    from onnx import TensorProto, numpy_helper

    graph, sha = model.graph, hashlib.sha256()
    for part in (*model.opset_import, *graph.input, *graph.output, *graph.node):
        sha.update(part.SerializeToString(deterministic=True))
    for tensor in graph.initializer:
        sha.update(repr((tensor.name, tuple(tensor.dims), tensor.data_type)).encode())
        if tensor.data_type == TensorProto.INT64:
            sha.update(numpy_helper.to_array(tensor).tobytes())
        elif tensor.data_type in (TensorProto.INT8, TensorProto.UINT8) and not tensor.dims:
            sha.update(bytes([bool(numpy_helper.to_array(tensor))]))
    return sha.hexdigest()


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
    timer: Timer = paced,
) -> list[Float64]:
    """Times graphs in blocks, each on its target, with one thread and one input or the fixed batch of the network.

    Args:
        artifact: An artefact of the network.
        graphs: Target, graph, and precision hint passed to the runtime.
        seconds: Approximate duration, see `TIMED_S`.
        rounds: Smallest number of rounds.
        clock: Returns nanoseconds, see `Target.clock`.
        timer: `paced`, or `halved` to find the fastest graph; of `lmconv.inference.latency`.

    Returns:
        For each graph (rounds, timed) float64, milliseconds, see `timer`.
    """
    spec = artifact.spec
    inputs = {"input": noise(spec, spec.batch or 1, 0)}
    with ExitStack() as stack:

        def ready(target: Target, model: onnx.ModelProto, hint: Precision) -> Callable[[], object]:
            session = stack.enter_context(opened(artifact, target, model, hint, threads=1))
            session.run(inputs)  # some runtimes compile in the first run
            return functools.partial(session.run, inputs)

        if any(target.engines for target, *_ in graphs):  # a context of CUDA belongs to one thread
            runs = [ready(*graph) for graph in graphs]
        else:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                runs = list(pool.map(ready, *zip(*graphs, strict=True)))
        return timer(runs, seconds, MOST, rounds=rounds, clock=clock)


def raced(
    timings: Timings, artifact: Artifact, target: Target, models: Sequence[onnx.ModelProto], hint: Precision
) -> list[Float64]:
    """Times graphs on a target to find the fastest; graphs of equal structure once, known graphs not again.

    Args:
        timings: Times of earlier races; the new race is added.
        artifact: An artefact of the network.
        target: The target.
        models: The graphs.
        hint: Precision hint passed to the runtime.

    Returns:
        For each graph (rounds, timed) float64, milliseconds, see `halved`. The clock is that of the target.
    """
    keys = [key(target, hint, model) for model in models]
    distinct = dict(zip(keys, models, strict=True))
    if timings.together(keys) is None:
        graphs = [(target, model, target.floats(hint)) for model in distinct.values()]
        times = timed_together(artifact, graphs, RACED_S, rounds=FEWEST_ROUNDS, clock=target.clock, timer=halved)
        timings.races.append(dict(zip(distinct, times, strict=True)))
    known = timings.together(keys)
    assert known is not None
    return known
