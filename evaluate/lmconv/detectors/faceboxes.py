"""FaceBoxes (Zhang et al. 2017): https://github.com/zisianw/FaceBoxes.PyTorch; see `lmconv.detectors.retinaface`.

The published script computes a scale, rounds the input size, and maps boxes back by the scale before rounding. lmconv
maps boxes back by the rounded size itself.
"""

from __future__ import annotations

from lmconv.detecting.priors import Level
from lmconv.detectors.retinaface import single_shot

LEVELS = (
    Level(stride=32, sizes=(32, 64, 128), per_side=(4, 2, 1)),
    Level(stride=64, sizes=(256,), per_side=(1,)),
    Level(stride=128, sizes=(512,), per_side=(1,)),
)

plugin = single_shot("faceboxes", "FaceBoxes: faces of any size down to 20 pixels", LEVELS)
