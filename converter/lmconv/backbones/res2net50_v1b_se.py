"""Res2Net-50 v1b with a squeeze-and-excitation gate before the head; see `res2net50_v1b`."""

from __future__ import annotations

from functools import partial

from lmconv.backbones.mobilenet_v2 import PREPROCESS
from lmconv.backbones.res2net50_v1b import Res2Net50
from lmconv.types import Backbone, landmark_spec

plugin = Backbone(
    spec=landmark_spec("res2net50_v1b_se", "res2net50_v1b_se", size=(224, 224), landmarks=68, preprocess=PREPROCESS),
    build=partial(Res2Net50, attention=True),
    summary="Res2Net-50 v1b 26w x 4s, squeeze-and-excitation, pooled features",
)
