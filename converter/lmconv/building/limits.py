"""Limits on differences from the source network: the only table, for export, verify, the GPU check and the pages.

Limits on landmarks are for outputs up to 1 in size, such as fractions of the input. A network with larger outputs, for
example in pixels up to 192, has limits that are larger by the same factor, because floating-point numbers are rounded
relative to their size: `allowed = limit x max(1, largest absolute coordinate of the source)`, see
`lmconv.networks.compare.largest`. Limits on heatmaps and on raw outputs are fractions of the range already.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lmconv.types import Io, Precision, Target

TOLERANCE = {
    Precision.FP32: 1e-5,
    Precision.FP16: 1e-2,
    Precision.BF16: 5e-2,
    Precision.INT8: 2e-1,
    Precision.MIXED: 2e-1,
}
"""Largest difference of a coordinate at which an artefact is written, fractions of the input times the scale.

fp32 must reach parity here. The other limits stop broken artefacts only; `lmconv verify` judges the rest. int8 and
mixed are judged by the mean difference: the inputs are noise, outside the ranges of faces, and single values saturate.
"""

MAP_TOLERANCE = TOLERANCE | {Precision.FP32: 1e-4}
"""Largest difference of a heatmap value at which an artefact is written, fractions of the range of the maps.

OpenVINO's float32 differs from ONNX Runtime's by 1.5e-5 on white noise in OpenSeeFace.
"""
RAW_TOLERANCE = MAP_TOLERANCE | {Precision.FP16: 5e-2}
"""Largest difference of a raw output of a detector at which an artefact is written, fractions of the range of the
output; absolute in fp32.

In fp16 the published detectors differ by up to 3.5e-3, RetinaFace with random weights by 2.6e-2.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crops:
    """Smallest limits for an interface, because its crops may differ from the host's crops by one grey level.

    Attributes:
        landmarks: Difference of a coordinate, fractions of the input.
        heatmaps: Difference of a heatmap value, fractions of the range of the maps.
        px: Distance of a point in fp32, pixels of the crop.
    """

    landmarks: float = 0.0
    heatmaps: float = 0.0
    px: float = 0.0


CROPS: dict[Io, Crops] = {
    "tensor": Crops(),
    "image": Crops(),
    "frame": Crops(landmarks=4e-4, heatmaps=1e-2, px=0.05),
}

SLOWER = 1.03
"""Largest ratio of an artefact's time to its parent's time, for the lower end of the 95 % interval."""
ION_BUDGET = 0.03
"""Default of `--budget-ion`: largest rise of the mean ION on annotated faces, points."""
DRIFT_BUDGET = 0.4
"""Default of `--budget-drift`: largest mean drift on annotated faces, ION points."""
ION_ROUNDING = 1e-4
"""Loss of fp32 from one runtime to another, ION points: a smaller loss is rounding."""
ION_LOSS = 5 * ION_BUDGET
"""Largest rise of the mean ION in bf16, int8 and mixed for `verify`, points.

`export` judges an artefact by the budget, on faces like those that calibrated it. The gate of `verify` stops broken
artefacts, on any faces.
"""

FP16_PX = 0.1
"""Largest distance of a point in fp16, pixels of an input of `FP16_SIDE` pixels; for heatmaps the mean on faces.

0.1 of 64 pixels is 1.6e-3 of the input, about three roundings of float16 (2^-11 each).
"""
FP16_SIDE = 64
"""Side of the input for which `FP16_PX` is the limit; a larger input has proportionally more pixels of rounding."""

EXACT_GATES: Mapping[str, Mapping[str, float]] = {
    "points": {},
    "heatmaps": {"max_map": MAP_TOLERANCE[Precision.FP32]},
    "raw": {"max_abs": RAW_TOLERANCE[Precision.FP32]},
}
"""Gates of fp32 by the name of the head, beside `max_abs`, whose default is that of the target."""
CROP_GATES: Mapping[str, tuple[str, ...]] = {"points": ("max_px",), "heatmaps": ("max_map", "mean_px"), "raw": ()}
"""Gates of fp32 for an interface with limits in `CROPS`, by the name of the head."""
LOWERED_GATES: Mapping[str, Mapping[Precision, Mapping[str, float]]] = {
    "points": {Precision.FP16: {"max_px": FP16_PX}, Precision.BF16: {"ion_loss": ION_LOSS}},
    "heatmaps": {Precision.FP16: {"max_map": 1e-2, "mean_px": FP16_PX}, Precision.BF16: {"ion_loss": ION_LOSS}},
    "raw": {Precision.FP16: {"max_map": 1e-2}, Precision.BF16: {"max_map": 5e-2}},
}
"""Gates below fp32 by the name of the head; int8 and mixed have the target's `int8_ion_loss`.

In fp16 a single point of a heatmap network may jump by half a cell between cells of almost equal value: the gates are
those of the maps, and the mean distance of the points. The largest fp16 difference of the published detectors is
3.5e-3, in P-Net's scores. bf16 has an eighth of fp16's mantissa, and is not measured yet for detectors.
"""


