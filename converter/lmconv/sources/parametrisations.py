"""Parametrised weights in a state dict: PyTorch's weight norm and spectral norm, old and new form, and pruning."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

State = Mapping[str, "torch.Tensor"]

WEIGHT_NORM = {"{}_g": "parametrizations.{}.original0", "{}_v": "parametrizations.{}.original1"}
"""Names of `torch.nn.utils.weight_norm`, and of `torch.nn.utils.parametrizations.weight_norm`."""
SPECTRAL_NORM = {
    "{}_orig": "parametrizations.{}.original",
    "{}_u": "parametrizations.{}.0._u",
    "{}_v": "parametrizations.{}.0._v",
}
"""Names of `torch.nn.utils.spectral_norm`, and of `torch.nn.utils.parametrizations.spectral_norm`."""


def equivalents(state: State, network: State) -> Iterator[State]:
    """Yields the state itself, then equivalent states: with the names of the other form, or with plain weights.

    Args:
        state: Tensors of a file by dotted name.
        network: State dict of the network.
    """
    yield state
    if any("parametrizations" in name for name in network):
        yield _renamed(state, to_new=True)
    if any(re.search(r"_(g|orig)$", name) for name in network):
        yield _renamed(state, to_new=False)
    plain = _plain(_renamed(state, to_new=False))
    if plain.keys() != state.keys():
        yield plain


def _renamed(state: State, *, to_new: bool) -> dict[str, torch.Tensor]:
    """Returns the state with PyTorch's new or old names of weight norm and spectral norm."""
    result = dict(state)
    for first, table in (("_g", WEIGHT_NORM), ("_orig", SPECTRAL_NORM)):
        new_first = next(iter(table.values())).format(r"(\w+)")
        pattern = rf"(.*\.|)(\w+){first}" if to_new else rf"(.*\.|){new_first}"
        for match in filter(None, (re.fullmatch(pattern, name) for name in state)):
            pairs = [(match[1] + old.format(match[2]), match[1] + new.format(match[2])) for old, new in table.items()]
            pairs = pairs if to_new else [(new, old) for old, new in pairs]
            if all(source in result for source, _ in pairs):
                result |= {target: result.pop(source) for source, target in pairs}
    return result


def _plain(state: State) -> dict[str, torch.Tensor]:
    """Returns the state with the weights that weight norm and pruning compute, in place of their factors."""
    import torch

    result = dict(state)
    for name in state:
        start = name[:-2]
        if name.endswith("_g") and f"{start}_v" in result:
            scale, direction = result.pop(name), result.pop(f"{start}_v")
            axis = max(range(scale.dim()), key=lambda side: scale.shape[side], default=0)
            result[start] = torch._weight_norm(direction.float(), scale.float(), axis)
        start = name.removesuffix("_mask")
        if name.endswith("_mask") and f"{start}_orig" in result:
            result[start] = result.pop(f"{start}_orig") * result.pop(name)
    return result
