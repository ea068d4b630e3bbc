"""Decodes SimCC vectors to landmarks: inside the graph, and in NumPy for the source network.

SimCC (Li et al. 2022, https://arxiv.org/abs/2107.03332) classifies the x and the y of each point: a vector of x has one
score per column cell, a vector of y one per row cell. The largest score is the coordinate; a cell with index i is at
i / k pixels of the input, with k cells per pixel, as `get_simcc_maximum` in open-mmlab/mmpose decodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmconv.networks.heatmaps import SLACK
from lmconv.types import Decode, Float32

if TYPE_CHECKING:
    import onnx

SIMCC = """
    x_cell = ArgMax <axis = 2, keepdims = 1> (x_vectors)
    y_cell = ArgMax <axis = 2, keepdims = 1> (y_vectors)
    position = Concat <axis = 2> (x_cell, y_cell)
    cells = Cast <to = 1> (position)
    landmarks = Div (cells, CELLS)
"""


def cells(how: Decode, widths: tuple[int, int], size: tuple[int, int]) -> Float32:
    """Returns the numbers of cells over the width and over the height of the input: (2,) float32.

    Args:
        how: The rule; `beta` is the number of cells per pixel, 0 if the vectors span the input.
        widths: Lengths of the vectors of x and of y.
        size: (height, width) of the input, pixels.
    """
    return np.array((size[1] * how.beta, size[0] * how.beta) if how.beta else widths, np.float32)


def decode(vectors: Float32, spans: Float32, split: int) -> Float32:
    """Decodes vectors.

    Args:
        vectors: (N, L, w) float32: the vectors of x, then the vectors of y.
        spans: Result of `cells`.
        split: Length of the vectors of x.

    Returns:
        (N, L, 2) float32, x before y, fractions of the input.
    """
    position = np.stack([vectors[..., :split].argmax(2), vectors[..., split:].argmax(2)], 2)
    return position.astype(np.float32) / spans


def undecided(vectors: Float32, split: int) -> np.ndarray:
    """Returns (N, L) bool: landmarks that rounding alone can move, because two cells have almost the largest score."""
    result = np.zeros(vectors.shape[:2], bool)
    for part in (vectors[..., :split], vectors[..., split:]):
        top = np.partition(part, -2, axis=2)[..., -2:]
        result |= top[..., 1] - top[..., 0] < 2 * SLACK * np.ptp(part, axis=2)
    return result


def append(
    graph: onnx.GraphProto, vectors: str, widths: tuple[int, int], spans: Float32, *, prefix: str = "decode"
) -> None:
    """Appends the decoding to a graph: from (N, L, w) float32 vectors to (N, L, 2) float32 `landmarks`.

    Args:
        graph: Changed in place; its list of outputs stays unchanged.
        vectors: Name of the vectors of x and y, joined.
        widths: Lengths of the vectors of x and of y.
        spans: Result of `cells`.
        prefix: Start of the names of all intermediate values; no other name in the graph may have this start.
    """
    from lmconv.graph.facts import parse_nodes

    slices = """
        x_vectors = Slice (vectors, ZERO, SPLIT, AXIS)
        y_vectors = Slice (vectors, SPLIT, LAST, AXIS)
    """
    constants = {"ZERO": [0], "SPLIT": [widths[0]], "LAST": [sum(widths)], "AXIS": [2], "CELLS": spans}
    added, tensors = parse_nodes(slices + SIMCC, constants, {"vectors": vectors, "landmarks": "landmarks"}, prefix)
    graph.node.extend(added)
    graph.initializer.extend(tensors)