def acceptance(target: Target, precision: Precision, io: Io = "tensor") -> dict[str, float]:
    """Returns the largest differences at which an artefact is written.

    Args:
        target: Target of the artefact.
        precision: Precision of the artefact.
        io: Input of the artefact.

    Returns:
        `landmarks`, `heatmaps` and `outputs`, see `TOLERANCE`, `MAP_TOLERANCE` and `RAW_TOLERANCE`.
    """
    return {
        "landmarks": max(TOLERANCE[precision], target.fp32_tolerance, CROPS[io].landmarks),
        "heatmaps": max(MAP_TOLERANCE[precision], CROPS[io].heatmaps),
        "outputs": RAW_TOLERANCE[precision],
    }


def gates(
    target: Target,
    precision: Precision,
    *,
    head: str,
    io: Io = "tensor",
    compact_px: float | None = None,
    side: int = FP16_SIDE,
) -> dict[str, float]:
    """Returns the default gates of `lmconv verify` for outputs of the scale 1: the largest value of each figure.

    Args:
        target: Target of the artefact.
        precision: Precision of the artefact.
        head: Name of the network's head: "points", "heatmaps" or "raw".
        io: Input of the artefact.
        compact_px: Bound of compaction, pixels of the input; None without a bound. Compaction replaces channels that
            are constant on faces but not on noise: fp32, and points in fp16, are then judged on faces only.
        side: Longer side of the network's input, pixels; only `max_px` of fp16 depends on the side.
    """
    crops = CROPS[io]
    rounding = FP16_PX * max(1.0, side / FP16_SIDE) if precision == Precision.FP16 else 0.0
    if precision in (Precision.INT8, Precision.MIXED):
        return {"ion_loss": ION_LOSS if target.int8_ion_loss is None else target.int8_ion_loss}
    if compact_px is not None and (precision == Precision.FP32 or (precision == Precision.FP16 and head == "points")):
        return {"compact_px": compact_px + crops.px + rounding}
    if precision != Precision.FP32:
        lowered = dict(LOWERED_GATES[head][precision])
        return lowered | ({"max_px": rounding} if "max_px" in lowered else {})
    if crops.px:
        cropped = {"max_px": crops.px, "mean_px": crops.px, "max_map": crops.heatmaps}
        return {name: cropped[name] for name in CROP_GATES[head]}
    return {"max_abs": target.fp32_tolerance, **EXACT_GATES[head]}


def coordinate(target: Target, precision: Precision, size: tuple[int, int]) -> float:
    """Returns the largest difference of a coordinate for outputs of the scale 1, fractions of the input.

    Args:
        target: Target of the artefact.
        precision: Precision of the artefact.
        size: (height, width) of the network's input, pixels.
    """
    side = max(size)
    distance = gates(target, precision, head="points", side=side).get("max_px")
    return acceptance(target, precision)["landmarks"] if distance is None else distance / side


@dataclass(frozen=True, slots=True, kw_only=True)
class Relative:
    """Limit of a rise of ION as a fraction of the source's ION.

    Attributes:
        percent: The limit, percent of the mean ION of the source.
    """

    percent: float

    def points(self, source_ion: float | None) -> float:
        """Returns the limit in ION points; not a number if the ION of the source is unknown (None)."""
        return math.nan if source_ion is None else self.percent / 100 * source_ion


def beside(figure: float, limit: float, form: str = ".2g") -> tuple[str, str]:
    """Formats a figure and its limit with enough digits to show on which side of the limit the figure is.

    Args:
        figure: The figure.
        limit: The largest value allowed.
        form: Format of the figure: an optional "+", a point, the smallest number of digits, and "f" or "g".
    """
    sign, digits, kind = form[0].strip("."), int(form.strip("+.")[:-1]), form[-1]
    for more in range(EXACT_DIGITS):
        texts = f"{figure:{sign}.{digits + more}{kind}}", f"{limit:.{SHORT_DIGITS + more}g}"
        if (float(texts[0]) <= float(texts[1])) == (figure <= limit):
            return texts
    return f"{figure:{sign}}", f"{limit}"


SHORT_DIGITS = 4
"""Number of significant digits of a limit."""
EXACT_DIGITS = 17
"""Number of significant digits that tell any two numbers apart."""

SCALED = ("max_abs", "max_px")
"""Gates that grow with the scale of the landmarks."""


def scaled(limits: Mapping[str, float], scale: float) -> dict[str, float]:
    """Returns the gates for landmarks of a scale, see `lmconv.networks.compare.largest`; 1 for raw outputs."""
    return {name: limit * scale if name in SCALED else limit for name, limit in limits.items()}
