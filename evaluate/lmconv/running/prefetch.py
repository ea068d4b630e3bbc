"""Prefetching: a thread computes the next items of a generator before the consumer asks."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeAlias, TypeVar

T = TypeVar("T")
Entry: TypeAlias = tuple[object, BaseException | None]
"""An item, and None; or `END`, and the error of the generator, None if the generator ended without an error."""
END = object()


@contextmanager
def prefetch(items: Generator[T], depth: int) -> Iterator[Iterator[T]]:
    """Runs a generator in a thread, up to `depth` items ahead of the consumer.

    OpenCV and the runtimes release the interpreter's lock during their work, so the threads run in parallel. An error
    of the generator is raised at the consumer, after the items before the error. When the context ends, the thread
    finishes the current item, closes the generator and ends.

    Args:
        items: The generator.
        depth: Largest number of finished items in the queue.

    Yields:
        The same items in the same order.
    """
    finished: queue.Queue[Entry] = queue.Queue(depth)
    stop = threading.Event()
    thread = threading.Thread(target=_produce, args=(items, finished, stop), daemon=True)
    thread.start()
    try:
        yield _consume(finished)
    finally:
        stop.set()
        thread.join()


def _produce(items: Generator[T], finished: queue.Queue[Entry], stop: threading.Event) -> None:
    """Puts all items into the queue until `stop` is set; closes the generator in this thread."""
    try:
        try:
            for item in items:
                _put((item, None), finished, stop)
                if stop.is_set():
                    break
        finally:
            items.close()
    except BaseException as error:  # raised again in the consumer's thread
        _put((END, error), finished, stop)
    else:
        _put((END, None), finished, stop)


def _put(entry: Entry, finished: queue.Queue[Entry], stop: threading.Event) -> None:
    """Puts an entry into the queue; drops the entry if `stop` is set while the queue is full."""
    while not stop.is_set():
        try:
            finished.put(entry, timeout=0.1)
            break
        except queue.Full:
            continue


def _consume(finished: queue.Queue[Entry]) -> Iterator[T]:
    """Yields the items of the queue; raises the error of the generator."""
    while True:
        item, error = finished.get()
        if error is not None:
            raise error
        if item is END:
            return
        yield item  # type: ignore[misc]
