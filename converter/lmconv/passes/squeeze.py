"""Writes the axes of a Squeeze that has none: OpenVINO cannot run such a node for a free batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from lmconv.opsets.rewriting import Call, Rules, rewrite
from lmconv.types import FLOAT16_ROUNDING, Json, Pass, PassContext


def squeeze(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Adds the axes, in subgraphs too. A Squeeze of a value of unknown rank stays."""
    return model, {"replaced": rewrite(model, RULES).total()}


def _squeeze(call: Call) -> Sequence[str] | None:
    """Squeeze of the axes that always have one element; a free axis stays, of a batch of one too."""
    shape = call.facts.shapes.get(call.input(0))
    if call.input(1) or shape is None:
        return None
    axes = [axis for axis, side in enumerate(shape) if side == 1]
    return [call.add("Squeeze", call.input(0), call.constant(np.array(axes, np.int64)))]


RULES: Rules = {("", "Squeeze"): _squeeze}

plugin = Pass(
    name="squeeze",
    summary="Squeeze with its axes",
    apply=squeeze,
    tolerance=FLOAT16_ROUNDING,
)
