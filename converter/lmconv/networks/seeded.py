"""Seeded crops and frames, on which networks are compared and timed without real pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lmconv.networks.squares import Square, around, cut
from lmconv.types import Crop, Float32, ModelSpec, Uint8

PARITY_SEED = 1
"""Seed of the random inputs on which `lmconv verify` compares; reference.npz has another seed."""
PARITY_INPUTS = 64
"""Number of these inputs."""
SIZE = (480, 640)
"""Height and width of a seeded frame, pixels."""
FACES = 8
"""Number of boxes in a seeded frame."""
SIDES = (20.0, 400.0)
"""Smallest and largest side of a seeded box, pixels: crops are enlarged, reduced, and reach beyond the border."""


def noise_crops(spec: ModelSpec, count: int, seed: int) -> Uint8:
    """Returns seeded crops: random pixels in squares of 1, 2, 4 and 8 pixels.

    Returns:
        (count, H, W, 3) uint8, BGR.
    """
    height, width = spec.input_size
    random = np.random.default_rng(seed)
    images = np.empty((count, height, width, 3), np.uint8)
    for index in range(count):
        cell = 2 ** (index % 4)
        coarse = random.integers(0, 256, (-(-height // cell), -(-width // cell), 3), np.uint8)
        images[index] = coarse.repeat(cell, 0).repeat(cell, 1)[:height, :width]
    return images


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """A frame and the boxes around its faces.

    Attributes:
        frame: (H, W, 3) uint8, BGR.
        boxes: (n, 4) float32: x1, y1, x2, y2, pixels of the frame; n is at least 1.
    """

    frame: Uint8
    boxes: Float32

    def squares(self, crop: Crop) -> list[Square]:
        """Returns the squares around the boxes."""
        return [around(box.tolist(), crop) for box in self.boxes]

    def crops(self, spec: ModelSpec) -> Uint8:
        """Returns the squares, cut out on the host: (n, h, w, 3) uint8, BGR."""
        return np.stack([cut(self.frame, square, spec.input_size) for square in self.squares(spec.crop)])


def scenes(count: int, seed: int) -> Iterator[Scene]:
    """Yields seeded frames with `count` boxes in total, `FACES` per frame, random pixels in squares of 2, 4, 8, 16."""
    for index, start in enumerate(range(0, count, FACES)):
        yield scene(min(FACES, count - start), (seed, index), cell=2 ** (1 + index % 4))


def scene(count: int, seed: int | tuple[int, int], *, cell: int = 4, size: tuple[int, int] = SIZE) -> Scene:
    """Returns a seeded frame.

    Args:
        count: Number of boxes, of random places and sizes.
        seed: Seed of the random numbers.
        cell: Side of the squares of equal pixels.
        size: (height, width) of the frame, pixels.
    """
    random = np.random.default_rng(seed)
    height, width = size
    coarse = random.integers(0, 256, (-(-height // cell), -(-width // cell), 3), np.uint8)
    centres = random.random((count, 2)) * (width, height)
    halves = SIDES[0] * (SIDES[1] / SIDES[0]) ** random.random((count, 2)) / 2
    return Scene(
        frame=np.ascontiguousarray(coarse.repeat(cell, 0).repeat(cell, 1)[:height, :width]),
        boxes=np.concatenate([centres - halves, centres + halves], 1).astype(np.float32),
    )
