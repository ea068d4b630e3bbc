"""What an artefact has to hold. A gate is passed, failed, or not judged; never passed for want of data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from lmconv.types import Io, Precision

Verdict: TypeAlias = Literal["passed", "failed", "not judged"]

NAMES = ("max_abs", "max_px", "mean_px", "max_map", "compact_px", "ion_loss", "drift")
"""Largest difference of a coordinate (fractions of the input), or of a raw number of a detector; largest distance of a
point (input pixels); its mean on faces; largest difference of a heatmap, or of a detector's raw output (fractions of
its range); largest distance of a point of a face (input pixels), of an artefact whose compaction was bounded by it;
rise of the mean ION over the source's, percent of it; mean drift on faces (ION points)."""


FRAME_PX = 0.05
"""How far fp32 may be from the host path where the crop is cut inside the artefact, pixels of the crop."""


RAW: dict[Precision, dict[str, float]] = {
    Precision.FP32: {"max_abs": 1e-4},
    Precision.FP16: {"max_map": 1e-2},
    Precision.BF16: {"max_map": 5e-2},
}
"""What raw outputs of a network for detection are held to. In fp16, 3.5e-3 is the most of the published ones: P-Net's
scores. bf16 has an eighth of its mantissa, and nothing of it is measured yet."""


def limits(
    target: str,
    precision: Precision,
    given: Mapping[str, float | None],
    *,
    heatmaps: bool = False,
    detects: bool = False,
    io: Io = "tensor",
    compact_px: float | None = None,
) -> dict[str, float]:
    """The gates of an artefact: those of its precision, and what the user gave on top or instead.

    Below fp32, single points of a heatmap network may jump by half a cell, where two cells are next to equal: it is
    held to its maps, and its points to their mean. So is one in fp32 that takes a frame: crops may differ by a grey
    level here and there. Where channels were taken for constant on faces, fp32 is held to
    that bound there: on noise such channels are not constant.
    """
    defaults: dict[Precision, dict[str, float]] = {
        Precision.FP32: {"max_abs": 1e-4 if target == "tensorrt" else 1e-5},  # kernels of a GPU sum otherwise
        Precision.FP16: {"max_px": 0.1},
        Precision.BF16: {"ion_loss": 5.0},
        Precision.INT8: {"ion_loss": 10.0 if target == "onnx" else 5.0},
        Precision.MIXED: {"ion_loss": 10.0 if target == "onnx" else 5.0},
    }
    if heatmaps:
        defaults[Precision.FP32]["max_map"] = 1e-4
        defaults[Precision.FP16] = {"max_map": 1e-2, "mean_px": 0.1}
    if detects:
        defaults |= RAW
    if io == "frame":
        defaults[Precision.FP32] = {"max_map": 1e-2, "mean_px": FRAME_PX} if heatmaps else {"max_px": FRAME_PX}
    if compact_px is not None:
        defaults[Precision.FP32] = {"compact_px": compact_px + (FRAME_PX if io == "frame" else 0)}
    return defaults[precision] | {name: value for name, value in given.items() if value is not None}


def judge(limits: Mapping[str, float], figures: Mapping[str, float | None]) -> dict[str, Verdict]:
    """Holds each limit against its figure; one that was not measured (None) is not judged."""

    def verdict(name: str) -> Verdict:
        figure = figures.get(name)
        if figure is None:
            return "not judged"
        return "passed" if figure <= limits[name] else "failed"  # not a number fails

    return {name: verdict(name) for name in limits}
