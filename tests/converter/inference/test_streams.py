from __future__ import annotations

import threading
from typing import Any, Self

from lmconv.inference.streams import ThreadStreams, steady
from lmconv.types import Arrays


class Recorded:
    """A session that records its thread and its runs; a barrier proves that two sessions run at the same time."""

    execution_mismatch = ""

    def __init__(self, together: threading.Barrier) -> None:
        self.together, self.threads, self.open = together, set[int](), True

    def run(self, inputs: Arrays) -> dict[str, Any]:
        self.together.wait(timeout=30)
        self.threads.add(threading.get_ident())
        return {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.open = False


def test_each_stream_runs_in_a_thread_of_its_own_at_the_same_time() -> None:
    sessions, together = list[Recorded](), threading.Barrier(2)

    def opened() -> Recorded:
        sessions.append(Recorded(together))
        return sessions[-1]

    with ThreadStreams(opened, 2) as streams:
        ends = streams.run({}, 8)
    assert ends == sorted(ends)
    assert len(ends) == 8
    one, two = (session.threads for session in sessions)
    assert len(one) == len(two) == 1
    assert one != two
    assert not any(session.open for session in sessions)


def test_the_rate_counts_neither_the_first_runs_nor_the_last_of_each_stream() -> None:
    first, even, last = [1.0, 5.0], [6.0, 7.0, 8.0, 9.0], [20.0, 30.0]
    assert steady([*first, *even, *last], streams=2, untimed=2) == 1.0
