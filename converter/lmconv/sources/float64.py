"""Runs any PyTorch network in float64: what it computes differs between machines in the thirteenth digit at most."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map


@contextmanager
def reproducible(network: nn.Module) -> Iterator[None]:
    """While it is open, a network runs in float64, in evaluation mode, without gradients, from a fixed random state.

    Afterwards the network's modes, PyTorch's random state and its number of threads are what they were.
    """
    training = {module: module.training for module in network.modules()}
    threads = torch.get_num_threads()
    try:
        network.eval()
        torch.set_num_threads(1)  # in float64 a depthwise convolution is one per channel: threads only wait
        with torch.random.fork_rng(devices=[]), torch.no_grad(), Float64Mode():
            torch.manual_seed(0)
            yield
    finally:
        torch.set_num_threads(threads)
        for module, mode in training.items():
            module.training = mode


class Float64Mode(TorchFunctionMode):
    """While it is open, functions compute in float64 whatever the types of their arguments and what they cast to.

    `Module.double()` would convert the network itself, and fails where a forward casts to float32 or makes constants.
    Here weights are widened one call at a time and stay as they are, also where a function changes them.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls a function with everything but what it changes widened, and widens what it gives."""
        name = func.__name__
        changes = name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))
        kept = args[:1] if changes or name in ("__get__", "__set__", "__setitem__") else ()
        return tree_map(_wide, func(*kept, *tree_map(_wide, args[len(kept) :]), **tree_map(_wide, kwargs or {})))


def _wide(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return torch.float64 if value.is_floating_point else value
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
