"""Runs PyTorch with denormal numbers flushed to zero, in a thread of its own.

PyTorch's CPU kernels are many times slower on denormal numbers on Intel CPUs, and trained networks hold thousands of
denormal weights. `torch.set_flush_denormal` makes the processor take and return zero instead, in the calling thread
alone. PyTorch computes with several threads, which inherit the mode of the thread that starts them; the threads of a
process's first computation would keep the other mode. Therefore one thread with this mode runs all networks. The mode
of all other threads, in which ONNX Runtime and numpy compute, stays as IEEE 754 has it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def flushed(compute: Callable[[], T]) -> T:
    """Returns the result of a function that runs PyTorch, computed with denormal numbers as zero.

    Modes of PyTorch that belong to a thread, such as `no_grad`, must be entered by the function itself.
    """
    return _thread().submit(compute).result()


@functools.cache
def supported() -> bool:
    """True if this processor can flush denormal numbers to zero."""
    import torch

    return bool(_thread().submit(torch.set_flush_denormal, True).result())


@functools.cache
def _thread() -> ThreadPoolExecutor:
    """Returns the thread with this mode; a process has one, so PyTorch has one set of threads for all networks."""
    import torch

    return ThreadPoolExecutor(1, "pytorch", initializer=torch.set_flush_denormal, initargs=(True,))


os.register_at_fork(after_in_child=_thread.cache_clear)  # a forked process does not have the threads of its parent
