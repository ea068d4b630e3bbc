"""CUDA graphs: the work of a stream, captured once and launched again as a whole."""

from __future__ import annotations

from collections.abc import Callable

from lmconv.trt import driver
from lmconv.trt.faults import Fault

THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: CUDA calls of other threads do not end the capture."""


class Graph:
    """A CUDA graph, captured from one stream and launched on the same stream.

    Addresses and shapes are fixed at the capture: after a change of shape, a new graph is needed.

    Args:
        stream: Handle of the stream. The default stream cannot be captured.
        work: Puts the work to capture on the stream, asynchronously. The work must have run once before: TensorRT then
            does set-up work that is not allowed during a capture.

    Raises:
        Fault: If the work cannot be captured. The stream can still be used.
    """

    def __init__(self, stream: int, work: Callable[[], object]) -> None:
        self._stream, self._graph, self._executable = stream, 0, 0
        try:
            self._graph = _capture(stream, work)
            self._executable = _instantiate(self._graph)
        except BaseException:
            self.close()
            raise

    def launch(self) -> None:
        """Puts the captured work on the stream."""
        driver.call("cuGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        """Frees the graph."""
        executable, graph, self._executable, self._graph = self._executable, self._graph, 0, 0
        if executable:
            driver.call("cuGraphExecDestroy", executable)
        if graph:
            driver.call("cuGraphDestroy", graph)


def _capture(stream: int, work: Callable[[], object]) -> int:
    driver.call("cuStreamBeginCapture_v2", stream, THREAD_LOCAL)
    try:
        work()
    except BaseException:
        _abandon(stream)
        raise
    return driver.end_capture(stream)


def _abandon(stream: int) -> None:
    """Ends a failed capture to make the stream usable again."""
    try:
        graph = driver.end_capture(stream)
    except Fault:  # the driver reports the failed capture once more
        return
    if graph:
        driver.call("cuGraphDestroy", graph)


def _instantiate(graph: int) -> int:
    if driver.has_function("cuGraphInstantiateWithFlags"):  # CUDA 11.4 or newer
        return driver.create("cuGraphInstantiateWithFlags", graph, 0)
    return driver.create("cuGraphInstantiate_v2", graph, None, None, 0)
