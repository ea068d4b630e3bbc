"""RetinaFace with a MobileNet 0.25 trunk: https://github.com/biubug6/Pytorch_Retinaface (Deng et al. 2020).

The published script gives it pictures in full size, and so loses faces that are larger than its largest prior, 512
pixels, and takes others for faces: here a picture is made no larger than FaceBoxes takes it. Thresholds are those of
the script; its five points, which it computes and drops, are given.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from lmconv.detecting.boxes import Level, decoded, decoded_points, priors, suppress
from lmconv.detection import Detections, Detector, Run, detections
from lmconv.types import Uint8

MEAN = (104, 117, 123)
"""Of blue, green and red; nothing is divided."""
CANDIDATE, CANDIDATES = 0.05, 5000
SCORE, MOST = 0.5, 750
OVERLAP = 0.3

LEVELS = (
    Level(stride=8, sizes=(16, 32), per_side=(1, 1)),
    Level(stride=16, sizes=(64, 128), per_side=(1, 1)),
    Level(stride=32, sizes=(256, 512), per_side=(1, 1)),
)


def limited(height: int, width: int) -> tuple[int, int]:
    """Height and width at which FaceBoxes' script takes a picture: at most 720 and 1080 pixels; never enlarged."""
    scale = min(1.0, 720 / height)
    scale = min(scale, 1080 / width)
    return max(1, int(height * scale)), max(1, int(width * scale))


def dense(
    name: str,
    summary: str,
    levels: tuple[Level, ...],
    *,
    size: Callable[[int, int], tuple[int, int]] = limited,
) -> Detector:
    """A detector that gives a score and offsets to each of many priors.

    Args:
        name: Of it and of its network.
        summary: What it is for.
        levels: Its priors.
        size: Height and width at which it takes a picture of some height and width, pixels.
    """
    return Detector(name=name, summary=summary, networks=(name,), find=functools.partial(_find, levels, size))


def _find(
    levels: tuple[Level, ...], size: Callable[[int, int], tuple[int, int]], runs: Sequence[Run], picture: Uint8
) -> Detections:
    taken = size(*picture.shape[:2])
    if taken != picture.shape[:2]:
        resized = cv2.resize(picture, taken[::-1], interpolation=cv2.INTER_LINEAR)
    else:
        resized = picture
    found = runs[0]({"input": cv2.dnn.blobFromImage(resized, mean=MEAN)})
    scores = found["scores"][0, :, 1]
    likely = scores > CANDIDATE
    scores, prior = scores[likely], priors(levels, *taken)[likely]
    pixels = np.array(picture.shape[1::-1], np.float32)  # a fraction of the input is one of the picture
    boxes = decoded(found["boxes"][0, likely], prior) * np.tile(pixels, 2)
    kept = suppress(boxes, scores, OVERLAP, most=CANDIDATES, pixel=1)[:MOST]
    kept = kept[scores[kept] > SCORE]
    points = decoded_points(found["points"][0, likely][kept], prior[kept]) * pixels if "points" in found else None
    return detections(boxes[kept], scores[kept], points)


plugin = dense(
    "retinaface", "RetinaFace, MobileNet 0.25: faces of any size down to 16 pixels, with five points", LEVELS
)
