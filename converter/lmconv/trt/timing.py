"""Times what runs on a GPU: the GPU's own time by CUDA events, the host's by its clock, copies apart."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from lmconv.trt import driver
from lmconv.trt.faults import Fault

KINDS = ("execute", "graph", "wall", "copy_in", "copy_out")
"""What is timed, milliseconds.

- execute: the GPU's time, from an event before the network to one after it. Where the host takes longer to launch its
  kernels than the GPU to compute them, it is the host's.
- graph: the same, launched as a CUDA graph.
- wall: the host's time, from arrays of the host to arrays of the host.
- copy_in, copy_out: the GPU's time of copying inputs to the device and outputs from it.
"""
WINDOW = 0.05
"""Seconds of runs whose median is compared with those of the windows before."""
FEWEST = 5
"""Runs in a window, however slow they are."""
PATIENCE = 3
"""Windows in a row without gain, after which clocks have settled."""
GAIN = 0.01
"""A gain by less than this share is none."""
LONGEST = 10.0
"""Seconds after which a warm-up ends, settled or not."""


class Steps(Protocol):
    """What is timed, in steps that are each put on a stream and not waited for; `lmconv.trt.engine.Engine` is one.

    Attributes:
        stream: Has the `handle` of a CUDA stream; None where it runs on the CPU.
    """

    stream: Any

    def set(self, arrays: Mapping[str, Any]) -> None:
        """Takes arrays of the host."""

    def copy_in(self) -> None:
        """Copies them to the device."""

    def execute(self) -> None:
        """Computes."""

    def copy_out(self) -> None:
        """Copies what was computed to the host."""

    def wait(self) -> None:
        """Waits until all is done."""

    def results(self) -> Mapping[str, Any]:
        """Arrays of the host."""


class Captured(Protocol):
    """What `execute` puts on the stream, as a CUDA graph: `lmconv.trt.cudagraph.Graph`, or PyTorch's."""

    def launch(self) -> None:
        """Puts all of it on the stream."""

    def close(self) -> None:
        """Frees it."""


def settled(medians: Sequence[float]) -> bool:
    """Whether clocks have settled: no one of the last windows' medians is below all before them by more than 1 %."""
    before, last = medians[:-PATIENCE], medians[-PATIENCE:]
    return bool(before) and min(last) > min(before) * (1 - GAIN)


def warm_up(
    run: Callable[[], object],
    *,
    longest: float = LONGEST,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Runs until the median of successive windows stops falling, at most for so many seconds.

    Returns:
        `seconds` it took, `runs`, whether it `settled`, and the medians of its `windows`, milliseconds.
    """
    start, runs, medians = clock(), 0, list[float]()
    while not settled(medians) and clock() - start < longest:
        times = _window(run, clock)
        runs += len(times)
        medians.append(statistics.median(times))
    return {"seconds": clock() - start, "runs": runs, "settled": settled(medians), "windows": medians}


def _window(run: Callable[[], object], clock: Callable[[], float]) -> list[float]:
    """Runs for a window; milliseconds of each run."""
    end, times = clock() + WINDOW, list[float]()
    while len(times) < FEWEST or clock() < end:
        start = clock()
        run()
        times.append((clock() - start) * 1000)
    return times


class Timed:
    """Something to time on arrays of one batch size: captured as a graph where that is possible, and warm.

    Args:
        steps: What is timed.
        arrays: Its inputs.
        capture: Makes a graph of what `execute` does; None where nothing can.
        state: Gives the GPU's clocks and more, for the record.

    Attributes:
        warm_up: What `warm_up` says, with the state `before` and `after`.
        left_out: Of kinds that are not timed: why.
    """

    def __init__(
        self,
        steps: Steps,
        arrays: Mapping[str, Any],
        *,
        capture: Callable[[], Captured] | None = None,
        state: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._steps, self._arrays = steps, arrays
        self.left_out: dict[str, str] = {}
        with ExitStack() as stack:
            self._wall()  # TensorRT wants to have run once before it is captured
            self._events: list[driver.Event] = []
            for _ in range(4 if steps.stream is not None else 0):
                self._events.append(_closing(stack, driver.Event()))
            self._graph = self._captured(stack, capture)
            before = state()
            self.warm_up = {**warm_up(self._wall), "before": before, "after": state()}
            self._stack = stack.pop_all()

    def _captured(self, stack: ExitStack, capture: Callable[[], Captured] | None) -> Any:
        if self._steps.stream is None:
            self.left_out.update(dict.fromkeys((kind for kind in KINDS if kind != "wall"), "it runs on the CPU"))
            return None
        try:
            if capture is not None:
                graph = _closing(stack, capture())
                graph.launch()
                self._steps.wait()
                return graph
            self.left_out["graph"] = "this runtime is timed without CUDA graphs"
        except (Fault, RuntimeError) as error:  # PyTorch's errors are RuntimeErrors
            self.left_out["graph"] = str(error).strip().partition("\n")[0]
            self._wall()  # the stream is as it was, or this says that it is not
        return None

    def times(self, samples: int) -> dict[str, list[float]]:
        """Times each kind so often, all kinds in each round, after a window of runs; milliseconds."""
        _window(self._wall, time.perf_counter)
        found: dict[str, list[float]] = {kind: [] for kind in KINDS if kind not in self.left_out}
        for _ in range(samples):
            for kind, milliseconds in self._round().items():
                found[kind].append(milliseconds)
        return found

    def _round(self) -> dict[str, float]:
        found = {"wall": self._wall()}
        if self._events:
            found.update(self._apart())
        if self._graph is not None:
            found["graph"] = self._launched()
        return found

    def _wall(self) -> float:
        """The whole way, without events: they would cost the host time."""
        start = time.perf_counter()
        self._steps.set(self._arrays)
        self._steps.copy_in()
        self._steps.execute()
        self._steps.copy_out()
        self._steps.wait()
        self._steps.results()
        return (time.perf_counter() - start) * 1000

    def _apart(self) -> dict[str, float]:
        first, copied, computed, last = self._events
        stream = self._steps.stream.handle
        self._steps.set(self._arrays)
        first.record(stream)
        self._steps.copy_in()
        copied.record(stream)
        self._steps.execute()
        computed.record(stream)
        self._steps.copy_out()
        last.record(stream)
        self._steps.wait()
        return {
            "copy_in": copied.since(first),
            "execute": computed.since(copied),
            "copy_out": last.since(computed),
        }

    def _launched(self) -> float:
        first, last = self._events[0], self._events[-1]
        stream = self._steps.stream.handle
        first.record(stream)
        self._graph.launch()
        last.record(stream)
        self._steps.wait()
        return last.since(first)

    def close(self) -> None:
        """Frees its graph and events."""
        self._stack.close()


def _closing(stack: ExitStack, thing: Any) -> Any:
    stack.callback(thing.close)
    return thing
