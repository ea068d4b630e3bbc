"""The functions of the CUDA driver that timing needs: streams, events and graphs.

The functions are called through ctypes: pycuda has no graphs, and the same events time ONNX Runtime and PyTorch where
pycuda is missing. Every call uses the CUDA context that is current in the calling thread; `primary` makes the context
current that all libraries share.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

from lmconv.trt.faults import Fault

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
HANDLE = ctypes.c_void_p
OUT = ctypes.POINTER(ctypes.c_void_p)
ARGUMENTS = {
    "cuInit": (ctypes.c_uint,),
    "cuDriverGetVersion": (ctypes.POINTER(ctypes.c_int),),
    "cuDeviceGetName": (ctypes.c_char_p, ctypes.c_int, ctypes.c_int),
    "cuDeviceGetAttribute": (ctypes.POINTER(ctypes.c_int), ctypes.c_int, ctypes.c_int),
    "cuDeviceGet": (ctypes.POINTER(ctypes.c_int), ctypes.c_int),
    "cuDevicePrimaryCtxRetain": (OUT, ctypes.c_int),
    "cuCtxSetCurrent": (HANDLE,),
    "cuStreamCreate": (OUT, ctypes.c_uint),
    "cuStreamSynchronize": (HANDLE,),
    "cuStreamDestroy_v2": (HANDLE,),
    "cuEventCreate": (OUT, ctypes.c_uint),
    "cuEventRecord": (HANDLE, HANDLE),
    "cuEventElapsedTime": (ctypes.POINTER(ctypes.c_float), HANDLE, HANDLE),
    "cuEventDestroy_v2": (HANDLE,),
    "cuStreamBeginCapture_v2": (HANDLE, ctypes.c_int),
    "cuStreamEndCapture": (HANDLE, OUT),
    "cuGraphInstantiateWithFlags": (OUT, HANDLE, ctypes.c_ulonglong),
    "cuGraphInstantiate_v2": (OUT, HANDLE, OUT, ctypes.c_char_p, ctypes.c_size_t),
    "cuGraphLaunch": (HANDLE, HANDLE),
    "cuGraphExecDestroy": (HANDLE,),
    "cuGraphDestroy": (HANDLE,),
}
"""Argument types of the driver's functions (cuda.h of CUDA 11.0 to 13.0). Each returns a status; 0 is success."""

COMPUTE_CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


@functools.cache
def _library() -> Any:
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError as error:
        hint = f"install NVIDIA's driver, which contains {LIBRARY}"
        raise Fault("device", "this machine has no CUDA driver", hint) from error


def has_function(function: str) -> bool:
    """True if the driver has a function of this name."""
    return hasattr(_library(), function)


def call(function: str, *arguments: Any) -> None:
    """Calls a function of the driver.

    Args:
        function: Name of the function, a key of ARGUMENTS.
        arguments: Arguments of the function.

    Raises:
        Fault: If the driver is missing or returns an error: of kind "memory" if memory is full, else "device" or "run".
    """
    entry = getattr(_library(), function)
    entry.argtypes, entry.restype = ARGUMENTS[function], ctypes.c_int
    status = entry(*arguments)
    if status:
        kind = {2: "memory", 100: "device", 101: "device"}.get(status, "run")
        raise Fault(kind, f"{function}: {_name(status)}")


def _name(status: int) -> str:
    """Returns the name of a status, for example CUDA_ERROR_OUT_OF_MEMORY."""
    text = ctypes.c_char_p()
    library = _library()
    if hasattr(library, "cuGetErrorName") and not library.cuGetErrorName(ctypes.c_int(status), ctypes.byref(text)):
        return (text.value or b"").decode()
    return f"CUDA error {status}"


def create(function: str, *arguments: Any) -> int:
    """Calls a function that creates an object, and returns the object's handle."""
    handle = ctypes.c_void_p()
    call(function, ctypes.byref(handle), *arguments)
    return handle.value or 0


def end_capture(stream: int) -> int:
    """Ends the capture of a stream and returns the handle of the graph."""
    graph = ctypes.c_void_p()
    call("cuStreamEndCapture", stream, ctypes.byref(graph))
    return graph.value or 0


def describe() -> dict[str, Any]:
    """Describes device 0, without a CUDA context and without TensorRT.

    Returns:
        `gpu`, `compute_capability`, and `cuda`, the newest CUDA version that the driver supports.

    Raises:
        Fault: Of kind "device" if the driver or a device is missing.
    """
    device = _device()
    name = ctypes.create_string_buffer(256)
    call("cuDeviceGetName", name, len(name), device)
    major, minor = (_integer("cuDeviceGetAttribute", attribute, device) for attribute in COMPUTE_CAPABILITY)
    version = _integer("cuDriverGetVersion")
    return {
        "gpu": name.value.decode(),
        "compute_capability": f"{major}.{minor}",
        "cuda": f"{version // 1000}.{version % 1000 // 10}",
    }


def _device() -> int:
    call("cuInit", 0)
    return _integer("cuDeviceGet", 0)


def _integer(function: str, *arguments: int) -> int:
    """Calls a function that writes an integer, and returns this integer."""
    result = ctypes.c_int()
    call(function, ctypes.byref(result), *arguments)
    return result.value


def primary() -> None:
    """Makes the primary context of device 0 current, which the CUDA runtime and pycuda.autoprimaryctx also use."""
    call("cuCtxSetCurrent", create("cuDevicePrimaryCtxRetain", _device()))


class Stream:
    """A CUDA stream that is ordered with the legacy default stream."""

    def __init__(self) -> None:
        self.handle = create("cuStreamCreate", 0)

    def synchronize(self) -> None:
        """Waits until all work on the stream is done."""
        call("cuStreamSynchronize", self.handle)

    def close(self) -> None:
        """Frees the stream."""
        handle, self.handle = self.handle, 0
        if handle:
            call("cuStreamDestroy_v2", handle)


class Event:
    """A marker in a stream; the GPU stores the time when it reaches the marker."""

    def __init__(self) -> None:
        self._handle = create("cuEventCreate", 0)

    def record(self, stream: int) -> None:
        """Puts the marker on a stream.

        Args:
            stream: Handle of the stream; 0 is the legacy default stream.
        """
        call("cuEventRecord", self._handle, stream)

    def since(self, earlier: Event) -> float:
        """Returns the milliseconds from an earlier event to this event. The GPU must have reached both events."""
        milliseconds = ctypes.c_float()
        call("cuEventElapsedTime", ctypes.byref(milliseconds), earlier._handle, self._handle)
        return milliseconds.value

    def close(self) -> None:
        """Frees the event."""
        handle, self._handle = self._handle, 0
        if handle:
            call("cuEventDestroy_v2", handle)
