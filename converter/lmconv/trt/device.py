"""The GPU: whether one is here, what it is, and the state it is in."""

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
"""What `state` tells, and how nvidia-smi calls it."""
REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
"""What slows the clocks, as newer and older drivers call it."""
THROTTLES = {
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
"""The bits of NVML's nvmlClocksEventReasons."""


_thread = threading.local()


class _Current:
    """Takes a context from a thread that ends: pycuda aborts the process where one is current still."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter ends, and CUDA is gone
            self._context.pop()


def missing_packages() -> tuple[str, ...]:
    """Which of tensorrt and pycuda are not installed."""
    return tuple(name for name in PACKAGES if find_spec(name) is None)


def missing() -> str | None:
    """Why no engine can be built or run here; None where it can.

    TensorRT 8.6 ends the process where it finds no device, so that one is looked for before any object of TensorRT is
    made. Makes the device's primary context current, which PyTorch uses too.
    """
    if names := missing_packages():
        return f"not installed: {', '.join(names)}"
    first = "pycuda.autoprimaryctx" not in sys.modules
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pycuda warns, too, before it raises
            import pycuda.autoprimaryctx as primary  # finds a device, and makes its primary context current
    except Exception as error:  # ImportError without a driver; pycuda's own types without a device
        return f"no CUDA device is here: {_line(error)}"
    if first and threading.current_thread() is not threading.main_thread():  # in the main one it ends by itself
        _thread.current = _Current(primary.context)
    try:
        import tensorrt  # noqa: F401
    except Exception as error:  # its libraries are loaded on import
        return f"TensorRT cannot be loaded: {_line(error)}"
    return None


def ready() -> None:
    """Makes sure that engines can be built and run in this thread.

    Raises:
        Fault: Of kind device: they cannot.
    """
    if reason := missing():
        raise Fault("device", f"no engine can be used here: {reason}", "it takes an NVIDIA GPU, tensorrt and pycuda")
    import pycuda.autoprimaryctx as primary
    import pycuda.driver as cuda

    if cuda.Context.get_current() is None:  # this is another thread than the one that came first
        primary.context.push()
        _thread.current = _Current(primary.context)


def describe() -> dict[str, Any]:
    """What an engine is tied to.

    Returns:
        `gpu`, its name; `compute_capability`, such as "9.0"; `tensorrt`; `cuda`, the newest CUDA that the driver can,
        such as "13.0"; `driver`, its own version, None where nvidia-smi is not there; `platform`, such as
        "linux-x86_64"; `memory`, bytes; `bus`, which GPU of this machine, for `state`.

    Raises:
        Fault: Of kind device.
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
    """12040, as CUDA says it, is "12.4"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def this_platform() -> str:
    """Operating system and processor: "linux-x86_64", "linux-aarch64", "windows-x86_64"."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{ {'amd64': 'x86_64', 'arm64': 'aarch64'}.get(machine, machine) }"


def state(bus: str | None = None) -> dict[str, Any]:
    """Clocks, temperature, power and load of a GPU now; makes no CUDA context.

    Args:
        bus: Which GPU, as `describe` names it; by default the first one that CUDA may see.

    Returns:
        The keys of FIELDS, and `throttle`: what slows the clocks, a list of words. None for what nvidia-smi tells not.
    """
    which = bus or os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
    for reasons in (*REASONS, None):
        names = [*FIELDS.values(), *([reasons] if reasons else [])]
        if (cells := _query(which, names)) is not None:
            return parsed(cells)
    return parsed([])


def parsed(cells: list[str]) -> dict[str, Any]:
    """What `state` gives, of nvidia-smi's cells in the order of FIELDS; what slows the clocks, a mask, is the last."""
    padded = cells + ["[N/A]"] * (len(FIELDS) + 1 - len(cells))
    found: dict[str, Any] = {key: _number(cell) for key, cell in zip(FIELDS, padded)}
    state = padded[list(FIELDS).index("performance_state")]
    mask = padded[len(FIELDS)]
    found["performance_state"] = state if state.startswith("P") else None
    found["throttle"] = throttles(int(mask, 16)) if mask.startswith("0x") else None
    return found


def throttles(mask: int) -> list[str]:
    """What slows the clocks, in words."""
    known = [name for bit, name in THROTTLES.items() if mask & bit]
    other = mask & ~sum(THROTTLES)
    return [*known, *([f"unknown ({other:#x})"] if other else [])]


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _query(which: str, names: list[str]) -> list[str] | None:
    """What nvidia-smi says of a GPU; None where it is not there, or knows one of these names not."""
    line = ["nvidia-smi", "-i", which, f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    cells = [cell.strip() for cell in done.stdout.strip().split(",")]
    return cells if done.returncode == 0 and len(cells) == len(names) else None


@contextlib.contextmanager
def calls(what: str, kind: str = "run", needs: int = 0) -> Iterator[None]:
    """Makes CUDA's errors ours: `what` could not be done. `needs` is how many bytes of the device it takes."""
    import pycuda.driver as cuda

    try:
        yield
    except cuda.MemoryError as error:
        raise full(what, needs) from error
    except cuda.Error as error:
        # After some of them (an illegal address) the context is of no more use, and all that follows fails too.
        raise Fault(kind, f"{what}: {_line(error)}", "run it again, in a new process") from error


def full(what: str, needs: int) -> Fault:
    """The fault of a device without room for `needs` bytes; 0 is not known."""
    import pycuda.driver as cuda

    try:
        free = f"{cuda.mem_get_info()[0] / MIB:.0f} MiB free"
    except cuda.Error:
        free = "how much is free it does not say"
    said = f"needs {needs / MIB:.0f} MiB, {free}" if needs else free
    return Fault("memory", f"GPU memory is full: {what} {said}", "end what else uses the GPU, or use a smaller batch")


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
