"""TensorRT engines, for 8.6, 10 and 11: precision lives in the graph, so one graph serves all three.

The names used exist in all of them, but where a line is marked with the versions that have it. An engine is tied to
the GPU and the TensorRT version it was built with; both are in the manifest and checked before it is loaded.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from lmconv.artifact import model_file
from lmconv.errors import GateFailed, MissingRuntime
from lmconv.plugins import INSTALL
from lmconv.tensorrt_lint import complaints
from lmconv.types import (
    Arrays,
    Artifact,
    Built,
    Json,
    ModelSpec,
    OpenOptions,
    Precision,
    QuantScheme,
    Session,
    Target,
)

if TYPE_CHECKING:
    import onnx

WORKSPACE = 2 << 30
"""Bytes of device memory that the builder may use for scratch."""
QUANTISATION = QuantScheme(
    activations="int8",
    bracket=False,
    weights="float32",
    fuse_sums=True,
    reason="it parses symmetric signed Q/DQ only, 8.6 reads no int8 constant, and a convolution adds a shortcut itself",
)
"""See NVIDIA's developer guide, "Explicit Quantization" and "Q/DQ Layer-Placement Recommendations".

In 8 a DQ node reads no constant (https://github.com/microsoft/onnxruntime/issues/11535 and pull request 9616), so
weights are float32 and pass a Q/DQ pair; 10 and 11 take that as well. A sum is computed by the convolution before it if
the other operand alone is quantised; a Q node between the two would part them.
"""
BATCHES = (1, 8, 64)
"""Smallest, optimal and largest batch of the profile of a graph with a free batch axis."""


def requires() -> str | None:
    """What is missing: TensorRT, pycuda, or a device. Looks for the device first: 8.6 crashes without one."""
    missing = [name for name in ("tensorrt", "pycuda") if find_spec(name) is None]
    if missing:
        return f"{INSTALL['tensorrt']} (missing: {', '.join(missing)})"
    try:
        import pycuda.autoprimaryctx  # noqa: F401  makes device 0's primary context current
    except Exception:  # pycuda raises types of its own compiled module
        return "a machine with an NVIDIA GPU and its driver: no CUDA device is here"
    return None


def _ready() -> Any:
    if missing := requires():
        raise MissingRuntime("TensorRT cannot be used here", hint=missing)
    import tensorrt

    return tensorrt


def _major(trt: Any) -> int:
    return int(trt.__version__.split(".")[0])


def last() -> tuple[str, ...]:
    """The parser of 8.6 documents opset 17 at most."""
    if find_spec("tensorrt") is None:
        return ()
    import tensorrt

    return ("opset17",) if _major(tensorrt) < 10 else ()


def _machine(trt: Any) -> Json:
    import pycuda.driver as cuda

    device = cuda.Device(0)
    return {
        "gpu": device.name(),
        "compute_capability": ".".join(map(str, device.compute_capability())),
        "tensorrt": trt.__version__,
        "cuda": ".".join(map(str, cuda.get_version())),
        "driver": cuda.get_driver_version(),
    }


def build(model: onnx.ModelProto, out: Path, spec: ModelSpec, precision: Precision) -> Built:
    """Builds model.engine on this machine's GPU.

    Raises:
        MissingRuntime: TensorRT, pycuda or a GPU is missing.
        GateFailed: The graph has what TensorRT does not take, see `lmconv.tensorrt_lint`, or TensorRT refuses it; its
            own words are given.
    """
    trt = _ready()
    if found := complaints(model, _major(trt)):
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise GateFailed(f"TensorRT {trt.__version__} would not take {spec.name}: {found[0]}{more}")
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString(deterministic=True)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        reasons = "; ".join(f"node {error.node()}: {error.desc()}" for error in errors)
        raise GateFailed(f"TensorRT {trt.__version__} cannot parse the graph: {reasons}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
    config.clear_flag(trt.BuilderFlag.TF32)
    if _major(trt) < 10:  # weakly typed: lower precision has to be permitted, the graph says where
        permitted = {Precision.FP16: "FP16", Precision.INT8: "INT8"}
        if precision in permitted:
            config.set_flag(getattr(trt.BuilderFlag, permitted[precision]))
    if spec.batch is None:
        profile = builder.create_optimization_profile()
        (taken,) = spec.takes
        profile.set_shape(taken.name, *((batch, *taken.shape[1:]) for batch in BATCHES))
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise GateFailed(f"TensorRT {trt.__version__} cannot build the engine", hint="its log above says why")
    (out / "model.engine").write_bytes(bytes(engine))
    return Built(execution={"tf32": False}, machine=_machine(trt))


def _network_flags(trt: Any) -> int:
    flag = trt.NetworkDefinitionCreationFlag
    if _major(trt) < 10:
        return 1 << int(flag.EXPLICIT_BATCH)  # trt: 8
    return 1 << int(flag.STRONGLY_TYPED)  # trt: 10, 11


class TensorRtSession:
    """A `Session` on an engine: one context, one stream, device buffers that grow to the largest batch seen."""

    caveat = ""

    def __init__(self, path: Path, trt: Any) -> None:
        import pycuda.driver as cuda

        self._trt, self._cuda = trt, cuda
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise MissingRuntime(f"TensorRT {trt.__version__} cannot load {path}", hint="export again on this machine")
        self._context = self._engine.create_execution_context()
        self._stream = cuda.Stream()
        self._buffers: dict[str, Any] = {}
        self._sizes: dict[str, int] = {}
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self._outputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT]

    def _buffer(self, name: str, size: int) -> Any:
        if self._sizes.get(name, 0) < size:
            self._buffers[name], self._sizes[name] = self._cuda.mem_alloc(size), size
        self._context.set_tensor_address(name, int(self._buffers[name]))
        return self._buffers[name]

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See `lmconv.types.Session`."""
        for name, value in inputs.items():
            contiguous = np.ascontiguousarray(value)
            if not self._context.set_input_shape(name, contiguous.shape):
                raise GateFailed(f"the engine does not take {name} of shape {contiguous.shape}", hint="export --batch")
            self._cuda.memcpy_htod_async(self._buffer(name, contiguous.nbytes), contiguous, self._stream)
        results = {}
        for name in self._outputs:
            dtype = self._trt.nptype(self._engine.get_tensor_dtype(name))
            results[name] = np.empty(tuple(self._context.get_tensor_shape(name)), dtype)
            self._buffer(name, results[name].nbytes)
        if not self._context.execute_async_v3(self._stream.handle):
            raise GateFailed("TensorRT failed to run the engine", hint="its log above says why")
        for name, value in results.items():
            self._cuda.memcpy_dtoh_async(value, self._buffers[name], self._stream)
        self._stream.synchronize()
        return results

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for buffer in self._buffers.values():
            buffer.free()
        del self._context, self._engine, self._runtime


def open_artifact(artifact: Artifact, options: OpenOptions) -> Session:
    """Loads an engine on the GPU that it was built for, whatever `options.device` says: it has no other.

    Raises:
        MissingRuntime: TensorRT or a GPU is missing, or they are others than those of the manifest.
    """
    trt = _ready()
    here = _machine(trt)
    keys = ("gpu", "compute_capability", "tensorrt")
    built = artifact.machine or {}
    if any(built.get(key) != here[key] for key in keys):
        there, now = (", ".join(str(side.get(key)) for key in keys) for side in (built, here))
        raise MissingRuntime(f"{artifact.path} was built for {there}; here is {now}", hint="export it again here")
    return TensorRtSession(model_file(artifact, ".engine"), trt)


plugin = Target(
    name="tensorrt",
    summary="TensorRT engine for this machine's GPU",
    suffixes=(".engine",),
    precisions=(Precision.FP32, Precision.FP16, Precision.INT8),
    quantisation=QUANTISATION,
    requires=requires,
    build=build,
    open=open_artifact,
    last=last,
    ios=("tensor", "image"),  # it has uint8 as a network's input only, and no Gather of it
)
