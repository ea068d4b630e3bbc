"""Refuses variants that cannot be built, before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmconv.building.recipe import calibrated
from lmconv.errors import MissingRuntime, UsageError
from lmconv.graph.naming import operators_of
from lmconv.networks.heads import head_of
from lmconv.networks.interfaces import INTERFACES, interface_of
from lmconv.plugins import TARGETS
from lmconv.types import Io, ModelSpec, Precision, Target, Variant

if TYPE_CHECKING:
    import onnx

INTEGER = {
    "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
    "QuantizeLinear",
}  # fmt: skip
"""Operators of a quantised network."""


def check_variant(variant: Variant, *, faces: bool) -> Target:
    """Returns the target of a variant.

    Args:
        variant: The variant to build.
        faces: True if faces for calibration are given.

    Raises:
        UsageError: The target has no such precision or `--io`, or the precision needs faces.
        MissingRuntime: The runtime of the target is not installed.
    """
    target = TARGETS.load(variant.target)
    if variant.precision not in target.precisions:
        known = ", ".join(target.precisions)
        raise UsageError(f"target {target.name} has no precision {variant.precision}", hint=f"it has {known}")
    if variant.io not in target.ios:
        raise UsageError(f"target {target.name} has no --io {variant.io}", hint=f"it has {', '.join(target.ios)}")
    if calibrated(variant.precision) and not faces:
        hint = "give --calibration DIR, a folder of annotated training faces"
        raise UsageError(f"{variant.precision} is calibrated on real faces, and there are none", hint=hint)
    if missing := target.requires():
        raise MissingRuntime(f"target {target.name} cannot be built here", hint=missing)
    return target


def is_possible(target: Target, precision: Precision, io: Io) -> bool:
    """True if a target can have artefacts with this input in this precision."""
    return io in target.ios and precision not in INTERFACES[io].impossible


def check_float(name: str, model: onnx.ModelProto, precision: Precision) -> None:
    """Refuses to quantise a network that is quantised already.

    Args:
        name: Name of the network.
        model: The plain graph.
        precision: Precision of the variant.

    Raises:
        UsageError: The precision quantises, and the graph has integer operators.
    """
    if calibrated(precision) and (found := sorted(operators_of(model) & INTEGER)):
        hint = "ask for fp32, which keeps its int8 layers; or name a float network"
        raise UsageError(f"{name} is quantised already: its graph has {', '.join(found)}", hint=hint)


def check_network(spec: ModelSpec, target: Target, variant: Variant) -> None:
    """Refuses a variant that is impossible for a network.

    Raises:
        UsageError: A detector in a precision that calibrates on faces, or for images or frames; an engine for pictures
            of any size; or a network whose input cannot be pre-processed in the graph.
    """
    head = head_of(spec)
    if calibrated(variant.precision) and not head.on_faces:
        message = f"{spec.name} is a detector, and {variant.precision} is calibrated on crops of faces"
        raise UsageError(message, hint="ask for fp32 or fp16")
    if variant.io not in head.ios:
        hint = "leave --io out: `lmconv run` scales pictures for it"
        raise UsageError(f"{spec.name} is a detector, and --io {variant.io} is for crops of faces", hint=hint)
    if spec.sample and target.fixed_size:
        hint = f"fix its size, such as --input 3x{spec.sample[0]}x{spec.sample[1]}"
        raise UsageError(f"{spec.name} takes pictures of any size, and an engine of {target.name} one size", hint=hint)
    interface_of(spec, variant.io).require_possible(variant.precision)
