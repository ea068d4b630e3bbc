"""Static int8 quantisation: inserts Q/DQ nodes that are calibrated on real crops."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace

import numpy as np
import onnx

from lmconv.errors import GateFailed, UsageError
from lmconv.graph.naming import operators_of
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import outputs
from lmconv.networks.heads import head_of
from lmconv.quantise import coverage
from lmconv.quantise.plan import DECISIONS, QuantiserOptions, read
from lmconv.quantise.static import quantise
from lmconv.types import Json, Pass, PassContext, QuantScheme

DEFAULT = QuantScheme(activations="uint8", bracket=True, reason="x86 multiplies uint8 by int8")
"""Scheme that is used if the context has none."""

MOVED = 0.005
"""Mean change of the landmarks, fractions of the input, beyond which layers that feed an arg-max stay in float."""
CHECKED = 32
"""Largest number of crops on which the change is measured."""


def int8(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Quantises a float graph by the target's scheme, calibrated on `context.crops`.

    A layer that cannot be int8 stays in float; the decisions state the reason. If an arg-max, a top-k or a comparison
    chooses otherwise in int8, the layers that feed the decision stay in float too.

    Raises:
        UsageError: The context has no crops.
        GateFailed: Every layer would stay in float.
    """
    if context.crops is None or not len(context.crops):
        raise UsageError(
            f"int8 needs face crops to calibrate {context.spec.name}",
            hint="give --calibration DIR, a folder of annotated faces",
        )
    settings = read(context.settings, settings_of(context.scheme or DEFAULT))
    quantised, decisions = quantise(model, context.crops, settings)
    if operators_of(model) & DECISIONS and _change(model, quantised, context) > MOVED:
        quantised, decisions = quantise(model, context.crops, replace(settings, float_decisions=True))
    if not decisions["layers"]:
        why = "; ".join(coverage.reasons(decisions)) or "the network has no layer with weights"
        message = f"int8 would leave every layer of {context.spec.name} in float: {why}"
        raise GateFailed(message, hint="use --precision fp32, fp16 or bf16")
    calibration = hashlib.sha256(np.ascontiguousarray(context.crops).tobytes()).hexdigest()
    return quantised, {
        **decisions,
        "calibration_sha256": calibration,
        "warnings": coverage.warnings(decisions),
    }


def _change(before: onnx.ModelProto, after: onnx.ModelProto, context: PassContext) -> float:
    """Returns the mean change of the outputs on crops; 0 for heatmaps, which are judged before their arg-max."""
    if context.spec.heatmaps or context.crops is None:
        return 0.0
    results = []
    for model in (before, after):
        with OrtSession(model.SerializeToString()) as session:
            results.append(outputs(session, context.spec, context.crops[:CHECKED]))
    return head_of(context.spec).mean_change(*results)


def settings_of(scheme: QuantScheme) -> QuantiserOptions:
    """Int8 scheme of a target as options of the quantiser."""
    wanted = asdict(scheme)
    del wanted["reason"]
    return QuantiserOptions(**wanted)


plugin = Pass(
    name="int8",
    summary="static int8 with Q/DQ nodes: equalised channels, corrected biases",
    apply=int8,
    tolerance=0.02,
    required=True,
    calibrated=True,
    uses=("crops", "scheme", "settings"),
)
