"""The tensors in the result of a PyTorch module, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def tensors(result: Any) -> list[tuple[str, torch.Tensor]]:
    """Returns the tensors in a result, in their order, each with its name.

    Results of every usual form are opened, to any depth: tuples and lists, named tuples, dictionaries, dataclasses and
    namespaces. None, numbers and text are left out.

    Args:
        result: Result of a module's forward.

    Returns:
        Names and tensors. A name is the path to the tensor, joined by dots: the index in a tuple or list, the field or
        the key elsewhere, as in `"1"`, `"landmarks"` or `"stages.0.points"`. The name of a single tensor is empty.
    """
    import torch

    if isinstance(result, torch.Tensor):
        return [("", result)]
    return [
        (f"{name}.{inner}" if inner else name, tensor)
        for name, part in _parts(result)
        for inner, tensor in tensors(part)
    ]


def _parts(result: Any) -> Iterator[tuple[str, Any]]:
    """Yields the names and values of the parts of a result; nothing for a value without parts."""
    if isinstance(result, Mapping):
        yield from ((str(key), value) for key, value in result.items())
    elif dataclasses.is_dataclass(result) and not isinstance(result, type):
        yield from ((field.name, getattr(result, field.name)) for field in dataclasses.fields(result))
    elif isinstance(result, tuple) and hasattr(result, "_fields"):
        yield from zip(result._fields, result, strict=True)
    elif isinstance(result, SimpleNamespace):
        yield from vars(result).items()
    elif isinstance(result, tuple | list):
        yield from ((str(index), value) for index, value in enumerate(result))
