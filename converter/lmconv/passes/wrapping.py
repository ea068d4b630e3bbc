"""Writes a Pad that repeats its input from the other side (mode `wrap`) as slices and a Concat, for each axis."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from lmconv.opsets.rewriting import Call, Rules, rewrite
from lmconv.types import Json, Pass, PassContext

END = 2**31 - 1
"""Last index of any axis."""


def wrapping(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Replaces each such Pad with constant pads, in subgraphs too."""
    return model, {"replaced": dict(sorted(rewrite(model, RULES).items()))}


def _pad(call: Call) -> Sequence[str] | None:
    pads, shape = call.known(1), call.facts.shapes.get(call.input(0))
    if call.get("mode", "constant") != "wrap" or pads is None or shape is None:
        return None
    named = call.known(3)
    axes = list(range(len(shape))) if named is None else [int(axis) % len(shape) for axis in named]
    value = call.input(0)
    for axis, before, after in zip(axes, *pads.reshape(2, -1).tolist(), strict=True):
        size = shape[axis]
        if min(before, after) < 0 or (max(before, after) and (size is None or max(before, after) > size)):
            return None
        first = [_part(call, value, axis, -before, END)] if before else []
        last = [_part(call, value, axis, 0, after)] if after else []
        value = call.add("Concat", *first, value, *last, axis=axis) if first or last else value
    return [value]


def _part(call: Call, value: str, axis: int, start: int, end: int) -> str:
    """Adds a slice of one axis."""
    return call.add("Slice", value, call.constant([start]), call.constant([end]), call.constant([axis]))


RULES: Rules = {("", "Pad"): _pad}

plugin = Pass(
    name="wrapping",
    summary="Pad that repeats its input from the other side, as slices",
    apply=wrapping,
    tolerance=1e-6,
)
