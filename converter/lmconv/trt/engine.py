"""Runs a TensorRT engine with one execution context, one stream, and buffers that grow to the largest batch so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lmconv.trt import device, log
from lmconv.trt.faults import Fault

if TYPE_CHECKING:
    import tensorrt as trt

DTYPES: dict[str, np.dtype[Any]] = {
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "INT8": np.dtype(np.int8),
    "UINT8": np.dtype(np.uint8),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "BOOL": np.dtype(np.bool_),
}
"""TensorRT's data types of inputs and outputs, as NumPy's. TensorRT 8.6 has no INT64."""


class Tensor(NamedTuple):
    """An input or output of an engine: name, dtype, and shape with -1 for a free axis."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def load(plan: bytes) -> tuple[trt.Runtime, trt.ICudaEngine]:
    """Loads a serialised engine.

    Args:
        plan: The serialised engine.

    Returns:
        A runtime, and the engine that the runtime has loaded. The runtime must outlive the engine.

    Raises:
        Fault: Of kind "device" or "load", with the reason from TensorRT's log.
    """
    import tensorrt as trt

    with log.collect() as messages:
        try:
            runtime = trt.Runtime(log.logger())
        except TypeError as error:  # pybind11 raises a TypeError if TensorRT returns no runtime
            reason = f"TensorRT cannot create a runtime: {messages.reason}"
            raise Fault("device", reason, "-v shows TensorRT's log") from error
        # A version-compatible plan contains host code: the runtime that runs the plan. The permission adds no risk: an
        # engine is code in any case.
        runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        hint = "build the engine again on this machine with this version of TensorRT"
        raise Fault("load", f"TensorRT {trt.__version__} cannot load the engine: {messages.reason}", hint)
    return runtime, engine


def memory(engine: trt.ICudaEngine) -> int:
    """Returns the device memory of one execution context, in bytes."""
    if hasattr(engine, "device_memory_size_v2"):
        return int(engine.device_memory_size_v2)  # trt: 10, 11
    return int(engine.device_memory_size)  # trt: 8


