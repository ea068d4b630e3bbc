"""Modules of users before export: wrappers around them, their types, and the mode of their layers."""

from __future__ import annotations

import contextlib
import copy
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from lmconv.errors import InputError, UsageError, listed
from lmconv.graph.denormals import is_denormal
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


def widen(module: nn.Module) -> str:
    """Converts a network to float32, in place, if all of its weights have one other floating-point type.

    float16 and bfloat16 weights keep their values; float64 weights are rounded. A network with weights of several types
    casts by itself, and stays as the user wrote it.

    Returns:
        A note for the user; empty if nothing changes.
    """
    kinds = types(module)
    if len(kinds) != 1 or kinds == {torch.float32}:
        return ""
    module.float()
    return f"the network's weights are {str(kinds.pop()).removeprefix('torch.')}: lmconv runs the network in float32"


def types(module: nn.Module) -> set[torch.dtype]:
    """Returns the floating-point types of the parameters of a network."""
    return {value.dtype for value in module.parameters() if value.is_floating_point()}


def denormals(module: nn.Module) -> int:
    """Counts the denormal numbers among the float32 and float64 parameters and buffers of a network."""
    values = [value.detach().numpy() for value in (*module.parameters(), *module.buffers())]
    return sum(int(is_denormal(value).sum()) for value in values if value.dtype in (np.float32, np.float64))


def check_float(module: nn.Module, theirs: str) -> None:
    """Refuses a network that torch.ao has quantised; a network prepared for quantisation is a float network.

    Raises:
        InputError: A layer computes with integers.
    """
    kinds = {name: _kind(part) for name, part in module.named_modules()}
    quantised = [name for name, kind in kinds.items() if "torch.ao.nn." in kind and "quantized" in kind]
    found = dict.fromkeys(name or "the network" for name in quantised)
    if found:
        hint = "let the function return the float network: --precision int8 quantises"
        raise InputError(f"{theirs} is quantised already: {listed(found)}", hint=hint)


def _kind(module: nn.Module) -> str:
    """Returns the class of a module with its Python module; for TorchScript those of the original."""
    script: Any = getattr(module, "_c", None)
    return (
        str(script._type().qualified_name())
        if script is not None
        else f"{type(module).__module__}.{type(module).__qualname__}"
    )


def bind(module: nn.Module, constants: Mapping[str, Any], theirs: str) -> None:
    """Lets a network be called with the image alone: further arguments of its forward() become constants.

    Arguments with a default keep the default. The image is the first argument.

    Args:
        module: The network, changed in place.
        constants: Values by the name of the argument; a list becomes a tensor.
        theirs: Name of the network, for messages.

    Raises:
        InputError: forward() needs a further argument.
        UsageError: forward() has no argument of a given name beside the image.
    """
    try:
        parameters = inspect.signature(module.forward).parameters
    except ValueError:  # TorchScript
        return
    kinds = inspect.Parameter
    plain = [name for name, each in parameters.items() if each.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)]
    if any(each.kind is kinds.VAR_KEYWORD for each in parameters.values()):
        plain += constants.keys() - set(plain)
    needed = [name for name in plain[1:] if name in parameters and parameters[name].default is kinds.empty]
    missing = [name for name in needed if name not in constants]
    unknown = [name for name in constants if name not in plain[1:]]
    if missing:
        hint = " ".join(f"--constant {name}=VALUE" for name in missing)
        raise InputError(f"{theirs}: forward() needs {', '.join(missing)} beside the image", hint=f"give {hint}")
    if unknown:
        others = f"the arguments {', '.join(plain[1:])}" if plain[1:] else "no argument"
        message = f"{theirs}: forward() has no argument {', '.join(unknown)} for a constant"
        raise UsageError(message, hint=f"beside the image, forward() has {others}")
    values = {name: torch.tensor(value) if isinstance(value, list) else value for name, value in constants.items()}
    keyword = plain[0] if plain and plain[0] in parameters and parameters[plain[0]].kind is kinds.KEYWORD_ONLY else ""
    if not (values or keyword):
        return

    def called(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        return ((), {keyword: args[0], **values}) if keyword else (args, kwargs | values)

    module.register_forward_pre_hook(called, with_kwargs=True, prepend=True)


def trial(module: nn.Module) -> nn.Module:
    """Returns the module to run before its weights are loaded: a copy if a run changes shapes of buffers."""
    observers = any(hasattr(part, "observer_enabled") for part in module.modules())
    return copy.deepcopy(module) if observers else module


def with_batch_axis(result: Any, images: torch.Tensor) -> Any:
    """Returns the result of a network; adds the batch axis that `squeeze()` removes from a batch of one."""
    lost = isinstance(result, torch.Tensor) and result.dim() == 1 and len(images) == 1
    return result.unsqueeze(0) if lost else result


def as_float32(result: Any) -> Any:
    """Returns the outputs of a network, a tensor or a tuple, as float32."""
    if isinstance(result, tuple):
        return tuple(as_float32(part) for part in result)
    return result if result.dtype == torch.float32 else result.float()


@contextlib.contextmanager
def channels_of_images(theirs: str) -> Iterator[None]:
    """Explains the error of a first layer that takes other images than colour images.

    Raises:
        InputError: The first layer takes another number of channels than three.
    """
    try:
        yield
    except RuntimeError as error:
        wanted = re.search(r"to have (\d+) channels, but got 3 channels", str(error))
        if wanted is None:
            raise
        message = f"{theirs} takes images of {wanted[1]} channels, and lmconv gives BGR or RGB images"
        grey = "put the conversion in front: forward(self, x): return self.net(x.mean(1, keepdim=True))"
        raise InputError(message, hint=grey if wanted[1] == "1" else "let forward() make the other channels") from error


def check_mode(events: Observed, theirs: str) -> None:
    """Refuses a network whose layers still learn from their inputs after `eval()`.

    Raises:
        InputError: A BatchNorm with running statistics computes with those of the batch, or the scales of a
            fake-quantised tensor change.
    """
    if events.observing:
        message = f"{theirs} changes its quantisation scales in every run: {listed(events.observing)}"
        raise InputError(message, hint="call network.apply(torch.ao.quantization.disable_observer) in the builder")
    if events.training:
        hint = "let forward() and train() leave these layers in evaluation mode"
        raise InputError(f"{theirs} keeps layers in training mode after eval(): {listed(events.training)}", hint=hint)


def random(events: Observed, theirs: str) -> InputError:
    """Returns the error for a network whose output differs from run to run; the error names the modules."""
    if events.random:
        message = f"{theirs} computes something else each time: random numbers in {listed(events.random)}"
        hint = "let dropout rest in eval(): F.dropout(x, p, self.training); draw no random numbers in forward()"
        return InputError(message, hint=hint)
    message = f"{theirs} computes something else each time"
    return InputError(message, hint="let forward() change no state that a later call reads")
