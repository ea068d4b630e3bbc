"""Modules of users before export: wrappers around them, their types, and the mode of their layers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lmconv.errors import InputError
from lmconv.sources.observing import Observed

WRAPPERS: Mapping[str, str] = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
}
"""Attribute that holds the network inside PyTorch's wrappers, by the class of the wrapper."""


def unwrapped(module: nn.Module) -> nn.Module:
    """Returns the network inside `torch.nn.DataParallel` and `torch.compile`, which change nothing on one device."""
    while type(module).__name__ in WRAPPERS and type(module).__module__.startswith("torch."):
        module = getattr(module, WRAPPERS[type(module).__name__])
    return module


def widen(module: nn.Module) -> None:
    """Converts a network to float32, in place, if all of its weights have one other floating-point type.

    float16 and bfloat16 weights keep their values; float64 weights are rounded. A network with weights of several types
    casts by itself, and stays as the user wrote it.
    """
    kinds = types(module)
    if len(kinds) == 1 and kinds != {torch.float32}:
        module.float()


def types(module: nn.Module) -> set[torch.dtype]:
    """Returns the floating-point types of the parameters of a network."""
    return {value.dtype for value in module.parameters() if value.is_floating_point()}


def trial(module: nn.Module) -> nn.Module:
    """Returns the module to run before its weights are loaded: a copy if a run changes shapes of buffers."""
    observers = any(hasattr(part, "observer_enabled") for part in module.modules())
    return copy.deepcopy(module) if observers else module


def as_float32(result: Any) -> Any:
    """Returns the outputs of a network, a tensor or a tuple, as float32."""
    if isinstance(result, tuple):
        return tuple(as_float32(part) for part in result)
    return result if result.dtype == torch.float32 else result.float()


def check_mode(events: Observed, theirs: str) -> None:
    """Refuses a network whose BatchNorms are in training mode after `eval()`.

    Raises:
        InputError: A BatchNorm with running statistics computes with those of the batch.
    """
    if events.training:
        hint = "let forward() and train() leave these layers in evaluation mode"
        raise InputError(f"{theirs} keeps layers in training mode after eval(): {listed(events.training)}", hint=hint)


def random(events: Observed, theirs: str) -> InputError:
    """Returns the error for a network whose output differs from run to run; the error names the modules."""
    if events.observing:
        message = f"{theirs} changes its quantisation scales in every run: {listed(events.observing)}"
        return InputError(message, hint="call network.apply(torch.ao.quantization.disable_observer) in the builder")
    if events.random:
        message = f"{theirs} computes something else each time: random numbers in {listed(events.random)}"
        hint = "let dropout rest in eval(): F.dropout(x, p, self.training); draw no random numbers in forward()"
        return InputError(message, hint=hint)
    message = f"{theirs} computes something else each time"
    return InputError(message, hint="let forward() change no state that a later call reads")


def listed(names: Mapping[str, None]) -> str:
    """Returns the first names, and the number of the others."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(list(names)[:3]) + more
