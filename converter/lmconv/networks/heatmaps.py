"""Decodes heatmaps to landmarks: inside the graph, and in NumPy for the source network.

The graph uses ArgMax, ReduceMax, GatherElements, Where, Sign, Softmax, comparisons and arithmetic, which ONNX Runtime,
OpenVINO and TensorRT all support for these types; no shape depends on the data. Coordinates are fractions of the map,
and so of the input: the cell at column x has its centre at (x + 0.5) / W.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmconv.errors import UsageError
from lmconv.types import Decode, Float32

if TYPE_CHECKING:
    import onnx

ARGMAX = """
    row_maxima = ReduceMax <keepdims = 0> (heatmaps, AXIS_3)
    row = ArgMax <axis = 2, keepdims = 1> (row_maxima)
    columns = ArgMax <axis = 3, keepdims = 0> (heatmaps)
    column = GatherElements <axis = 2> (columns, row)
    right_of_border = Greater (column, ZERO)
    left_of_border = Less (column, LAST_COLUMN)
    below_border = Greater (row, ZERO)
    above_border = Less (row, LAST_ROW)
    inside_columns = And (right_of_border, left_of_border)
    inside_rows = And (below_border, above_border)
    inside = And (inside_columns, inside_rows)
    row_start = Mul (row, WIDTH)
    cell = Add (row_start, column)
    centre = Where (inside, cell, FIRST_INSIDE)
    around = Add (centre, STEPS)
    flat = Reshape (heatmaps, FLAT_SHAPE)
    neighbours = GatherElements <axis = 2> (flat, around)
    towards = Slice (neighbours, ZERO, TWO, AXIS_2)
    away = Slice (neighbours, TWO, FOUR, AXIS_2)
    slope = Sub (towards, away)
    side = Sign (slope)
    quarter = Mul (side, QUARTER)
    weight = Cast <to = 1> (inside)
    shift = Mul (quarter, weight)
    position = Concat <axis = 2> (column, row)
    cells = Cast <to = 1> (position)
    moved = Add (cells, shift)
"""
"""Names in capitals are constants. No index is divided: a division in float16 is wrong beyond 2048. There is no Clip:
TensorRT's Clip takes no integers."""

SOFT_ARGMAX = """
    sharpened = Mul (heatmaps, BETA)
    flat = Reshape (sharpened, FLAT_SHAPE)
    probabilities = Softmax <axis = 2> (flat)
    columns = Mul (probabilities, COLUMNS)
    rows = Mul (probabilities, ROWS)
    column = ReduceSum <keepdims = 1> (columns, AXIS_2)
    row = ReduceSum <keepdims = 1> (rows, AXIS_2)
    moved = Concat <axis = 2> (column, row)
"""

FRACTIONS = """
    centres = Add (moved, HALF)
    landmarks = Div (centres, SIZE)
"""


def parse(text: str) -> Decode:
    """Reads `argmax`, `soft-argmax[:BETA]` or `simcc[:CELLS_PER_PIXEL]`, the value of `--decode`.

    Raises:
        UsageError: The text has another form.
    """
    method, colon, beta = text.partition(":")
    try:
        factor = float(beta) if colon else 1.0
    except ValueError:
        factor = 0.0
    if method == "argmax" and not colon:
        return Decode(method="argmax")
    if method == "simcc" and not colon:
        return Decode(method="simcc", beta=0.0)
    real = np.finfo(np.float32)
    if method in ("soft-argmax", "simcc") and float(real.tiny) <= factor <= float(real.max):
        return Decode(method="soft-argmax" if method == "soft-argmax" else "simcc", beta=factor)
    hint = "argmax, soft-argmax:BETA or simcc:CELLS_PER_PIXEL, with numbers above 0"
    raise UsageError(f"--decode {text!r} is not known", hint=hint)


