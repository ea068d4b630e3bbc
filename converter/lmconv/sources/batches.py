"""Batch sizes at which a PyTorch network computes the same for each input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmconv.errors import InputError, listed
from lmconv.networks.heads import head_of
from lmconv.sources import usercode
from lmconv.types import Arrays, Float32, Source

if TYPE_CHECKING:
    from lmconv.sources.pytorch import TorchSource

BATCHES = (1, 2, 8)
"""Batch sizes at which a graph with a free batch is compared with its network."""
TOLERANCE = 1e-4
"""Largest difference of a value between two batch sizes, fraction of the largest value or of 1."""
JUMPS = 0.02
"""Largest share of values that may differ by more: an arg-max inside a network jumps where two cells are equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Batch of a network.

    Attributes:
        fixed: Batch size to which the network is fixed; None for a free batch.
        note: Reason for a fixed batch, in words.
    """

    fixed: int | None = None
    note: str = ""


def batch_of(source: Source, session: TorchSource, asked: int | None = None) -> Batch:
    """Runs a user's network at several batch sizes, and decides if the batch can be free.

    Args:
        source: The network.
        session: The opened network.
        asked: Batch size that the user asked for; None for a free batch.

    Raises:
        InputError: The network fails, or needs a fixed batch that the user has to choose.
    """
    from lmconv.inference.session import noise

    if not usercode.foreign(source):
        return Batch()
    images, fixed = noise(source.spec, max(BATCHES), 0), asked or 1
    results = {size: _attempt(session, images[:size]) for size in BATCHES}
    errors = {size: result for size, result in results.items() if isinstance(result, InputError)}
    if len(errors) == len(BATCHES):
        raise errors[2]
    if fixed in errors:
        hint = f"the network runs at a batch of {next(size for size in BATCHES if size not in errors)}: use --batch"
        raise InputError(errors[fixed].message, hint=hint)
    if errors:
        reason = f"at a batch of {min(errors)}, {next(iter(errors.values())).message}"
        return Batch(fixed=fixed, note=_note(asked, reason))
    arrays = {size: result for size, result in results.items() if not isinstance(result, InputError)}
    names = head_of(source.spec).continuous_outputs
    if all(_agree(arrays[size], arrays[max(BATCHES)], names, size) for size in BATCHES):
        return Batch()
    # A black image as the neighbour shows an influence that another noise image hides.
    other = _attempt(session, np.stack([images[0], np.zeros_like(images[0])]))
    if isinstance(other, InputError) or not _agree(arrays[2], other, names, 1):
        reason = "the result of an input depends on the other inputs of its batch" + _layers(source, session)
        if asked is None:
            hint = "use --batch 1 for one face at a time, or --batch N"
            raise InputError(f"{usercode.foreign(source)}: {reason}", hint=hint)
        return Batch(fixed=fixed)
    return Batch(fixed=fixed, note=_note(asked, "forward() takes another way for other batch sizes"))


def same(result: Float32, expected: Float32) -> bool:
    """True if two outputs of a network are equal except for rounding."""
    if result.shape != expected.shape:
        return False
    scale = max(1.0, float(np.nan_to_num(np.abs(expected)).max(initial=0.0)))
    near = np.abs(result - expected) <= TOLERANCE * scale
    return bool((near | (np.isnan(result) & np.isnan(expected))).mean() >= 1 - JUMPS)


def _note(asked: int | None, reason: str) -> str:
    return "" if asked else f"the batch is fixed to 1: {reason} (--batch N for another)"


def _attempt(session: TorchSource, images: Float32) -> Arrays | InputError:
    """Runs the network; returns the error if the network fails."""
    try:
        return session.run({"input": images})
    except InputError as error:
        return error


def _agree(some: Arrays, others: Arrays, names: tuple[str, ...], count: int) -> bool:
    """True if the outputs for the first inputs are the same."""
    return all(same(some[name][:count], others[name][:count]) for name in names)


def _layers(source: Source, session: TorchSource) -> str:
    """Names the layers that compute statistics of the batch, if there are any."""
    import torch

    from lmconv.sources.observing import observed

    height, width = source.spec.input_size
    network = session.network.get_submodule("net")
    with torch.no_grad(), observed(network) as events:
        network(torch.zeros(2, 3, height, width))
    return f": {listed(events.batch_statistics)} without running statistics" if events.batch_statistics else ""
