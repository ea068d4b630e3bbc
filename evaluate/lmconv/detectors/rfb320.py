"""RFB-320, the larger of the ultra-light detectors: https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB.

A picture is resized to 320 x 240 whatever its shape, so that faces smaller than about 10 pixels there are lost. The
published ONNX file gives decoded boxes; thresholds are those of the project's `run_video_face_detect_onnx.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from lmconv.detecting.boxes import suppress
from lmconv.detection import Detections, Detector, Run, detections
from lmconv.types import Uint8

SIZE = (320, 240)
"""Width and height of the input, pixels; (v - 127) / 128, RGB."""
SCORE = 0.7
CANDIDATES = 200
OVERLAP = 0.3


def light(name: str, summary: str) -> Detector:
    """One of the ultra-light detectors, which differ in their network alone."""
    return Detector(name=name, summary=summary, networks=(name,), find=_find)


def _find(runs: Sequence[Run], picture: Uint8) -> Detections:
    resized = cv2.resize(picture, SIZE, interpolation=cv2.INTER_LINEAR)
    found = runs[0]({"input": cv2.dnn.blobFromImage(resized, 1 / 128, mean=(127, 127, 127), swapRB=True)})
    sure = found["scores"][0, :, 1] > SCORE
    boxes, scores = found["boxes"][0, sure], found["scores"][0, sure, 1]
    kept = suppress(boxes, scores, OVERLAP, most=CANDIDATES)
    height, width = picture.shape[:2]
    return detections(boxes[kept] * np.array([width, height, width, height], np.float32), scores[kept])


plugin = light("rfb320", "ultra-light RFB-320: fast, for faces that are not small")
