"""MobileNetV2 for inputs of 56 x 56 pixels, with a global depthwise convolution of 2 x 2; see `mobilenet_v2`."""

from __future__ import annotations

from functools import partial

from lmconv.backbones.mobilenet_v2 import MEAN, STD, MobileNetV2GDConv
from lmconv.types import Backbone, Preprocess, landmark_spec

PREPROCESS = Preprocess(colour="RGB", mean=MEAN, std=STD)
"""The published camera script for 56 x 56 feeds RGB; the script for 224 x 224 feeds BGR."""

plugin = Backbone(
    spec=landmark_spec("mobilenet_v2_56", "mobilenet_v2_56", size=(56, 56), landmarks=68, preprocess=PREPROCESS),
    build=partial(MobileNetV2GDConv, kernel=2),
    summary="MobileNetV2, small input, global depthwise head",
)
