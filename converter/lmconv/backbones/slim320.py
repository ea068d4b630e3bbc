"""slim-320, a smaller ultra-light face detector published in ONNX.

Source: Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB.
"""

from __future__ import annotations

from lmconv.types import Backbone, Preprocess, detection_spec

plugin = Backbone(
    spec=detection_spec(
        "slim320",
        size=(240, 320),
        preprocess=Preprocess(colour="RGB", scale=1.0, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)),
        outputs={"scores": ("N", 4420, 2), "boxes": ("N", 4420, 4)},
    ),
    build=None,
    summary="Ultra-light slim-320: face boxes",
)
