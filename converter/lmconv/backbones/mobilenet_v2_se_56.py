"""MobileNetV2 for inputs of 56 x 56 pixels with a squeeze-and-excitation gate.

See `mobilenet_v2` and `mobilenet_v2_56`.
"""

from __future__ import annotations

from functools import partial

from lmconv.backbones.mobilenet_v2 import MobileNetV2GDConv
from lmconv.backbones.mobilenet_v2_56 import PREPROCESS
from lmconv.types import Backbone, landmark_spec

plugin = Backbone(
    spec=landmark_spec("mobilenet_v2_se_56", "mobilenet_v2_se_56", size=(56, 56), landmarks=68, preprocess=PREPROCESS),
    build=partial(MobileNetV2GDConv, kernel=2, attention=True),
    summary="MobileNetV2, small input, squeeze-and-excitation, global depthwise head",
)
