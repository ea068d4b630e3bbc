"""RFB-320, the larger of the ultra-light detectors: https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB.

A picture is resized to 320 x 240 pixels without regard to its aspect ratio: faces smaller than about 10 pixels in the
resized picture are missed. The published ONNX file returns decoded boxes. Thresholds come from the project's
`run_video_face_detect_onnx.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from lmconv.detecting.suppression import suppress
from lmconv.detection import Detections, Detector, Run, detections
from lmconv.types import Uint8

SIZE = (320, 240)
"""Width and height of the input, pixels. The input is RGB, (v - 127) / 128."""
SCORE = 0.7
"""Score that a detected face must exceed."""
MAX_CANDIDATES = 200
"""Largest number of boxes that enter suppression."""
MAX_IOU = 0.3
"""Largest IoU of two boxes that suppression keeps."""


def ultra_light(name: str, summary: str) -> Detector:
    """Returns one of the ultra-light detectors, which differ only in their network.

    Args:
        name: Name of the detector and of its network.
        summary: Purpose of the detector, one line.
    """
    return Detector(name=name, summary=summary, networks=(name,), find=_find)


def _find(runs: Sequence[Run], picture: Uint8) -> Detections:
    """Detects the faces of a picture, (H, W, 3) uint8, BGR; see `Detector.find`."""
    resized = cv2.resize(picture, SIZE, interpolation=cv2.INTER_LINEAR)
    outputs = runs[0]({"input": cv2.dnn.blobFromImage(resized, 1 / 128, mean=(127, 127, 127), swapRB=True)})
    is_face = outputs["scores"][0, :, 1] > SCORE
    boxes, scores = outputs["boxes"][0, is_face], outputs["scores"][0, is_face, 1]
    remaining = suppress(boxes, scores, MAX_IOU, max_candidates=MAX_CANDIDATES)
    height, width = picture.shape[:2]
    return detections(boxes[remaining] * np.array([width, height, width, height], np.float32), scores[remaining])


plugin = ultra_light("rfb320", "ultra-light RFB-320: fast, for faces that are not small")
