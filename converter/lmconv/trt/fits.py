"""Decides from two dictionaries, before TensorRT is loaded, if this machine can run an engine from another machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

AMPERE = (8, 0)
"""Oldest compute capability that can run hardware-compatible engines (`HardwareCompatibilityLevel.AMPERE_PLUS`)."""
OLDEST = {10: 8, 11: 10}
"""By major version of TensorRT: oldest major version whose version-compatible engines run, as NVIDIA documents:
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/engine-compatibility.html.
"""


def mismatch(built: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """Returns the reasons why an engine cannot run here; None if no reason is known before the engine is loaded.

    Args:
        built: `lmconv.trt.device.describe` of the build machine, with `version_compatible` and `hardware_compatible`.
        here: `lmconv.trt.device.describe` of this machine.
    """
    reasons = [reason for find in (_platform, _gpu, _version, _cuda) for reason in [find(built, here)] if reason]
    if not reasons:
        return None
    return f"built for {_named(built)}; here {_named(here)}: {', '.join(reasons)}"


def _named(machine: Mapping[str, Any]) -> str:
    capability = str(machine.get("compute_capability") or "?").replace(".", "")
    gpu, version = machine.get("gpu") or "an unknown GPU", machine.get("tensorrt") or "of an unknown version"
    return f"{gpu} (sm_{capability}) with TensorRT {version}"


def _platform(built: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    if built.get("platform") == here.get("platform"):
        return ""
    return f"it runs on {built.get('platform') or 'an unknown platform'}, and this is {here.get('platform')}"


def _gpu(built: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    ours, theirs = numbers(here.get("compute_capability")), numbers(built.get("compute_capability"))
    if built.get("hardware_compatible"):
        fits = min(ours, theirs) >= AMPERE
        return "" if fits else "hardware-compatible engines run on compute capability 8.0 and newer"
    if ours != theirs:
        return "it runs on the compute capability that it was built for"
    return "" if built.get("gpu") == here.get("gpu") else "it runs on the GPU that it was built for"


def _version(built: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    ours, theirs = numbers(here.get("tensorrt")), numbers(built.get("tensorrt"))
    if not built.get("version_compatible"):
        same = built.get("tensorrt") == here.get("tensorrt")
        return "" if same else "it runs with the TensorRT that it was built with"
    if not theirs or ours < theirs:
        return "version-compatible engines run with the same TensorRT or a newer one"
    oldest = OLDEST.get(ours[0], theirs[0])
    return "" if theirs[0] >= oldest else f"TensorRT {ours[0]} runs version-compatible engines of {oldest} and newer"


def _cuda(built: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    ours, theirs = numbers(here.get("cuda")), numbers(built.get("cuda"))
    if theirs[:1] <= ours[:1]:
        return ""
    return f"it was built under CUDA {theirs[0]}, and this driver has {ours[0] if ours else 'none'}"


def numbers(version: object) -> tuple[int, ...]:
    """Returns the leading numbers of a version: "10.16.1" is (10, 16, 1); empty if the version is unknown."""
    found = []
    for part in str(version or "").split("."):
        if not part.isdecimal():
            break
        found.append(int(part))
    return tuple(found)
