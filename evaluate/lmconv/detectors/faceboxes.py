"""FaceBoxes (Zhang et al. 2017): https://github.com/zisianw/FaceBoxes.PyTorch; see `lmconv.detectors.retinaface`.

The published script maps boxes back by the scale from which it computed the size of its input, before rounding; here by
the sizes themselves.
"""

from __future__ import annotations

from lmconv.detecting.boxes import Level
from lmconv.detectors.retinaface import dense

LEVELS = (
    Level(stride=32, sizes=(32, 64, 128), per_side=(4, 2, 1)),
    Level(stride=64, sizes=(256,), per_side=(1,)),
    Level(stride=128, sizes=(512,), per_side=(1,)),
)

plugin = dense("faceboxes", "FaceBoxes: faces of any size down to 20 pixels", LEVELS)
