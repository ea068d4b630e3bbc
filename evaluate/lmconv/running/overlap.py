"""Work ahead: an iterator that a thread of its own goes through, a few items before they are asked for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
END = object()


@contextmanager
def ahead(items: Generator[T], depth: int) -> Iterator[Iterator[T]]:
    """Goes through a generator in a thread of its own; it is also closed there.

    What it raises is raised where it is asked for the next item. Leaving the context ends the thread: it finishes the
    item that it is at.

    Args:
        items: OpenCV and the runtimes do without the interpreter's lock while they work, so that it is worth it.
        depth: How many finished items may wait.

    Yields:
        The same items in the same order.
    """
    waiting: queue.Queue[tuple[object, BaseException | None]] = queue.Queue(depth)
    ended = threading.Event()

    def put(item: object, error: BaseException | None = None) -> None:
        while not ended.is_set():
            try:
                waiting.put((item, error), timeout=0.1)
                break
            except queue.Full:
                continue

    def work() -> None:
        try:
            try:
                for item in items:
                    put(item)
                    if ended.is_set():
                        break
            finally:
                items.close()
        except BaseException as error:  # raised again where somebody is told of it
            put(END, error)
        else:
            put(END)

    def come() -> Iterator[T]:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is END:
                return
            yield item  # type: ignore[misc]

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield come()
    finally:
        ended.set()
        thread.join()
