"""MTCNN (Zhang et al. 2016, https://arxiv.org/abs/1604.02878): a cascade of three networks.

P-Net classifies every window of an image pyramid. R-Net classifies and refines the squares that P-Net accepts. O-Net
does the same with the squares that R-Net accepts, and predicts five points.

Thresholds, rounding and the pyramid follow https://github.com/TropComplique/mtcnn-pytorch, which the published system
uses. That project resizes with Pillow, and so does lmconv: the networks were trained on Pillow's bilinear filter, which
averages when a picture shrinks; OpenCV's filter does not. Unlike that project, lmconv does not clip the box of a crop
that reaches beyond the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from lmconv.detecting.suppression import suppress
from lmconv.detection import Detections, Detector, Run, detections
from lmconv.types import Float32, Float64, Uint8

if TYPE_CHECKING:
    from PIL.Image import Image

WINDOW, STRIDE = 12, 2
"""Side and stride of P-Net's windows, pixels of a resized picture."""
SMALLEST = 20
"""Side of the smallest face that P-Net searches for, pixels of the picture."""
FACTOR = 0.707
"""Ratio of the sizes of two neighbouring scales of the pyramid."""
MAX_SCALE_PIXELS = 4_000_000
"""Pixels of the largest scale of the pyramid; memory grows with this number. A picture of more than 11 million pixels
loses its finest scales."""
SCORES = (0.6, 0.7, 0.8)
"""Scores that a window or square must exceed in P-Net, R-Net and O-Net."""
MAX_OVERLAP_IN_SCALE, MAX_OVERLAP = 0.5, 0.7
"""Largest overlap of two boxes that suppression keeps: within one scale of the pyramid, and after each network."""


