"""Prior boxes (anchors) of a single-shot detector, and decoding of the network's offsets from these priors."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmconv.types import Float32

VARIANCES = (0.1, 0.2)
"""Factors of the offsets: of the centre, and of the logarithm of width and height. The published detectors were trained
with these variances of SSD (Liu et al. 2016)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One feature map of a network, and the priors in each of its cells.

    Attributes:
        stride: Width and height of a cell, input pixels.
        sizes: Side of each square prior, input pixels.
        per_side: For each prior, the number of rows and columns in which the prior is repeated within a cell (Zhang et
            al. 2017, FaceBoxes, section 3.3, densification). With 1, the prior is in the middle of the cell.
    """

    stride: int
    sizes: tuple[int, ...]
    per_side: tuple[int, ...]


@functools.lru_cache(maxsize=8)
def prior_boxes(levels: tuple[Level, ...], height: int, width: int) -> Float32:
    """Returns the priors of a network, ordered by level, row, column, size, and row and column within a cell.

    The result is cached and read-only: all frames of a video have the same size and share the same priors.

    Args:
        levels: Feature maps of the network.
        height: Height of the network's input, pixels.
        width: Width of the network's input, pixels.

    Returns:
        (P, 4) float32: centre x, centre y, width, height, fractions of the input.
    """
    boxes = np.concatenate([_level_priors(level, height, width) for level in levels])
    boxes.setflags(write=False)
    return boxes


def _level_priors(level: Level, height: int, width: int) -> Float32:
    """Returns the priors of one level; see `prior_boxes`."""
    per_size = [_cell_priors(size, per_side) for size, per_side in zip(level.sizes, level.per_side, strict=True)]
    cell = np.concatenate(per_size)  # (K, 3): x and y in cells, and side, of the K priors in a cell
    rows, columns = -(-height // level.stride), -(-width // level.stride)
    y, x, prior = np.meshgrid(np.arange(rows), np.arange(columns), np.arange(len(cell)), indexing="ij")
    centres = (np.stack([x, y], -1) + cell[prior, :2]) * level.stride
    boxes = np.concatenate([centres, cell[prior][..., 2:].repeat(2, -1)], -1)
    return (boxes.reshape(-1, 4) / [width, height, width, height]).astype(np.float32)


def _cell_priors(size: int, per_side: int) -> NDArray[np.float64]:
    """Returns (per_side ** 2, 3) float64: x and y within a cell, in cells, and the side, of the priors of one size."""
    offsets = np.arange(per_side) / per_side if per_side > 1 else np.array([0.5])
    y, x = np.meshgrid(offsets, offsets, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, float(size))], 1)


def decode_boxes(offsets: Float32, priors: Float32) -> Float32:
    """Decodes boxes from a network's offsets.

    Args:
        offsets: (n, 4) float32: offsets of centre x, centre y, logarithm of width, logarithm of height.
        priors: (n, 4) float32: the prior of each row, see `prior_boxes`.

    Returns:
        (n, 4) float32: x1, y1, x2, y2, fractions of the input.
    """
    centres = priors[:, :2] + np.float32(VARIANCES[0]) * offsets[:, :2] * priors[:, 2:]
    sizes = priors[:, 2:] * np.exp(np.float32(VARIANCES[1]) * offsets[:, 2:])
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], 1)


def decode_points(offsets: Float32, priors: Float32) -> Float32:
    """Decodes points from a network's offsets.

    Args:
        offsets: (n, 2 k) float32: offsets of k points, x before y.
        priors: (n, 4) float32: the prior of each row, see `prior_boxes`.

    Returns:
        (n, k, 2) float32: points, x before y, fractions of the input.
    """
    shifts = offsets.reshape(-1, offsets.shape[1] // 2, 2)
    return priors[:, None, :2] + np.float32(VARIANCES[0]) * shifts * priors[:, None, 2:]
