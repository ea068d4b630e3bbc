"""CUDA graphs: what a stream was given once, launched again as a whole."""

from __future__ import annotations

from collections.abc import Callable

from lmconv.trt import driver
from lmconv.trt.faults import Fault

THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile, does not end the capture."""


class Graph:
    """A captured graph on a stream, by handle; not the default stream, which cannot be captured.

    `work` puts on that stream, asynchronously, what is captured. It must have run once before: TensorRT sets up then
    what it cannot set up while a stream is captured. Addresses and shapes are those of now: after another shape, the
    graph has to be captured again.

    Raises:
        Fault: It cannot be captured; the stream is as it was.
    """

    def __init__(self, stream: int, work: Callable[[], object]) -> None:
        self._stream, self._graph, self._executable = stream, 0, 0
        try:
            self._graph = _captured(stream, work)
            self._executable = _instantiated(self._graph)
        except BaseException:
            self.close()
            raise

    def launch(self) -> None:
        """Puts all of it on the stream."""
        driver.call("cuGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        """Frees it."""
        executable, graph, self._executable, self._graph = self._executable, self._graph, 0, 0
        if executable:
            driver.call("cuGraphExecDestroy", executable)
        if graph:
            driver.call("cuGraphDestroy", graph)


def _captured(stream: int, work: Callable[[], object]) -> int:
    driver.call("cuStreamBeginCapture_v2", stream, THREAD_LOCAL)
    try:
        work()
    except BaseException:
        _abandon(stream)
        raise
    return driver.captured(stream)


def _abandon(stream: int) -> None:
    """Ends a capture that failed, so that the stream can be used again."""
    try:
        graph = driver.captured(stream)
    except Fault:  # it says again that the capture failed
        return
    if graph:
        driver.call("cuGraphDestroy", graph)


def _instantiated(graph: int) -> int:
    if driver.has("cuGraphInstantiateWithFlags"):  # from CUDA 11.4 on
        return driver.made("cuGraphInstantiateWithFlags", graph, 0)
    return driver.made("cuGraphInstantiate_v2", graph, None, None, 0)
