"""Runs sessions in chunks and collects their outputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lmconv.networks.heads import head_of
from lmconv.networks.interfaces import interface_of
from lmconv.networks.outputs import Outputs
from lmconv.networks.preprocess import network_input
from lmconv.networks.seeded import noise_crops
from lmconv.types import Arrays, Float32, ModelSpec, Session, Uint8

CHUNK_PIXELS = 64 * 112 * 112
"""Largest number of input pixels in a chunk, so that memory grows neither with the inputs nor with their size."""
CHUNK = 32
"""Largest number of inputs in a chunk."""


def landmarks(session: Session, spec: ModelSpec, inputs: Float32 | Uint8) -> Float32:
    """Runs a landmark network in chunks.

    Args:
        session: A session with the output `landmarks`.
        spec: Spec of the artefact; for a fixed batch size the last input is repeated to fill the last chunk.
        inputs: (n, 3, H, W) float32 network inputs, or (n, H, W, 3) uint8 images, see `Interface.feed`.

    Returns:
        (n, L, 2) float32, x before y, fractions of the input's width and height.
    """
    return outputs(session, spec, inputs, maps=0).landmarks


def outputs(
    session: Session,
    spec: ModelSpec,
    inputs: Float32 | Uint8,
    *,
    frame: Uint8 | None = None,
    maps: int | None = None,
) -> Outputs:
    """Runs a network in chunks and collects all outputs.

    Args:
        session: The session.
        spec: Spec of the artefact.
        inputs: The input `Interface.batched`, n rows.
        frame: (H, W, 3) uint8, passed with every chunk to an artefact that takes a frame; `inputs` are then the boxes.
        maps: Number of inputs for which heatmaps are kept; None for all.
    """
    shared: Arrays = {} if frame is None else {"frame": frame}
    return head_of(spec).collect(_chunks(session, spec, inputs, shared), maps)


def _chunks(
    session: Session, spec: ModelSpec, inputs: Float32 | Uint8, shared: Arrays
) -> Iterator[tuple[int, dict[str, Float32]]]:
    """Yields the index of the first input and the outputs of each chunk; landmarks as fractions of the input."""
    interface, coordinates = interface_of(spec), head_of(spec).coordinates
    size = chunk_size(spec, interface.input_size(inputs))
    for start in range(0, len(inputs), size):
        chunk = inputs[start : start + size]
        padding = spec.batch - len(chunk) if spec.batch else 0
        padded = np.concatenate([chunk, np.repeat(chunk[-1:], padding, 0)]) if padding else chunk
        result = session.run({**shared, interface.batched: padded})
        unpadded = {name: value[: len(chunk)] for name, value in result.items()}
        yield start, unpadded | {name: interface.fractions(unpadded[name], chunk) for name in coordinates}


def chunk_size(spec: ModelSpec, size: tuple[int, int]) -> int:
    """Returns the number of inputs in a chunk: the fixed batch, or a power of two.

    The seeded inputs of a comparison then fill whole chunks, for runtimes that compile a network anew for every batch.

    Args:
        spec: Spec of the artefact.
        size: (height, width) of an input, pixels.
    """
    height, width = size
    most = min(CHUNK, max(1, CHUNK_PIXELS // (height * width)))
    return spec.batch or 1 << (most.bit_length() - 1)


def noise(spec: ModelSpec, count: int, seed: int) -> Float32:
    """Returns seeded network inputs: the crops of `noise_crops`, pre-processed.

    Returns:
        (count, 3, H, W) float32.
    """
    return network_input(noise_crops(spec, count, seed), spec.preprocess)
