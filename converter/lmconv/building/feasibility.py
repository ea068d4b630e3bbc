"""Refuses variants that cannot be built, before any work."""

from __future__ import annotations

from lmconv.building.recipe import calibrated
from lmconv.errors import MissingRuntime, UsageError
from lmconv.networks import wrapping
from lmconv.plugins import TARGETS
from lmconv.types import ModelSpec, Target, Variant


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


def check_network(spec: ModelSpec, target: Target, variant: Variant) -> None:
    """Refuses a variant that is impossible for a network.

    Raises:
        UsageError: A detector in a precision that calibrates on faces, or for pictures or frames; an engine for
            pictures of any size; or a network whose input cannot be pre-processed in the graph.
    """
    if spec.detects:
        _check_detector(spec, target, variant)
    wrapping.check(spec, variant.io, variant.precision)


def _check_detector(spec: ModelSpec, target: Target, variant: Variant) -> None:
    if calibrated(variant.precision):
        hint = "ask for fp32 or fp16"
        message = f"{spec.name} is a detector, and {variant.precision} is calibrated on crops of faces"
        raise UsageError(message, hint=hint)
    if variant.io != "tensor":
        hint = "leave --io out: `lmconv run` scales pictures for it"
        raise UsageError(f"{spec.name} is a detector, and --io {variant.io} is for crops of faces", hint=hint)
    if spec.sample and target.engines:
        hint = f"fix its size, such as --input 3x{spec.sample[0]}x{spec.sample[1]}"
        raise UsageError(f"{spec.name} takes pictures of any size, and an engine of {target.name} one size", hint=hint)
