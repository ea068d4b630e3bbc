"""MTCNN (Zhang et al. 2016, https://arxiv.org/abs/1604.02878): three networks, each on what the one before let through.

P-Net looks at every window of pictures of a pyramid, R-Net at what it took for faces, O-Net at what remains, and gives
five points. Thresholds, roundings and the pyramid are those of https://github.com/TropComplique/mtcnn-pytorch, which
the published system uses, and so is Pillow, to whose bilinear filter the networks are used: it averages where it
shrinks, and OpenCV's does not. Unlike there, the box of a crop that reaches beyond the picture stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from lmconv.detecting.boxes import suppress
from lmconv.detection import Detections, Detector, Run, detections
from lmconv.types import Float32, Float64, Uint8

if TYPE_CHECKING:
    from PIL.Image import Image

WINDOW, STRIDE = 12, 2
"""Of P-Net: the side of what it takes for a face, and how far apart these are; pixels."""
SMALLEST = 20
"""The side of the smallest face that is looked for, pixels of the picture."""
FACTOR = 0.707
LARGEST = 4_000_000
"""Pixels that P-Net is shown at once. Of a picture of more than 11 million, the finest scales are left out: they would
need memory without end."""
SCORES = (0.6, 0.7, 0.8)
SAME_SCALE, SAME = 0.5, 0.7
"""How far boxes may overlap: within a scale of the pyramid, and after each network."""


def _find(runs: Sequence[Run], picture: Uint8) -> Detections:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture[..., ::-1]))
    boxes = _proposed(runs[0], image)
    boxes, _ = _refined(runs[1], image, boxes, 24, SCORES[1])
    kept = suppress(boxes[:, :4], boxes[:, 4], SAME, pixel=1)
    boxes = _squared(_moved(boxes)[kept])
    boxes, points = _refined(runs[2], image, boxes, 48, SCORES[2])
    corners = boxes[:, None, :2] + points * (boxes[:, None, 2:4] - boxes[:, None, :2] + 1)
    boxes = _moved(boxes)
    kept = suppress(boxes[:, :4], boxes[:, 4], SAME, over="smaller", pixel=1)
    return detections(boxes[kept, :4], boxes[kept, 4], corners[kept])


def _scales(height: int, width: int) -> list[float]:
    """Of the pyramid, the largest first: those at which P-Net sees the shorter side, and memory suffices."""
    first = WINDOW / SMALLEST
    count = math.ceil(math.log(WINDOW / (min(height, width) * first), FACTOR))
    scales = [first * FACTOR**index for index in range(count)]
    return [scale for scale in scales if height * width * scale**2 <= LARGEST]


def _proposed(run: Run, image: Image) -> Float64:
    """(n, 4) float64, whole pixels: the squares that P-Net takes for faces."""
    found = [_at(run, image, scale) for scale in _scales(image.height, image.width)]
    boxes = np.concatenate([np.empty((0, 9)), *found])
    return _squared(_moved(boxes)[suppress(boxes[:, :4], boxes[:, 4], SAME, pixel=1)])


def _at(run: Run, image: Image, scale: float) -> Float64:
    """(n, 9) float64: windows of one scale: box, score and offsets."""
    size = math.ceil(image.width * scale), math.ceil(image.height * scale)
    found = run({"input": _blob([_resized(image, size)])})
    scores = found["scores"][0, 1]
    row, column = np.nonzero(scores > SCORES[0])
    corner = np.stack([column, row], 1) * STRIDE + 1.0
    boxes = np.round(np.concatenate([corner, corner + WINDOW], 1) / scale)
    rows = np.column_stack([boxes, scores[row, column], found["boxes"][0, :, row, column]])
    return rows[suppress(boxes, rows[:, 4], SAME_SCALE, pixel=1)]


def _refined(run: Run, image: Image, boxes: Float64, side: int, threshold: float) -> tuple[Float64, Float64]:
    """What R-Net or O-Net lets through of the crops that P-Net or R-Net proposed, in one batch.

    Returns:
        (m, 9) float64: box, score and offsets; (m, 5, 2) float64: points, fractions of the box, from O-Net.
    """
    if not len(boxes):
        return np.empty((0, 9)), np.empty((0, 5, 2))
    crops = [_resized(image.crop((x1, y1, x2 + 1, y2 + 1)), (side, side)) for x1, y1, x2, y2 in boxes.astype(int)]
    found = run({"input": _blob(crops)})
    sure = found["scores"][:, 1] > threshold
    points = found["points"] if "points" in found else np.zeros((len(boxes), 10), np.float32)
    rows = np.column_stack([boxes, found["scores"][:, 1], found["boxes"]])
    return rows[sure], points[sure].reshape(-1, 2, 5).transpose(0, 2, 1).astype(np.float64)


def _moved(rows: Float64) -> Float64:
    """Boxes with their corners moved by their offsets, which are fractions of their sides; (n, 5) with the scores."""
    sides = rows[:, 2:4] - rows[:, :2] + 1
    return np.column_stack([rows[:, :4] + rows[:, 5:9] * np.tile(sides, 2), rows[:, 4]])


def _squared(rows: Float64) -> Float64:
    """(n, 4) float64, whole pixels: the squares around the middles of boxes, as long as their longer sides."""
    sides = rows[:, 2:4] - rows[:, :2] + 1
    longer = sides.max(1, keepdims=True, initial=1)
    corner = rows[:, :2] + sides / 2 - longer / 2
    return np.round(np.concatenate([corner, corner + longer - 1], 1))


def _resized(image: Image, size: tuple[int, int]) -> Uint8:
    from PIL.Image import Resampling

    return np.asarray(image.resize(size, Resampling.BILINEAR))


def _blob(pictures: Sequence[Uint8]) -> Float32:
    """(n, 3, h, w) float32, RGB, of pictures that are already: (v - 127.5) / 128."""
    blob = cv2.dnn.blobFromImages(list(pictures), 1 / 128, mean=(127.5, 127.5, 127.5))
    return np.asarray(blob, np.float32)


plugin = Detector(
    name="mtcnn",
    summary="MTCNN: faces of any size down to 20 pixels, with five points; slow on large pictures",
    networks=("mtcnn_pnet", "mtcnn_rnet", "mtcnn_onet"),
    find=_find,
)
