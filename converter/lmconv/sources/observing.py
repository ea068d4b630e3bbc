"""Observes one run of a PyTorch network: layers in training mode, random numbers, and numbers that Python reads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

PACKAGES = (Path(torch.__file__).parent, Path(__file__).parents[1])
"""Folders of PyTorch and of lmconv: a frame in these folders is not the user's code."""
NORMALISES = {"native_batch_norm", "_native_batch_norm_legit", "_batch_norm_with_update", "cudnn_batch_norm"}
"""Names of the operators that compute a BatchNorm."""


@dataclass(slots=True)
class Observed:
    """Events of one run.

    Attributes:
        training: Modules in training mode whose mode changes the result, in the order of their calls: path and class.
        batch_statistics: Modules that normalise by statistics of the batch because they have no running statistics.
        random: Modules that draw random numbers.
        observing: Fake-quantisation modules that still change their scales.
        reads: Places in the user's code, `FILE:LINE`, where Python reads a number that depends on the input.
        operators: Names of all operators.
    """

    training: dict[str, None] = field(default_factory=dict)
    batch_statistics: dict[str, None] = field(default_factory=dict)
    random: dict[str, None] = field(default_factory=dict)
    observing: dict[str, None] = field(default_factory=dict)
    reads: dict[str, None] = field(default_factory=dict)
    operators: set[str] = field(default_factory=set)


@contextmanager
def observed(network: nn.Module) -> Iterator[Observed]:
    """Observes the calls of a network inside a `with` block; inputs must have a batch of at least two."""
    events = Observed()
    paths = {module: path for path, module in network.named_modules()}
    calls: list[nn.Module] = []

    def enter(module: nn.Module, args: Any) -> None:
        if not calls:
            mode.follow(args)
        calls.append(module)
        enabled = getattr(module, "observer_enabled", None)
        if isinstance(enabled, torch.Tensor) and enabled.flatten()[0].item():
            events.observing[_label(module, paths)] = None

    def leave(module: nn.Module, args: Any, result: Any) -> None:
        if module in calls:  # a scripted module calls neither hook
            del calls[len(calls) - 1 - calls[::-1].index(module) :]

    mode = _Mode(events, lambda: _label(calls[-1] if calls else network, paths))
    handles = [
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave, always_call=True),
    ]
    try:
        with mode:
            yield events
    finally:
        for handle in handles:
            handle.remove()


def _label(module: nn.Module, paths: dict[nn.Module, str]) -> str:
    """Returns the path and class of a module, for example `layer1.0.bn (BatchNorm2d)`."""
    path, kind = paths.get(module, ""), type(module).__name__
    return f"{path} ({kind})" if path else kind


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records every operator that PyTorch runs, and follows the tensors that depend on the input."""

    def __init__(self, events: Observed, module: Callable[[], str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._events, self._module = events, module
        self._dependent = WeakIdKeyDictionary()

    def follow(self, value: Any) -> None:
        """Marks all tensors in a value as dependent on the input."""
        for tensor in tree_leaves(value):
            if isinstance(tensor, torch.Tensor):
                self._dependent[tensor] = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Records the operator and runs it."""
        result = func(*args, **(kwargs or {}))
        name, events = func.overloadpacket.__name__, self._events
        events.operators.add(name)
        dependent = any(isinstance(leaf, torch.Tensor) and leaf in self._dependent for leaf in tree_leaves(args))
        if dependent:
            self.follow(result)
        if name in NORMALISES and len(args[0]) > 1 and _normalises_batch(func, args, kwargs or {}):
            # An InstanceNorm is computed as a BatchNorm of one input with more channels.
            running = args[3] if len(args) > 3 and isinstance(args[3], torch.Tensor) else None
            (events.batch_statistics if running is None else events.training)[self._module()] = None
        elif torch.Tag.nondeterministic_seeded in func.tags:
            events.random[self._module()] = None
        elif name == "_local_scalar_dense" and dependent:
            events.reads[_place()] = None
        return result


def _normalises_batch(func: Any, args: Any, kwargs: Any) -> bool:
    """True if a BatchNorm computes with statistics of its input."""
    names = [argument.name for argument in func._schema.arguments]
    values = dict(zip(names, args, strict=False)) | kwargs
    return bool(values.get("training", values.get("train", "update" in func.overloadpacket.__name__)))


def _place() -> str:
    """Returns FILE:LINE of the innermost frame outside PyTorch and lmconv; empty if there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if not path.name.startswith("<") and not any(folder in path.parents for folder in PACKAGES):
            return f"{path}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""