def tensors(engine: trt.ICudaEngine) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Returns the inputs and the outputs of an engine.

    Raises:
        Fault: Of kind "load" if NumPy has no equivalent of a data type.
    """
    import tensorrt as trt

    by_mode: dict[Any, list[Tensor]] = {trt.TensorIOMode.INPUT: [], trt.TensorIOMode.OUTPUT: []}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        data_type = engine.get_tensor_dtype(name).name
        if data_type not in DTYPES:
            message = f"the engine's {name} has the type {data_type}, which NumPy does not support"
            raise Fault("load", message, "export a network with another type")
        shape = sizes(engine.get_tensor_shape(name))
        by_mode[engine.get_tensor_mode(name)].append(Tensor(name, DTYPES[data_type], shape))
    return tuple(by_mode[trt.TensorIOMode.INPUT]), tuple(by_mode[trt.TensorIOMode.OUTPUT])


def sizes(dims: Any) -> tuple[int, ...]:
    """Returns a `tensorrt.Dims` as a tuple of int."""
    return tuple(int(size) for size in dims)


def input_mismatch(
    arrays: Mapping[str, Any], inputs: Sequence[Tensor], batches: tuple[int, int, int] | None
) -> tuple[str, str] | None:
    """Compares input arrays with the inputs of an engine.

    Args:
        arrays: NumPy arrays by name.
        inputs: Inputs of the engine.
        batches: Minimum, optimum and maximum batch size of the profile; None for a fixed batch.

    Returns:
        The reason why the engine cannot take the arrays, and a hint; None if the arrays are valid.
    """
    names = [tensor.name for tensor in inputs]
    if sorted(names) != sorted(arrays):
        given = ", ".join(arrays) or "nothing"
        return f"the engine takes {', '.join(names)}, not {given}", "use the names of the engine's inputs"
    for name, dtype, shape in inputs:
        array, actual = arrays[name], tuple(arrays[name].shape)
        if array.dtype != dtype:
            return f"{name} is {array.dtype}, but the engine takes {dtype}", f"convert {name} to {dtype}"
        expected = [size if size >= 0 else actual_size for size, actual_size in zip(shape, actual)]
        if len(actual) != len(shape) or tuple(expected) != actual:
            allowed = " x ".join(str(size) if size >= 0 else "N" for size in shape)
            other_batch = len(actual) == len(shape) and actual[0] != expected[0]
            hint = f"export again with --batch {actual[0]}" if other_batch else "use arrays of this shape"
            return f"{name} is {' x '.join(map(str, actual))}, but the engine takes {allowed}", hint
        if batches and shape[0] < 0 and not batches[0] <= actual[0] <= batches[2]:
            low, high = min(batches[0], max(1, actual[0])), max(batches[2], actual[0])
            hint = f"export again with --batch {low}:{batches[1]}:{high}"
            return f"the batch size of {name} is {actual[0]}, but the engine takes {batches[0]} to {batches[2]}", hint
    if len({arrays[name].shape[0] for name, _, shape in inputs if shape and shape[0] < 0}) > 1:
        return "the inputs have different batch sizes", "use the same batch size for all inputs"
    return None


class Buffer:
    """Memory of one tensor: on the device, and page-locked on the host.

    Attributes:
        host: View of the host memory as an array of the shape of the last `resize`.
        device: Device address; 0 before the first `resize`.
    """

    def __init__(self, name: str, dtype: np.dtype[Any]) -> None:
        self.name = name
        self.dtype = dtype
        self.host: Any = np.empty(0, dtype)
        self._pinned: Any = None
        self._allocated: Any = None
        self._size = 0

    @property
    def device(self) -> int:
        """Device address; 0 before the first `resize`."""
        return int(self._allocated) if self._allocated else 0

    def resize(self, shape: tuple[int, ...]) -> bool:
        """Makes room for an array of this shape; True if the device address has changed."""
        import pycuda.driver as cuda

        size = max(1, int(np.prod(shape, dtype=np.int64))) * self.dtype.itemsize
        grown = size > self._size
        if grown:
            self.free()
            with device.translate_errors(f"allocating {self.name} {shape}", "run", size):
                self._allocated = cuda.mem_alloc(size)
                self._pinned = cuda.pagelocked_empty(size, np.uint8)
            self._size = size
        self.host = self._pinned[:size].view(self.dtype).reshape(shape)
        return grown

    def free(self) -> None:
        """Frees the memory on the device and on the host."""
        self.host, self._size = np.empty(0, self.dtype), 0
        if self._allocated is not None:
            self._allocated.free()
        if self._pinned is not None:
            self._pinned.base.free()
        self._allocated = self._pinned = None


class Engine:
    """Runs a serialised engine; a context manager that frees all resources. Must be used in the thread that created it.

    Attributes:
        inputs: Inputs of the engine.
        outputs: Outputs of the engine.
        batches: Minimum, optimum and maximum batch size of the profile; None for a fixed batch.
        memory: Device memory of the execution context, in bytes.
        layers: Number of layers.
        stream: The `pycuda.driver.Stream` of all copies and runs.
    """

    def __init__(self, plan: bytes) -> None:
        """Loads a serialised engine.

        Args:
            plan: The serialised engine.

        Raises:
            Fault: Of kind "device", "load" or "memory".
        """
        device.ready()
        self._cleanup = ExitStack()
        self._shapes: dict[str, tuple[int, ...]] = {}
        try:
            self._open(plan)
        except BaseException:
            self.close()
            raise

    def _open(self, plan: bytes) -> None:
        import pycuda.driver as cuda

        self._runtime, self._engine = load(plan)
        self._cleanup.callback(self._drop_references)
        self.inputs, self.outputs = tensors(self._engine)
        self.batches = self._batches()
        self.memory, self.layers = memory(self._engine), int(self._engine.num_layers)
        with device.translate_errors("loading the engine", "load", self.memory), log.collect() as messages:
            self._context = self._engine.create_execution_context()
            self.stream = cuda.Stream()
        if self._context is None:
            if cuda.mem_get_info()[0] < self.memory or "memory" in messages.reason:
                raise device.memory_fault("loading the engine", self.memory)
            reason = f"TensorRT cannot create an execution context: {messages.reason}"
            raise Fault("load", reason, "build the engine again")
        self._buffers = {tensor.name: Buffer(tensor.name, tensor.dtype) for tensor in (*self.inputs, *self.outputs)}
        for buffer in self._buffers.values():
            self._cleanup.callback(buffer.free)
        self._cleanup.callback(self._drain_stream)

    def _batches(self) -> tuple[int, int, int] | None:
        for name, _, shape in self.inputs:
            if shape and shape[0] < 0:
                shapes = self._engine.get_tensor_profile_shape(name, 0)
                minimum, optimum, maximum = (int(profile_shape[0]) for profile_shape in shapes)
                return minimum, optimum, maximum
        return None

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Computes the outputs.

        Args:
            arrays: NumPy arrays by name, with the dtypes and shapes of `inputs`.

        Returns:
            NumPy arrays by name, with the dtypes and shapes of `outputs`.

        Raises:
            Fault: Of kind "shape", "memory" or "run".
        """
        self.set(arrays)
        self.copy_in()
        self.execute()
        self.copy_out()
        self.wait()
        return self.results()

    def set(self, arrays: Mapping[str, Any]) -> None:
        """Copies arrays into the page-locked buffers, and passes changed shapes and addresses to TensorRT.

        No work may be pending on the stream. Larger arrays than before move the buffers, which makes a captured CUDA
        graph invalid.

        Args:
            arrays: NumPy arrays by name, with the dtypes and shapes of `inputs`.

        Raises:
            Fault: Of kind "shape" or "memory"; of kind "run" if the engine is closed.
        """
        if "_context" not in vars(self):
            raise Fault("run", "the engine is closed", "open the engine again")
        if mismatch := input_mismatch(arrays, self.inputs, self.batches):
            raise Fault("shape", *mismatch)
        shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        if shapes != self._shapes:
            self._shapes = {}  # stays empty if a shape cannot be set
            self._set_shapes(shapes)
            self._shapes = shapes
        for name, array in arrays.items():
            np.copyto(self._buffers[name].host, array)

    def _set_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            with log.collect() as messages:
                accepted = self._context.set_input_shape(name, shape)
            if not accepted:
                message = f"TensorRT refuses the shape {shape} of {name}: {messages.reason}"
                raise Fault("shape", message, "export again with another --batch")
            self._resize(name, shape)
        for tensor in self.outputs:
            shape = sizes(self._context.get_tensor_shape(tensor.name))
            if any(size < 0 for size in shape):
                hint = "export a network with output shapes that follow from the input shapes"
                raise Fault("shape", f"the shape of {tensor.name} depends on computed values", hint)
            self._resize(tensor.name, shape)

    def _resize(self, name: str, shape: tuple[int, ...]) -> None:
        buffer = self._buffers[name]
        if buffer.resize(shape) and not self._context.set_tensor_address(name, buffer.device):
            raise Fault("run", f"TensorRT refuses the device address of {name}", "-v shows TensorRT's log")

    def copy_in(self) -> None:
        """Copies the inputs to the device, asynchronously."""
        import pycuda.driver as cuda

        with device.translate_errors("copying to the GPU"):
            for tensor in self.inputs:
                buffer = self._buffers[tensor.name]
                cuda.memcpy_htod_async(buffer.device, buffer.host, self.stream)

    def execute(self) -> None:
        """Starts the computation, asynchronously.

        Raises:
            Fault: Of kind "run", with the reason from TensorRT's log.
        """
        with device.translate_errors("running the engine"), log.collect() as messages:
            if not self._context.execute_async_v3(self.stream.handle):
                raise Fault("run", f"TensorRT cannot run the engine: {messages.reason}", "-v shows TensorRT's log")

    def copy_out(self) -> None:
        """Copies the outputs to the host, asynchronously."""
        import pycuda.driver as cuda

        with device.translate_errors("copying from the GPU"):
            for tensor in self.outputs:
                buffer = self._buffers[tensor.name]
                cuda.memcpy_dtoh_async(buffer.host, buffer.device, self.stream)

    def wait(self) -> None:
        """Waits for all work on the stream.

        Raises:
            Fault: If a copy or the computation failed.
        """
        with device.translate_errors("running the engine"):
            self.stream.synchronize()

    def results(self) -> dict[str, Any]:
        """Returns copies of the outputs by name; valid after `copy_out` and `wait`."""
        return {tensor.name: self._buffers[tensor.name].host.copy() for tensor in self.outputs}

    def close(self) -> None:
        """Waits for the stream, then frees buffers, context, engine and runtime in this order. May be called again."""
        self._cleanup.close()

    def _drain_stream(self) -> None:
        import pycuda.driver as cuda

        try:
            self.stream.synchronize()
        except cuda.Error:  # the error was reported when it happened
            return

    def _drop_references(self) -> None:
        for name in ("_context", "stream", "_engine", "_runtime"):  # the order matters; some may not exist
            vars(self).pop(name, None)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
