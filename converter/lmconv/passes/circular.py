"""Writes a circular Pad (`mode="wrap"`) as a Concat of slices of the input: OpenVINO does not read this mode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from lmconv.opsets.rewriting import Call, Rules, rewrite
from lmconv.types import FLOAT16_ROUNDING, Json, Pass, PassContext

END = np.iinfo(np.int64).max
"""Stop of a slice that ends with its axis."""


def circular(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Replaces the operators, in subgraphs too."""
    return model, {"replaced": rewrite(model, RULES).total()}


def _pad(call: Call) -> Sequence[str] | None:
    """Pad along one axis after the other; None for another mode, or for pads that are computed or negative."""
    pads, axes = call.known(1), call.known(3)
    if call.get("mode", "constant") != "wrap" or pads is None or (call.input(3) and axes is None) or (pads < 0).any():
        return None
    begins, ends = (half.tolist() for half in np.split(pads, 2))
    value = call.input(0)
    for axis, begin, end in zip(range(len(begins)) if axes is None else axes.tolist(), begins, ends, strict=True):
        parts = [_slice(call, value, -begin, END, axis)] * (begin > 0) + [value]
        parts += [_slice(call, value, 0, end, axis)] * (end > 0)
        value = call.add("Concat", *parts, axis=axis) if len(parts) > 1 else value
    return [call.add("Identity", value)]


def _slice(call: Call, value: str, start: int, stop: int, axis: int) -> str:
    bounds = (call.constant(np.array([bound], np.int64)) for bound in (start, stop, axis))
    return call.add("Slice", value, *bounds)


RULES: Rules = {("", "Pad"): _pad}

plugin = Pass(
    name="circular",
    summary="circular Pad as slices, joined",
    apply=circular,
    tolerance=FLOAT16_ROUNDING,
)
