"""Writes Pad, Resize and CenterCropPad of some axes as nodes of all axes.

ONNX Runtime 1.32 fails on a Pad or Resize of some axes between integer layers: moving the layout through the node, the
runtime reads one pad, factor or size for every axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lmconv.opsets.rewriting import Call, Rules, rewrite
from lmconv.types import Float32


def write_all_axes(model: onnx.ModelProto) -> None:
    """Replaces the nodes in place; a node of computed axes, or of an unknown size that the rule needs, stays."""
    rewrite(model, RULES)


def _pad(call: Call) -> Sequence[str] | None:
    pads, axes, rank = call.known(1), call.known(3), call.facts.rank(call.input(0))
    if pads is None or axes is None or rank is None:
        return None
    begins, ends = (_spread(half, axes, rank, 0) for half in np.split(pads, 2))
    inputs = [call.input(0), call.constant(np.concatenate([begins, ends])), *filter(None, [call.input(2)])]
    return [call.add("Pad", *inputs, **call.settings)]


def _resize(call: Call) -> Sequence[str] | None:
    """Resize with one factor for every axis; sizes become factors."""
    axes, shape = call.settings.pop("axes", None), call.facts.shapes.get(call.input(0))
    if axes is None or shape is None or call.get("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return None
    scales, sizes = call.known(2), call.known(3)
    if scales is None or not scales.size:
        known = [shape[axis] for axis in axes]
        sides = np.array([side for side in known if side], np.float32)
        if sizes is None or len(sides) < len(known):
            return None
        results = _results(sides, sizes, call.get("keep_aspect_ratio_policy", "stretch"))
        scales = (results / sides).astype(np.float32)
        if (np.floor(sides * scales) != results).any():
            return None
    call.settings.pop("keep_aspect_ratio_policy", None)
    factors = _spread(scales, np.array(axes), len(shape), 1)
    return [call.add("Resize", call.input(0), "", call.constant(factors), **call.settings)]


def _results(sides: Float32, sizes: NDArray[Any], policy: str) -> NDArray[Any]:
    """Returns the size of each axis after a Resize to `sizes`."""
    ratios = sizes / sides
    if policy == "stretch":
        return sizes
    ratio = ratios.min() if policy == "not_larger" else ratios.max()
    return np.asarray(np.round(ratio * sides))


def _center_crop_pad(call: Call) -> Sequence[str] | None:
    """CenterCropPad as a Slice and a Pad; the smaller half is at the start of an axis."""
    wanted, shape = call.known(1), call.facts.shapes.get(call.input(0))
    if wanted is None or shape is None:
        return None
    axes = call.get("axes", list(range(len(shape))))
    sides = [shape[axis] for axis in axes]
    known = np.array([side for side in sides if side is not None], np.int64)
    if len(known) < len(sides):
        return None
    starts = np.maximum(known - wanted, 0) // 2
    ends = starts + np.minimum(known, wanted)
    value = call.add("Slice", call.input(0), *map(call.constant, (starts, ends, np.array(axes, np.int64))))
    missing = np.maximum(wanted - known, 0)
    halves = (missing // 2, missing - missing // 2)
    pads = np.concatenate([_spread(half, np.array(axes), len(shape), 0) for half in halves])
    return [call.add("Pad", value, call.constant(pads)) if missing.any() else value]


def _spread(values: NDArray[Any], axes: NDArray[Any], rank: int, default: int) -> NDArray[Any]:
    """Returns one value for each axis, (rank,); an axis that is not in `axes` has the default."""
    spread = np.full(rank, default, values.dtype)
    spread[axes] = values
    return spread


RULES: Rules = {("", "Pad"): _pad, ("", "Resize"): _resize, ("", "CenterCropPad"): _center_crop_pad}
