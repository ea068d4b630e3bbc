from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest

from lmconv.running.prefetch import prefetch


def numbers(ended: list[str], most: int = 1000) -> Generator[int]:
    try:
        yield from range(most)
    finally:
        ended.append(threading.current_thread().name)


def test_items_keep_their_order() -> None:
    with prefetch(numbers([], 100), 3) as items:
        assert list(items) == list(range(100))


def test_the_generator_is_closed_in_its_own_thread_at_the_end() -> None:
    ended: list[str] = []
    with prefetch(numbers(ended), 2) as items:
        assert next(items) == 0
    assert ended
    assert ended != [threading.current_thread().name]


def test_the_generator_waits_while_the_queue_is_full() -> None:
    done: list[int] = []

    def work() -> Generator[int]:
        for number in range(100):
            done.append(number)
            yield number

    with prefetch(work(), 2) as items:
        next(items)
        time.sleep(0.2)
        assert len(done) <= 4


def test_an_error_is_raised_after_the_items_before_it() -> None:
    def work() -> Generator[int]:
        yield 1
        raise ValueError("no more")

    with prefetch(work(), 2) as items:
        assert next(items) == 1
        with pytest.raises(ValueError, match="no more"):
            next(items)