def decode(heatmaps: Float32, how: Decode) -> Float32:
    """Decodes heatmaps.

    `argmax` is the rule for evaluating stacked hourglasses (Newell et al. 2016, https://arxiv.org/abs/1603.06937), see
    `final_preds` in bearpaw/pytorch-pose, pose/utils/evaluation.py, with its offset of half a cell: the largest cell,
    moved by a quarter of a cell towards the larger neighbour in x and in y. Equal neighbours do not move the point. A
    cell at any border does not move in either direction. Of equal largest cells the first counts, row by row. The
    published code also moves a point to the corner if its whole map is at most 0; this function does not.

    `soft-argmax` is the mean position under a softmax over the map times `beta` (Sun et al. 2018,
    https://arxiv.org/abs/1711.08229): a larger beta moves the result closer to the arg-max.

    Args:
        heatmaps: (N, L, H, W) float32; H and W at least 3 for `argmax`.
        how: The rule.

    Returns:
        (N, L, 2) float32, x before y, fractions of the map.
    """
    height, width = heatmaps.shape[2:]
    flat = heatmaps.reshape(*heatmaps.shape[:2], height * width)
    if how.method == "argmax":
        cells = _argmax(flat, height, width)
    else:
        logits = np.float64(how.beta) * flat
        weights = np.exp(logits - logits.max(2, keepdims=True))
        rows, columns = np.divmod(np.arange(height * width), width)
        cells = (weights / weights.sum(2, keepdims=True)) @ np.stack([columns, rows], 1)
    return ((cells + 0.5) / (width, height)).astype(np.float32)


def _argmax(flat: Float32, height: int, width: int) -> np.ndarray:
    row, column = np.divmod(flat.argmax(2), width)
    slopes, inside = _slopes(flat, height, width)
    cells: np.ndarray = np.stack([column, row], 2) + 0.25 * np.sign(slopes) * inside[..., None]
    return cells


def _slopes(flat: Float32, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the slopes at the largest cell of each map.

    Returns:
        (N, L, 2): right minus left neighbour, and lower minus upper neighbour; (N, L) bool: True if the largest cell is
        at no border and so has all four neighbours.
    """
    best = flat.argmax(2)
    row, column = np.divmod(best, width)
    inside = (column > 0) & (column < width - 1) & (row > 0) & (row < height - 1)
    centre = np.where(inside, best, width + 1)
    right, left, below, above = (
        np.take_along_axis(flat, (centre + step)[..., None], 2)[..., 0] for step in (1, -1, width, -width)
    )
    return np.stack([right - left, below - above], 2), inside


SLACK = 1e-4
"""Largest difference of a heatmap value that rounding alone explains, fractions of the range of the map."""


def undecided(maps: Float32, how: Decode) -> np.ndarray:
    """Returns the landmarks that rounding alone can move: an arg-max is not continuous.

    Args:
        maps: (N, L, H, W) float32.
        how: The rule.

    Returns:
        (N, L) bool: True if rounding can select another cell or move the point in another direction.
    """
    if how.method != "argmax":
        return np.zeros(maps.shape[:2], bool)
    height, width = maps.shape[2:]
    flat = maps.reshape(*maps.shape[:2], height * width)
    top = np.partition(flat, -2, axis=2)[..., -2:]
    slopes, inside = _slopes(flat, height, width)
    slack = 2 * SLACK * np.ptp(flat, axis=2)
    result: np.ndarray = (top[..., 1] - top[..., 0] < slack) | (inside & (np.abs(slopes) < slack[..., None]).any(2))
    return result


def append(
    graph: onnx.GraphProto, heatmaps: str, size: tuple[int, int], how: Decode, *, prefix: str = "decode"
) -> None:
    """Appends the decoding to a graph: from (N, L, H, W) float32 heatmaps to (N, L, 2) float32 `landmarks`.

    Args:
        graph: Changed in place; its list of outputs stays unchanged.
        heatmaps: Name of the heatmaps.
        size: (H, W) of the heatmaps.
        how: The rule.
        prefix: Start of the names of all intermediate values; no other name in the graph may have this start.
    """
    from lmconv.graph.facts import parse_nodes

    height, width = size
    rows, columns = np.divmod(np.arange(height * width), width)
    constants = {
        "AXIS_2": [2], "AXIS_3": [3], "ZERO": [0], "TWO": [2], "FOUR": [4], "FLAT_SHAPE": [0, 0, height * width],
        "WIDTH": [width], "LAST_COLUMN": [width - 1], "LAST_ROW": [height - 1], "FIRST_INSIDE": [width + 1],
        "STEPS": [1, width, -1, -width], "QUARTER": 0.25, "HALF": 0.5, "BETA": float(how.beta),
        "SIZE": np.array([width, height], np.float32),
        "COLUMNS": columns.astype(np.float32), "ROWS": rows.astype(np.float32),
    }  # fmt: skip
    body = (ARGMAX if how.method == "argmax" else SOFT_ARGMAX) + FRACTIONS
    names = {"heatmaps": heatmaps, "landmarks": "landmarks"}
    added, tensors = parse_nodes(body, constants, names, prefix)
    graph.node.extend(added)
    graph.initializer.extend(tensors)
