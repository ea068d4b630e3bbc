"""Functions on sessions, and the seeded inputs that every comparison of networks begins with."""

from __future__ import annotations

import numpy as np

from lmconv.preprocess import network_input
from lmconv.types import Float32, ModelSpec, Session


def landmarks(session: Session, spec: ModelSpec, inputs: Float32, *, batch: int = 64) -> Float32:
    """Runs a landmark network in chunks, so that memory does not grow with the number of faces.

    Args:
        session: A session with input `input` and output `landmarks`.
        spec: Its spec; a batch size fixed there is kept to by repeating the last input.
        inputs: (n, 3, H, W) float32 network inputs.
        batch: Largest chunk.

    Returns:
        (n, L, 2) float32, x before y, fractions of the input's width and height.
    """
    size = spec.batch or batch
    height, width = spec.input_size
    unit = np.array((width, height) if spec.decode == "pixels" else (1, 1), np.float32)
    chunks = []
    for start in range(0, len(inputs), size):
        chunk = inputs[start : start + size]
        padding = spec.batch - len(chunk) if spec.batch else 0
        padded = np.concatenate([chunk, np.repeat(chunk[-1:], padding, 0)]) if padding else chunk
        chunks.append(session.run({"input": padded})["landmarks"][: len(chunk)] / unit)
    return np.concatenate(chunks).astype(np.float32, copy=False)


def noise(spec: ModelSpec, count: int, seed: int) -> Float32:
    """Seeded network inputs: random pixels in squares of 1, 2, 4 and 8, pre-processed as a crop is.

    Returns:
        (count, 3, H, W) float32.
    """
    height, width = spec.input_size
    random = np.random.default_rng(seed)
    images = np.empty((count, height, width, 3), np.uint8)
    for index in range(count):
        cell = 2 ** (index % 4)
        coarse = random.integers(0, 256, (-(-height // cell), -(-width // cell), 3), np.uint8)
        images[index] = coarse.repeat(cell, 0).repeat(cell, 1)[:height, :width]
    return network_input(images, spec.preprocess)