def _find(runs: Sequence[Run], picture: Uint8) -> Detections:
    """Detects the faces of a picture, (H, W, 3) uint8, BGR; see `Detector.find`."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture[..., ::-1]))
    squares = _propose(runs[0], image)
    rows, _ = _classify(runs[1], image, squares, 24, SCORES[1])
    remaining = suppress(rows[:, :4], rows[:, 4], MAX_OVERLAP, pixel=1)
    squares = _squares_around(_apply_offsets(rows)[remaining])
    rows, fractions = _classify(runs[2], image, squares, 48, SCORES[2])
    points = rows[:, None, :2] + fractions * (rows[:, None, 2:4] - rows[:, None, :2] + 1)
    boxes = _apply_offsets(rows)
    remaining = suppress(boxes[:, :4], boxes[:, 4], MAX_OVERLAP, over="smaller", pixel=1)
    return detections(boxes[remaining, :4], boxes[remaining, 4], points[remaining])


def _scales(height: int, width: int) -> list[float]:
    """Returns the scales of the pyramid, largest first.

    The shorter side is at least `WINDOW` pixels at every scale. Scales above `MAX_SCALE_PIXELS` are left out.

    Args:
        height: Height of the picture, pixels.
        width: Width of the picture, pixels.
    """
    first = WINDOW / SMALLEST
    count = math.ceil(math.log(WINDOW / (min(height, width) * first), FACTOR))
    scales = [first * FACTOR**index for index in range(count)]
    return [scale for scale in scales if height * width * scale**2 <= MAX_SCALE_PIXELS]


def _propose(run: Run, image: Image) -> Float64:
    """Returns the squares that P-Net accepts, (n, 4) float64: x1, y1, x2, y2, whole pixels of the picture."""
    per_scale = [_propose_at(run, image, scale) for scale in _scales(image.height, image.width)]
    rows = np.concatenate([np.empty((0, 9)), *per_scale])
    return _squares_around(_apply_offsets(rows)[suppress(rows[:, :4], rows[:, 4], MAX_OVERLAP, pixel=1)])


def _propose_at(run: Run, image: Image, scale: float) -> Float64:
    """Returns the windows of one scale that P-Net accepts, (n, 9) float64: box (4), score, offsets (4)."""
    size = math.ceil(image.width * scale), math.ceil(image.height * scale)
    outputs = run({"input": _network_input([_resize(image, size)])})
    scores = outputs["scores"][0, 1]
    row, column = np.nonzero(scores > SCORES[0])
    corner = np.stack([column, row], 1) * STRIDE + 1.0
    boxes = np.round(np.concatenate([corner, corner + WINDOW], 1) / scale)
    rows = np.column_stack([boxes, scores[row, column], outputs["boxes"][0, :, row, column]])
    return rows[suppress(boxes, rows[:, 4], MAX_OVERLAP_IN_SCALE, pixel=1)]


def _classify(run: Run, image: Image, squares: Float64, side: int, threshold: float) -> tuple[Float64, Float64]:
    """Runs R-Net or O-Net on the crops of all squares, in one batch, and drops squares with a low score.

    Args:
        run: The network.
        image: The picture.
        squares: (n, 4) float64: x1, y1, x2, y2, whole pixels of the picture.
        side: Side of the network's input, pixels.
        threshold: Score that a square must exceed.

    Returns:
        (m, 9) float64: box (4), score, offsets (4). (m, 5, 2) float64: points, x before y, fractions of the box; zeros
        from R-Net, which has no points.
    """
    if not len(squares):
        return np.empty((0, 9)), np.empty((0, 5, 2))
    crops = [_resize(image.crop((x1, y1, x2 + 1, y2 + 1)), (side, side)) for x1, y1, x2, y2 in squares.astype(int)]
    outputs = run({"input": _network_input(crops)})
    is_face = outputs["scores"][:, 1] > threshold
    points = outputs["points"] if "points" in outputs else np.zeros((len(squares), 10), np.float32)
    rows = np.column_stack([squares, outputs["scores"][:, 1], outputs["boxes"]])
    return rows[is_face], points[is_face].reshape(-1, 2, 5).transpose(0, 2, 1).astype(np.float64)


def _apply_offsets(rows: Float64) -> Float64:
    """Moves the corners of boxes by their offsets, which are fractions of width and height.

    Args:
        rows: (n, 9) float64: box (4), score, offsets (4).

    Returns:
        (n, 5) float64: box (4), score.
    """
    sides = rows[:, 2:4] - rows[:, :2] + 1
    return np.column_stack([rows[:, :4] + rows[:, 5:9] * np.tile(sides, 2), rows[:, 4]])


def _squares_around(rows: Float64) -> Float64:
    """Returns the squares around boxes: the same centre, the longer side, whole pixels.

    Args:
        rows: (n, 4 or more) float64: x1, y1, x2, y2 first, pixels.

    Returns:
        (n, 4) float64: x1, y1, x2, y2, pixels.
    """
    sides = rows[:, 2:4] - rows[:, :2] + 1
    longer = sides.max(1, keepdims=True, initial=1)
    corner = rows[:, :2] + sides / 2 - longer / 2
    return np.round(np.concatenate([corner, corner + longer - 1], 1))


def _resize(image: Image, size: tuple[int, int]) -> Uint8:
    """Resizes a picture to (width, height) with Pillow's bilinear filter; returns (height, width, 3) uint8, RGB."""
    from PIL.Image import Resampling

    return np.asarray(image.resize(size, Resampling.BILINEAR))


def _network_input(pictures: Sequence[Uint8]) -> Float32:
    """Returns (n, 3, h, w) float32, RGB, (v - 127.5) / 128, of n pictures, (h, w, 3) uint8, RGB."""
    blob = cv2.dnn.blobFromImages(list(pictures), 1 / 128, mean=(127.5, 127.5, 127.5))
    return np.asarray(blob, np.float32)


plugin = Detector(
    name="mtcnn",
    summary="MTCNN: faces of any size down to 20 pixels, with five points; slow on large pictures",
    networks=("mtcnn_pnet", "mtcnn_rnet", "mtcnn_onet"),
    find=_find,
)
