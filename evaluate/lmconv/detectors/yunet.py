"""YuNet (Wu et al. 2023, https://doi.org/10.1007/s11633-023-1423-y), which OpenCV runs itself: cv2.FaceDetectorYN.

Its model is not a network of lmconv: it is looked for among the weights, by the name that OpenCV's model zoo gives it.
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
ZOO = "https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet"
SCORE, OVERLAP, CANDIDATES = 0.7, 0.3, 5000
LONGEST = 1080
"""Pixels; a larger picture is made smaller, as YuNet was trained on faces of 10 to 300."""


def _open(weights: Path | None, threads: int) -> Callable[[Uint8], Detections]:
    path = _model(weights)
    try:
        model = cv2.FaceDetectorYN.create(str(path), "", (320, 320), SCORE, OVERLAP, CANDIDATES)
    except cv2.error as error:
        raise InputError(f"OpenCV cannot load {path}: {first_line(error)}", hint=f"another is at {ZOO}") from error

    def find(picture: Uint8) -> Detections:
        height, width = picture.shape[:2]
        scale = min(1.0, LONGEST / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        model.setInputSize(size)
        try:
            rows = model.detect(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))[1]
        except cv2.error as error:
            hint = f"it may be tied to one size: take face_detection_yunet_2026may.onnx from {ZOO}"
            raise InputError(
                f"OpenCV cannot run {path} on {width} x {height}: {first_line(error)}", hint=hint
            ) from error
        return _detections(np.zeros((0, 15), np.float32) if rows is None else rows, np.array([width, height]) / size)

    return find


def _detections(rows: NDArray[Any], unit: Float64) -> Detections:
    """From OpenCV's rows: x, y, width, height, five points, score; `unit` makes pixels of the picture of them."""
    corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], 1)
    order = np.argsort(-rows[:, 14], kind="stable")
    points = rows[:, 4:14].reshape(-1, 5, 2) * unit
    return detections((corners * np.tile(unit, 2))[order], rows[order, 14], points[order])


def _model(weights: Path | None) -> Path:
    """The user's file, or the newest that is not quantised."""
    if weights and weights.is_file():
        return weights
    fitting = checkpoints.candidates(lambda path: path.name.startswith(PREFIX) and path.suffix == ".onnx", weights)
    found = sorted(fitting, key=lambda path: ("int8" not in path.name, path.name))
    if not found:
        hint = f"get face_detection_yunet_2026may.onnx from {ZOO} and put it there, or name it by --weights"
        raise InputError("OpenCV's YuNet is not in LMCONV_WEIGHTS, weights/ or the user cache", hint=hint)
    return found[-1]


def _find(runs: Sequence[Run], picture: Uint8) -> Detections:
    raise Bug("YuNet has no networks to run")


plugin = Detector(
    name="yunet",
    summary="OpenCV's YuNet, with five points; its model is the user's",
    networks=(),
    find=_find,
    open=_open,
)
