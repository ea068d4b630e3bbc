"""Runs of a network at the same time: one thread and one session for each stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from lmconv.plugins import TARGETS
from lmconv.types import Arrays, Artifact, OpenOptions, Session, Streams


class ThreadStreams:
    """`Streams` of sessions, each in a thread of its own.

    Args:
        open_session: Opens a session.
        count: Number of streams.
    """

    def __init__(self, open_session: Callable[[], Session], count: int) -> None:
        with ExitStack() as stack:
            self._sessions = [stack.enter_context(open_session()) for _ in range(count)]
            self._threads = stack.enter_context(ThreadPoolExecutor(count))
            self._stack = stack.pop_all()

    def run(self, inputs: Arrays, runs: int) -> list[float]:
        """See `lmconv.types.Streams`."""
        turns, done = iter(range(runs)), list[float]()  # shared: a thread that is quicker takes more turns

        def work(session: Session) -> None:
            for _ in turns:
                session.run(inputs)
                done.append(time.perf_counter())

        for future in [self._threads.submit(work, session) for session in self._sessions]:
            future.result()
        return sorted(done)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def open_streams(artifact: Artifact, options: OpenOptions, count: int) -> Streams:
    """Opens an artefact for `count` runs at the same time."""
    target = TARGETS.load(artifact.target)
    if target.open_streams:
        return target.open_streams(artifact, options, count)
    return ThreadStreams(lambda: target.open(artifact, options), count)


def steady(done: Sequence[float], streams: int, untimed: int) -> float:
    """Returns the time from one end of a run to the next while all streams are busy, seconds.

    Args:
        done: Ends of all runs, seconds, ascending.
        streams: Number of streams; the last runs, in which a stream may be idle, do not count.
        untimed: Number of first runs that do not count.
    """
    counted = done[untimed - 1 : len(done) - streams]
    return (counted[-1] - counted[0]) / (len(counted) - 1)
