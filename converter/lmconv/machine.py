"""What this machine is: written beside every latency, printed by `lmconv doctor`."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from lmconv.types import Cpu, Json

FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16", "asimddp", "i8mm")
"""CPU features that decide how fast a precision is, by their names in /proc/cpuinfo."""

PACKAGES = (
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxsim",
    "onnxscript",
    "opencv-python-headless",
    "openvino",
    "pycuda",
    "safetensors",
    "tensorrt",
    "torch",
)


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Versions of Python, lmconv and those packages that are installed."""
    found = {"python": platform.python_version(), "lmconv": _version("lmconv")}
    found |= {package: _version(package) for package in packages}
    return {package: number for package, number in found.items() if number}


@cache
def _version(package: str) -> str:
    """The version of an installed package, else empty; read once, as every manifest and its reader need 13 of them."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def this_cpu() -> Cpu:
    """Which kind of CPU this is."""
    return "arm" if platform.machine().lower().startswith(("arm", "aarch64")) else "x86"


def describe() -> Json:
    """CPU, cores usable by this process, features, load and operating system."""
    info = _cpuinfo()
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": _cores(),
        "features": [name for name in FEATURES if name in (info.get("flags") or info.get("Features") or "").split()],
        "load": [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "versions": versions(),
    }


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def has(package: str) -> bool:
    """Whether a top-level package can be imported, without importing it."""
    return find_spec(package) is not None
