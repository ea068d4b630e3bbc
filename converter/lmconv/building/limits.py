"""Largest differences from the source network at which an artefact is written."""

from __future__ import annotations

from lmconv.types import Precision

TOLERANCE = {
    Precision.FP32: 1e-5,
    Precision.FP16: 1e-2,
    Precision.BF16: 5e-2,
    Precision.INT8: 2e-1,
    Precision.MIXED: 2e-1,
}
"""Largest difference of a coordinate, fractions of the input.

fp32 must reach parity here. The other limits stop broken artefacts only; `lmconv verify` judges the rest.
"""

MAP_TOLERANCE = TOLERANCE | {Precision.FP32: 1e-4}
"""Largest difference of a heatmap value, fractions of the range of the maps.

OpenVINO's float32 differs from ONNX Runtime's by 1.5e-5 on white noise in OpenSeeFace.
"""
RAW_TOLERANCE = MAP_TOLERANCE | {Precision.FP16: 5e-2}
"""Largest difference of a raw output of a detector, fractions of the range of the output; absolute in fp32.

In fp16 the published detectors differ by up to 3.5e-3, RetinaFace with random weights by 2.6e-2.
"""

ENGINE_TOLERANCE = 1e-4
"""Smallest limit for an engine: the kernels of a GPU sum in another order."""
FRAME_TOLERANCE, FRAME_MAP_TOLERANCE = 4e-4, 1e-2
"""Smallest limits for points and heatmaps where the graph cuts the crop: single pixels differ by one grey level."""
