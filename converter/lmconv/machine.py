"""Description of this machine, recorded with every latency and printed by `lmconv doctor`."""

from __future__ import annotations

import contextlib
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from lmconv.types import Cpu, Json

FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16", "asimddp", "i8mm")
"""CPU features that affect the speed of a precision, by their names in /proc/cpuinfo."""

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
"""Packages whose versions are recorded."""


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Returns the versions of Python, of lmconv, and of each of `packages` that is installed."""
    installed = {"python": platform.python_version(), "lmconv": _version("lmconv")}
    installed |= {package: _version(package) for package in packages}
    return {package: number for package, number in installed.items() if number}


@cache
def _version(package: str) -> str:
    """Returns the version of an installed package, or empty; cached because every manifest needs thirteen versions."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def this_cpu() -> Cpu:
    """Returns the kind of this machine's CPU."""
    return "arm" if platform.machine().lower().startswith(("arm", "aarch64")) else "x86"


def describe() -> Json:
    """Returns the description of this machine.

    Returns:
        `cpu`: name of the CPU.
        `architecture`: name of the architecture, such as "x86_64".
        `cores`: number of cores that this process may use.
        `features`: the CPU's features out of `FEATURES`.
        `load`: load averages of the last 1, 5 and 15 minutes; None if the system has none.
        `system`: name and version of the operating system.
        `versions`: see `versions`.
    """
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


def cache_bytes() -> int | None:
    """Returns the bytes of the largest cache of the first processor; None if the system does not tell (Linux does)."""
    sizes = []
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with contextlib.suppress(OSError, ValueError):
            text = file.read_text(encoding="ascii").strip()
            sizes.append(int(text.rstrip("KM")) << {"K": 10, "M": 20}.get(text[-1:], 0))
    return max(sizes, default=None)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo() -> dict[str, str]:
    """Returns the first processor's entry of /proc/cpuinfo; empty if the system has no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def has(package: str) -> bool:
    """True if a top-level package can be imported; the package is not imported."""
    return find_spec(package) is not None
