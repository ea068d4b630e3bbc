"""RetinaFace with a MobileNet 0.25 backbone: https://github.com/biubug6/Pytorch_Retinaface (Deng et al. 2020).

The published script runs the network on the full-size picture. The script therefore misses faces larger than the
largest prior, 512 pixels, and reports other objects as faces. lmconv limits the size of the picture as FaceBoxes does.
Thresholds come from the script. lmconv returns the five points, which the script computes and drops.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import cv2
import numpy as np

from lmconv.detecting.priors import Level, decode_boxes, decode_points, prior_boxes
from lmconv.detecting.suppression import suppress
from lmconv.detection import Detections, Detector, Run, detections
from lmconv.types import Uint8

MEAN = (104, 117, 123)
"""Mean of the blue, green and red channel, subtracted from the picture. The picture is not scaled."""
CANDIDATE_SCORE, MAX_CANDIDATES = 0.05, 5000
"""Score that a box must exceed to enter suppression, and the largest number of boxes that enter."""
SCORE, MAX_FACES = 0.5, 750
"""Score that a detected face must exceed, and the largest number of detected faces."""
MAX_IOU = 0.3
"""Largest IoU of two boxes that suppression keeps."""

LEVELS = (
    Level(stride=8, sizes=(16, 32), per_side=(1, 1)),
    Level(stride=16, sizes=(64, 128), per_side=(1, 1)),
    Level(stride=32, sizes=(256, 512), per_side=(1, 1)),
)

InputSize: TypeAlias = Callable[[int, int], tuple[int, int]]
"""Maps height and width of a picture to height and width of the network's input, pixels."""


def limited(height: int, width: int) -> tuple[int, int]:
    """Returns the input size of FaceBoxes' script, height and width: at most 720 and 1080 pixels, never enlarged."""
    scale = min(1.0, 720 / height)
    scale = min(scale, 1080 / width)
    return max(1, int(height * scale)), max(1, int(width * scale))


def single_shot(name: str, summary: str, levels: tuple[Level, ...], *, input_size: InputSize = limited) -> Detector:
    """Returns a single-shot detector: one network that predicts a score and offsets for every prior.

    Args:
        name: Name of the detector and of its network.
        summary: Purpose of the detector, one line.
        levels: Feature maps of the network and their priors.
        input_size: Size to which a picture is resized for the network.
    """
    find = functools.partial(_find, levels, input_size)
    return Detector(name=name, summary=summary, networks=(name,), find=find)


def _find(levels: tuple[Level, ...], input_size: InputSize, runs: Sequence[Run], picture: Uint8) -> Detections:
    """Detects the faces of a picture, (H, W, 3) uint8, BGR; see `Detector.find`."""
    size = input_size(*picture.shape[:2])
    resized = picture
    if size != picture.shape[:2]:
        resized = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    outputs = runs[0]({"input": cv2.dnn.blobFromImage(resized, mean=MEAN)})
    scores = outputs["scores"][0, :, 1]
    is_candidate = scores > CANDIDATE_SCORE
    scores, priors = scores[is_candidate], prior_boxes(levels, *size)[is_candidate]
    scale = np.array(picture.shape[1::-1], np.float32)  # fractions of the input are fractions of the picture
    boxes = decode_boxes(outputs["boxes"][0, is_candidate], priors) * np.tile(scale, 2)
    remaining = suppress(boxes, scores, MAX_IOU, max_candidates=MAX_CANDIDATES, pixel=1)[:MAX_FACES]
    faces = remaining[scores[remaining] > SCORE]
    points = None
    if "points" in outputs:
        points = decode_points(outputs["points"][0, is_candidate][faces], priors[faces]) * scale
    return detections(boxes[faces], scores[faces], points)


plugin = single_shot(
    "retinaface", "RetinaFace, MobileNet 0.25: faces of any size down to 16 pixels, with five points", LEVELS
)
