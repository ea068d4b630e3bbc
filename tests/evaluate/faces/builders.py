"""Pictures with `.pts` files for the tests of crops and calibration."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from lmconv.types import Float64, Uint8, landmark_spec

SPEC = landmark_spec("toy", "toy", size=(32, 32), landmarks=68)


def box_points(x1: float, y1: float, x2: float, y2: float) -> Float64:
    """(68, 2) float64: points with this tight box, pixels; the outer eye corners differ."""
    points = np.random.default_rng(0).uniform((x1, y1), (x2, y2), (68, 2))
    points[0], points[1] = (x1, y1), (x2, y2)
    return points


def noise(height: int, width: int, seed: int = 0) -> Uint8:
    """(height, width, 3) uint8: a picture without a black pixel, to recognise black padding."""
    return np.random.default_rng(seed).integers(1, 256, (height, width, 3), dtype=np.uint8)


def add_face(folder: Path, stem: str, image: Uint8, points: Float64, ending: str = ".png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"{stem}{ending}"), image)
    path = folder / f"{stem}.pts"
    path.write_text("".join(f"{x:.6f} {y:.6f}\n" for x, y in points), encoding="utf-8")
    return path
