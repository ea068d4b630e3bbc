"""MobileNetV2 with a squeeze-and-excitation gate before the head; see `mobilenet_v2`."""

from __future__ import annotations

from functools import partial

from lmconv.backbones.mobilenet_v2 import PREPROCESS, MobileNetV2GDConv
from lmconv.types import Backbone, landmark_spec

plugin = Backbone(
    spec=landmark_spec("mobilenet_v2_se", "mobilenet_v2_se", size=(224, 224), landmarks=68, preprocess=PREPROCESS),
    build=partial(MobileNetV2GDConv, attention=True),
    summary="MobileNetV2, squeeze-and-excitation, global depthwise head",
)
