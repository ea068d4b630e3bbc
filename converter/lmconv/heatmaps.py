"""From heatmaps to landmarks, inside the graph: ordinary operators, no shape that depends on the data.

What is exported is ArgMax, ReduceMax, GatherElements, Where, Sign, Softmax, comparisons and arithmetic, which ONNX
Runtime, OpenVINO and TensorRT all have for the types that they meet here. Coordinates are fractions of the map, hence
of the input that it covers: the cell at column x has its centre at (x + 0.5) / W.
"""

from __future__ import annotations

import torch
from torch import Tensor


def argmax_quarter(heatmaps: Tensor) -> Tensor:
    """The largest cell, moved by a quarter of a cell towards the larger neighbour in x and in y.

    The rule by which stacked hourglasses (Newell et al. 2016, https://arxiv.org/abs/1603.06937) are evaluated, as in
    `final_preds` of bearpaw/pytorch-pose, pose/utils/evaluation.py, half a cell included: equal neighbours do not
    move it, and in a cell at any border nothing moves, in neither direction. Of equal largest cells the first counts,
    row by row. That code also sends a point to the corner where its whole map is at most 0; this one does not.

    Args:
        heatmaps: (N, L, H, W) float32; H and W at least 3.

    Returns:
        (N, L, 2) float32, x before y, fractions of the map.
    """
    height, width = heatmaps.shape[2:]
    row = heatmaps.amax(3).argmax(2, keepdim=True)  # no index is divided: in float16 that would be off beyond 2048
    column = heatmaps.argmax(3).gather(2, row)
    inside = (column > 0) & (column < width - 1) & (row > 0) & (row < height - 1)
    centre = torch.where(inside, row * width + column, width + 1)  # not a clamp: TensorRT's takes no integers
    steps = torch.tensor([1, width, -1, -width], device=row.device)
    around = heatmaps.flatten(2).gather(2, centre + steps)
    shift = 0.25 * torch.sign(around[..., :2] - around[..., 2:])
    cell = torch.cat([column, row], 2).to(heatmaps.dtype)
    return (cell + shift * inside.to(heatmaps.dtype) + 0.5) / _size(heatmaps)


def soft_argmax(heatmaps: Tensor, beta: float = 1.0) -> Tensor:
    """The mean position under a softmax over the map (Sun et al. 2018, https://arxiv.org/abs/1711.08229).

    Args:
        heatmaps: (N, L, H, W) float32, logits.
        beta: What they are multiplied by before; the larger, the nearer to the arg-max.

    Returns:
        (N, L, 2) float32, x before y, fractions of the map.
    """
    height, width = heatmaps.shape[2:]
    weights = torch.softmax(beta * heatmaps.flatten(2), 2).reshape(-1, heatmaps.shape[1], height, width)
    columns = torch.arange(width, device=heatmaps.device, dtype=heatmaps.dtype)
    rows = torch.arange(height, device=heatmaps.device, dtype=heatmaps.dtype)
    mean = torch.stack([(weights.sum(2) * columns).sum(2), (weights.sum(3) * rows).sum(2)], 2)
    return (mean + 0.5) / _size(heatmaps)


def _size(heatmaps: Tensor) -> Tensor:
    """(2,): width and height of the maps."""
    height, width = heatmaps.shape[2:]
    return torch.tensor([width, height], device=heatmaps.device, dtype=heatmaps.dtype)
