"""YuNet (Wu et al. 2023, https://doi.org/10.1007/s11633-023-1423-y), which OpenCV runs itself: cv2.FaceDetectorYN.

The model is not a network of lmconv. lmconv searches for the model among the checkpoints, by its file name in OpenCV's
model zoo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lmconv.detection import Detections, Detector, Run, detections
from lmconv.errors import Bug, InputError, first_line
from lmconv.sources import checkpoints
from lmconv.types import Float64, Uint8

PREFIX = "face_detection_yunet"
"""Beginning of the model's file name."""
ZOO = "https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet"
SCORE, MAX_IOU, MAX_CANDIDATES = 0.7, 0.3, 5000
"""Score that a face must exceed, largest IoU and largest number of boxes in OpenCV's suppression."""
LONGEST = 1080
"""Longest side of the network's input, pixels. A larger picture is shrunk: YuNet was trained on faces of 10 to 300
pixels."""


def _open(weights: Path | None, threads: int) -> Callable[[Uint8], Detections]:
    """Loads YuNet; see `Detector.open`."""
    path = _model_file(weights)
    try:
        model = cv2.FaceDetectorYN.create(str(path), "", (320, 320), SCORE, MAX_IOU, MAX_CANDIDATES)
    except cv2.error as error:
        raise InputError(f"OpenCV cannot load {path}: {first_line(error)}", hint=f"get another from {ZOO}") from error

    def detect(picture: Uint8) -> Detections:
        height, width = picture.shape[:2]
        scale = min(1.0, LONGEST / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        model.setInputSize(size)
        try:
            rows = model.detect(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))[1]
        except cv2.error as error:
            hint = f"its input size may be fixed: get face_detection_yunet_2026may.onnx from {ZOO}"
            raise InputError(
                f"OpenCV cannot run {path} on {width} x {height} pixels: {first_line(error)}", hint=hint
            ) from error
        scales = np.array([width, height]) / size
        return _detections(np.zeros((0, 15), np.float32) if rows is None else rows, scales)

    return detect


def _detections(rows: NDArray[Any], scales: Float64) -> Detections:
    """Converts OpenCV's rows to detections.

    Args:
        rows: (n, 15) float: x, y, width, height, five points, score; pixels of the resized picture.
        scales: (2,) float64: horizontal and vertical factor to pixels of the original picture.
    """
    corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], 1)
    order = np.argsort(-rows[:, 14], kind="stable")
    points = rows[:, 4:14].reshape(-1, 5, 2) * scales
    return detections((corners * np.tile(scales, 2))[order], rows[order, 14], points[order])


def _model_file(weights: Path | None) -> Path:
    """Returns the file that the user names; otherwise the newest by file name, without int8 if possible."""
    if weights and weights.is_file():
        return weights
    files = checkpoints.candidates(lambda path: path.name.startswith(PREFIX) and path.suffix == ".onnx", weights)
    ranked = sorted(files, key=lambda path: ("int8" not in path.name, path.name))
    if not ranked:
        hint = f"get face_detection_yunet_2026may.onnx from {ZOO}; put the file there, or name it with --weights"
        raise InputError("OpenCV's YuNet is not in LMCONV_WEIGHTS, weights/ or the user cache", hint=hint)
    return ranked[-1]


def _find(runs: Sequence[Run], picture: Uint8) -> Detections:
    """Raises a `Bug`: YuNet has no networks of lmconv; `_open` replaces this function."""
    raise Bug("YuNet has no networks to run")


plugin = Detector(
    name="yunet",
    summary="OpenCV's YuNet, with five points; lmconv does not contain its model",
    networks=(),
    find=_find,
    open=_open,
)
