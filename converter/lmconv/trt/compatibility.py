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
    reasons = list(filter(None, (compare(built, here) for compare in (_platform, _gpu, _version, _cuda))))
    if not reasons:
        return None
    return f"built for {_description(built)}; here {_description(here)}: {', '.join(reasons)}"


def _description(machine: Mapping[str, Any]) -> str:
    capability = str(machine.get("compute_capability") or "?").replace(".", "")
    gpu, version = machine.get("gpu") or "an unknown GPU", machine.get("tensorrt") or "of an unknown version"
    return f"{gpu} (sm_{capability}) with TensorRT {version}"


def _platform(built: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    if built.get("platform") == here.get("platform"):
        return ""
    return f"the engine needs {built.get('platform') or 'an unknown platform'}, and this is {here.get('platform')}"


def _gpu(built: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    available, required = numbers(here.get("compute_capability")), numbers(built.get("compute_capability"))
    if built.get("hardware_compatible"):
        supported = min(available, required) >= AMPERE
        return "" if supported else "hardware-compatible engines need compute capability 8.0 or newer"
    if available != required:
        return "the engine needs the same compute capability"
    return "" if built.get("gpu") == here.get("gpu") else "the engine needs the same GPU model"


def _version(built: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    available, required = numbers(here.get("tensorrt")), numbers(built.get("tensorrt"))
    if not built.get("version_compatible"):
        same = built.get("tensorrt") == here.get("tensorrt")
        return "" if same else "the engine needs the same TensorRT version"
    if not required or available < required:
        return "version-compatible engines need the same TensorRT version or a newer version"
    oldest = OLDEST.get(available[0], required[0])
    if required[0] >= oldest:
        return ""
    return f"TensorRT {available[0]} runs version-compatible engines of TensorRT {oldest} and newer"


def _cuda(built: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    available, required = numbers(here.get("cuda")), numbers(built.get("cuda"))
    if required[:1] <= available[:1]:
        return ""
    return f"the engine needs CUDA {required[0]}, and this driver supports {available[0] if available else 'no CUDA'}"


def numbers(version: object) -> tuple[int, ...]:
    """Returns the leading numbers of a version: "10.16.1" is (10, 16, 1); empty if the version is unknown."""
    leading = []
    for part in str(version or "").split("."):
        if not part.isdecimal():
            break
        leading.append(int(part))
    return tuple(leading)
