"""Times work on a GPU: the GPU's time with CUDA events, the host's time with its clock, copies separately."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from lmconv.trt import driver
from lmconv.trt.faults import Fault

KINDS = ("execute", "graph", "wall", "copy_in", "copy_out")
"""Kinds of times, in milliseconds.

- execute: GPU time between an event before the network and an event after the network. If the host needs longer to
  launch the kernels than the GPU needs to compute, this is the host's launch time.
- graph: the same, launched as a CUDA graph.
- wall: host time from input arrays on the host to output arrays on the host.
- copy_in, copy_out: GPU time of copying the inputs to the device and the outputs from the device.
"""
WINDOW = 0.05
"""Seconds of runs in a warm-up window. The medians of the windows are compared."""
MIN_RUNS = 5
"""Minimum number of runs in a window, even if the runs are slow."""
PATIENCE = 3
"""Number of windows in a row without a gain after which the warm-up ends."""
MIN_GAIN = 0.01
"""Smallest fraction of a median that counts as a gain."""
MAX_SECONDS = 10.0
"""Maximum duration of a warm-up in seconds."""


class Steps(Protocol):
    """Work to time, in steps that are put on a stream asynchronously, for example `lmconv.trt.engine.Engine`.

    Attributes:
        stream: Object with the `handle` of a CUDA stream; None for work on the CPU.
    """

    stream: Any

    def set(self, arrays: Mapping[str, Any]) -> None:
        """Sets the input arrays, on the host."""

    def copy_in(self) -> None:
        """Copies the inputs to the device."""

    def execute(self) -> None:
        """Starts the computation."""

    def copy_out(self) -> None:
        """Copies the outputs to the host."""

    def wait(self) -> None:
        """Waits until all steps are done."""

    def results(self) -> Mapping[str, Any]:
        """Returns the output arrays, on the host, by name."""


class CudaGraph(Protocol):
    """The work of `execute` as a CUDA graph, for example `lmconv.trt.cudagraph.Graph` or PyTorch's CUDA graph."""

    def launch(self) -> None:
        """Puts the captured work on the stream."""

    def close(self) -> None:
        """Frees the graph."""


def settled(medians: Sequence[float]) -> bool:
    """True if none of the last three window medians is more than 1 % below the smallest earlier median."""
    before, last = medians[:-PATIENCE], medians[-PATIENCE:]
    return bool(before) and min(last) > min(before) * (1 - MIN_GAIN)


def warm_up(
    run: Callable[[], object],
    *,
    max_seconds: float = MAX_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Repeats a run until the median of successive windows stops falling.

    Args:
        run: Work to repeat.
        max_seconds: Maximum duration in seconds.
        clock: Returns the current time in seconds.

    Returns:
        `seconds`, the duration; `runs`, the number of runs; `settled`, True if the median stopped falling; `windows`,
        the median of each window in milliseconds.
    """
    start, runs, medians = clock(), 0, list[float]()
    while not settled(medians) and clock() - start < max_seconds:
        times = _window(run, clock)
        runs += len(times)
        medians.append(statistics.median(times))
    return {"seconds": clock() - start, "runs": runs, "settled": settled(medians), "windows": medians}


def _window(run: Callable[[], object], clock: Callable[[], float]) -> list[float]:
    """Repeats a run for one window; returns the milliseconds of each run."""
    end, times = clock() + WINDOW, list[float]()
    while len(times) < MIN_RUNS or clock() < end:
        start = clock()
        run()
        times.append((clock() - start) * 1000)
    return times


class Timer:
    """Times steps on fixed input arrays, warmed up, and captured as a CUDA graph if possible.

    Args:
        steps: Work to time.
        arrays: Input arrays of one batch size, by name.
        capture: Captures the work of `execute` as a CUDA graph; None if the runtime has no CUDA graphs.
        state: Returns the GPU's clocks and more, for the record.

    Attributes:
        warm_up: Result of `warm_up`, with the GPU's state `before` and `after`.
        left_out: Reason for each kind of KINDS that is not timed.
    """

    def __init__(
        self,
        steps: Steps,
        arrays: Mapping[str, Any],
        *,
        capture: Callable[[], CudaGraph] | None = None,
        state: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._steps, self._arrays = steps, arrays
        self.left_out: dict[str, str] = {}
        with ExitStack() as stack:
            self._time_wall()  # TensorRT must have run once before a capture
            self._events: list[driver.Event] = []
            for _ in range(4 if steps.stream is not None else 0):
                self._events.append(_close_later(stack, driver.Event()))
            self._graph = self._capture(stack, capture)
            before = state()
            self.warm_up = {**warm_up(self._time_wall), "before": before, "after": state()}
            self._stack = stack.pop_all()

    def _capture(self, stack: ExitStack, capture: Callable[[], CudaGraph] | None) -> Any:
        if self._steps.stream is None:
            self.left_out.update(dict.fromkeys((kind for kind in KINDS if kind != "wall"), "it runs on the CPU"))
            return None
        try:
            if capture is not None:
                graph = _close_later(stack, capture())
                graph.launch()
                self._steps.wait()
                return graph
            self.left_out["graph"] = "this runtime is timed without CUDA graphs"
        except (Fault, RuntimeError) as error:  # PyTorch raises RuntimeErrors
            self.left_out["graph"] = str(error).strip().partition("\n")[0]
            self._time_wall()  # fails if the stream is no longer usable
        return None

    def measure(self, samples: int) -> dict[str, list[float]]:
        """Takes samples of all kinds, one of each kind per round, after one window of runs.

        Args:
            samples: Number of rounds.

        Returns:
            Milliseconds of each sample, by kind.
        """
        _window(self._time_wall, time.perf_counter)
        times: dict[str, list[float]] = {kind: [] for kind in KINDS if kind not in self.left_out}
        for _ in range(samples):
            for kind, milliseconds in self._round().items():
                times[kind].append(milliseconds)
        return times

    def _round(self) -> dict[str, float]:
        """Takes one sample of each kind; milliseconds."""
        times = {"wall": self._time_wall()}
        if self._events:
            times.update(self._time_steps())
        if self._graph is not None:
            times["graph"] = self._time_graph()
        return times

    def _time_wall(self) -> float:
        """Times all steps on the host, without events: events would cost host time."""
        start = time.perf_counter()
        self._steps.set(self._arrays)
        self._steps.copy_in()
        self._steps.execute()
        self._steps.copy_out()
        self._steps.wait()
        self._steps.results()
        return (time.perf_counter() - start) * 1000

    def _time_steps(self) -> dict[str, float]:
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

    def _time_graph(self) -> float:
        first, last = self._events[0], self._events[-1]
        stream = self._steps.stream.handle
        first.record(stream)
        self._graph.launch()
        last.record(stream)
        self._steps.wait()
        return last.since(first)

    def close(self) -> None:
        """Frees the CUDA graph and the events."""
        self._stack.close()


def _close_later(stack: ExitStack, resource: Any) -> Any:
    stack.callback(resource.close)
    return resource
