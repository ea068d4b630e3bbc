"""Static int8 quantisation: inserts Q/DQ nodes that are calibrated on real crops."""

from __future__ import annotations

import hashlib
from dataclasses import asdict

import numpy as np
import onnx

from lmconv.errors import GateFailed, UsageError
from lmconv.quantise import coverage
from lmconv.quantise.plan import QuantiserOptions, read
from lmconv.quantise.static import quantise
from lmconv.types import Json, Pass, PassContext, QuantScheme

DEFAULT = QuantScheme(activations="uint8", bracket=True, reason="x86 multiplies uint8 by int8")
"""Scheme that is used if the context has none."""


def int8(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Quantises a float graph by the target's scheme, calibrated on `context.crops`.

    A layer that cannot be int8 stays in float; the decisions state the reason.

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
