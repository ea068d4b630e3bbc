"""Runs any PyTorch network in float64: results differ between machines in the thirteenth digit at most."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map


@contextmanager
def reproducible(network: nn.Module) -> Iterator[None]:
    """Runs a network in float64, in evaluation mode, without gradients, from a fixed random state.

    A network with TorchScript modules runs in its own types: functions inside TorchScript cannot be changed.

    On exit the network's modes, PyTorch's random state and PyTorch's number of threads are restored.
    """
    training = {module: module.training for module in network.modules()}
    threads = torch.get_num_threads()
    try:
        network.eval()
        torch.set_num_threads(1)  # in float64 a depthwise convolution runs channel by channel: threads only wait
        wide = nullcontext() if scripted(network) else Float64Mode()
        with torch.random.fork_rng(devices=[]), torch.no_grad(), wide:
            torch.manual_seed(0)
            yield
    finally:
        torch.set_num_threads(threads)
        for module, mode in training.items():
            module.training = mode


def scripted(network: nn.Module) -> bool:
    """True if a part of a network is TorchScript."""
    return any(isinstance(module, torch.jit.ScriptModule) for module in network.modules())


class Float64Mode(TorchFunctionMode):
    """Makes PyTorch functions compute in float64, regardless of argument types and casts.

    `Module.double()` would convert the network itself, and fails if `forward` casts to float32 or creates constants.
    This mode widens weights for one call at a time. A weight keeps its type, even if a function changes the weight in
    place.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Widens all arguments except an argument changed in place, calls the function, and widens the result."""
        name = func.__name__
        in_place = name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))
        target = args[:1] if in_place or name in ("__get__", "__set__", "__setitem__") else ()
        widened = tree_map(_widen, args[len(target) :]), tree_map(_widen, kwargs or {})
        return tree_map(_widen, func(*target, *widened[0], **widened[1]))


def _widen(value: Any) -> Any:
    """Returns a floating-point tensor or type as float64; any other value unchanged."""
    if isinstance(value, torch.dtype):
        return torch.float64 if value.is_floating_point else value
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
