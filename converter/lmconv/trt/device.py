"""The GPU: availability, description and current state."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from lmconv.trt.faults import Fault

PACKAGES = ("tensorrt", "pycuda")
MIB = 1 << 20

FIELDS = {
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "temperature_c": "temperature.gpu",
    "power_w": "power.draw",
    "performance_state": "pstate",
    "utilisation_percent": "utilization.gpu",
}
"""Keys of `state`, with the names of the fields in nvidia-smi."""
REASON_FIELDS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
"""Names of nvidia-smi's field for the reasons of lowered clocks: in newer drivers, in older drivers."""
THROTTLE_REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clocks",
}
"""Reasons of lowered clocks by bit of NVML's nvmlClocksEventReasons."""


_thread = threading.local()


class _ContextGuard:
    """Pops a CUDA context when its thread ends: pycuda aborts the process if the context is still current."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at the end of the interpreter, CUDA may be unloaded already
            self._context.pop()


def missing_packages() -> tuple[str, ...]:
    """Returns the packages among tensorrt and pycuda that are not installed."""
    return tuple(name for name in PACKAGES if find_spec(name) is None)


def missing() -> str | None:
    """Returns the reason why this machine cannot build or run engines; None if nothing is missing.

    TensorRT 8.6 ends the process if no device is found. Therefore this function looks for a device before any object of
    TensorRT is created. The device's primary context, which PyTorch also uses, becomes current in this thread.
    """
    if names := missing_packages():
        return f"not installed: {', '.join(names)}"
    first = "pycuda.autoprimaryctx" not in sys.modules
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pycuda warns before it raises
            import pycuda.autoprimaryctx as primary  # looks for a device and makes its primary context current
    except Exception as error:  # ImportError without a driver; a pycuda type without a device
        return f"no CUDA device: {_first_line(error)}"
    if first and threading.current_thread() is not threading.main_thread():  # pycuda cleans up the main thread itself
        _thread.guard = _ContextGuard(primary.context)
    try:
        import tensorrt  # noqa: F401
    except Exception as error:  # the import loads TensorRT's libraries
        return f"TensorRT cannot be loaded: {_first_line(error)}"
    return None


def ready() -> None:
    """Makes the CUDA context current in this thread.

    Raises:
        Fault: Of kind "device" if this machine cannot build or run engines.
    """
    if reason := missing():
        hint = "use a machine with an NVIDIA GPU, and install tensorrt and pycuda"
        raise Fault("device", f"engines cannot be used on this machine: {reason}", hint)
    import pycuda.autoprimaryctx as primary
    import pycuda.driver as cuda

    if cuda.Context.get_current() is None:  # the context was made current in another thread only
        primary.context.push()
        _thread.guard = _ContextGuard(primary.context)


def describe() -> dict[str, Any]:
    """Returns the properties that an engine is tied to.

    Returns:
        `gpu`, the name of the GPU; `compute_capability`, for example "9.0"; `tensorrt`, the version; `cuda`, the newest
        CUDA version that the driver supports, for example "13.0"; `driver`, the driver's version, None without
        nvidia-smi; `platform`, for example "linux-x86_64"; `memory`, bytes; `bus`, the PCI bus ID for `state`.

    Raises:
        Fault: Of kind "device".
    """
    ready()
    import pycuda.driver as cuda
    import tensorrt as trt

    device = cuda.Context.get_device()
    bus = device.pci_bus_id()
    driver = _query(bus, ["driver_version"])
    return {
        "gpu": device.name(),
        "compute_capability": ".".join(map(str, device.compute_capability())),
        "tensorrt": trt.__version__,
        "cuda": cuda_version(cuda.get_driver_version()),
        "driver": driver[0] if driver else None,
        "platform": this_platform(),
        "memory": device.total_memory(),
        "bus": bus,
    }


def cuda_version(number: int) -> str:
    """Returns CUDA's version number as text: 12040 is "12.4"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def this_platform() -> str:
    """Returns the operating system and the processor: "linux-x86_64", "linux-aarch64" or "windows-x86_64"."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{ {'amd64': 'x86_64', 'arm64': 'aarch64'}.get(machine, machine) }"


def state(bus: str | None = None) -> dict[str, Any]:
    """Returns the current clocks, temperature, power and load of a GPU; creates no CUDA context.

    Args:
        bus: The GPU's PCI bus ID, as in `describe`; None selects the first GPU that CUDA may use.

    Returns:
        The keys of FIELDS, and `throttle`, a list of the reasons of lowered clocks. A value is None if nvidia-smi does
        not report the value.
    """
    gpu = bus or os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
    for reasons in (*REASON_FIELDS, None):
        names = [*FIELDS.values(), *([reasons] if reasons else [])]
        if (cells := _query(gpu, names)) is not None:
            return parse_state(cells)
    return parse_state([])


def parse_state(cells: list[str]) -> dict[str, Any]:
    """Returns the result of `state` from cells of nvidia-smi.

    Args:
        cells: Values of FIELDS in this order, then the bit mask of the reasons of lowered clocks. A missing cell counts
            as not reported.
    """
    padded = cells + ["[N/A]"] * (len(FIELDS) + 1 - len(cells))
    values: dict[str, Any] = {key: _number(cell) for key, cell in zip(FIELDS, padded)}
    performance = padded[list(FIELDS).index("performance_state")]
    mask = padded[len(FIELDS)]
    values["performance_state"] = performance if performance.startswith("P") else None
    values["throttle"] = throttle_reasons(int(mask, 16)) if mask.startswith("0x") else None
    return values


def throttle_reasons(mask: int) -> list[str]:
    """Returns the reasons of lowered clocks in a bit mask, as words."""
    names = [name for bit, name in THROTTLE_REASONS.items() if mask & bit]
    unknown = mask & ~sum(THROTTLE_REASONS)
    return [*names, *([f"unknown ({unknown:#x})"] if unknown else [])]


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _query(gpu: str, names: list[str]) -> list[str] | None:
    """Returns fields of a GPU from nvidia-smi; None if nvidia-smi is missing or does not know one of the fields."""
    command = ["nvidia-smi", "-i", gpu, f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    cells = [cell.strip() for cell in process.stdout.strip().split(",")]
    return cells if process.returncode == 0 and len(cells) == len(names) else None


@contextlib.contextmanager
def translate_errors(action: str, kind: str = "run", required: int = 0) -> Iterator[None]:
    """Turns CUDA's errors into Faults.

    Args:
        action: The action in the block, for the message.
        kind: Kind of the Fault for all errors except full memory.
        required: Device memory that the action needs, in bytes; 0 if unknown.

    Raises:
        Fault: Of kind "memory" if the device memory is full, else of the given kind.
    """
    import pycuda.driver as cuda

    try:
        yield
    except cuda.MemoryError as error:
        raise memory_fault(action, required) from error
    except cuda.Error as error:
        # After some errors (an illegal address) the CUDA context is unusable, and all later calls fail too.
        raise Fault(kind, f"{action}: {_first_line(error)}", "run the command again, in a new process") from error


def memory_fault(action: str, required: int) -> Fault:
    """Returns the Fault for full device memory.

    Args:
        action: The failed action, for the message.
        required: Device memory that the action needs, in bytes; 0 if unknown.
    """
    import pycuda.driver as cuda

    try:
        free = f"{cuda.mem_get_info()[0] / MIB:.0f} MiB free"
    except cuda.Error:
        free = "free memory unknown"
    amounts = f"{required / MIB:.0f} MiB required, {free}" if required else free
    hint = "end other programs that use the GPU, or use a smaller batch"
    return Fault("memory", f"GPU memory is full: {action}: {amounts}", hint)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
