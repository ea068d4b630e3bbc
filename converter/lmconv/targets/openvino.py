"""Target `openvino`: OpenVINO IR.

The CPU plug-in computes in bf16 by default if the CPU can, so every session sets the precision hint.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from lmconv.errors import GateFailed, InputError, MissingRuntime
from lmconv.graph.facts import copied
from lmconv.graph.rounding import cast_pairs_as_arithmetic
from lmconv.networks.interfaces import interface_of
from lmconv.plugins import INSTALL
from lmconv.store.artifact import model_file
from lmconv.types import (
    DEFAULT_BUILD,
    Arrays,
    Artifact,
    BuildOptions,
    Built,
    Inside,
    Json,
    ModelSpec,
    OpenOptions,
    Precision,
    QuantScheme,
    Target,
)

if TYPE_CHECKING:
    import onnx

HINT = "INFERENCE_PRECISION_HINT"
ROUNDED = (Precision.FP32, Precision.INT8)
"""Precisions in which a Cast to float16 and back must round; OpenVINO removes such a pair."""
STATIC = "static_batch"
"""Setting: batch size in the file of a network with a free batch. A static shape is faster; a session reshapes it."""
UNREAD: Mapping[str, Callable[[onnx.NodeProto], bool]] = {
    "qlinear": lambda node: node.op_type == "QLinearConv",  # not read with one scale per channel
    "deformable": lambda node: node.op_type == "DeformConv",
    "exact_resampling": lambda node: node.op_type == "Resize" and _has(node, b"half_pixel_symmetric"),
    "circular": lambda node: node.op_type == "Pad" and _has(node, b"wrap"),
    "squeeze": lambda node: node.op_type == "Squeeze" and len(node.input) < 2,  # not read for a free batch
}
"""Condition for a node that OpenVINO does not read, by the pass that replaces the node."""
SIZES = 3
"""Number of batch sizes for which a session compiles a static network; all other sizes share one with a free batch."""


def requires() -> str | None:
    """Returns an instruction to install OpenVINO if the package is missing."""
    return None if find_spec("openvino") else INSTALL["openvino"]


@functools.cache
def floats(hint: Precision) -> Precision:
    """Returns the precision in which this CPU computes float layers with a precision hint: bf16 only if the CPU can."""
    import openvino

    if hint != Precision.BF16:
        return Precision.FP32
    abilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return Precision.BF16 if "BF16" in abilities else Precision.FP32


def last(model: onnx.ModelProto) -> tuple[str, ...]:
    """Returns the passes that write a graph in operators that OpenVINO reads."""
    from lmconv.graph.naming import nodes_of

    nodes = [node for node in nodes_of(model) if not node.domain]
    return tuple(name for name, unread in UNREAD.items() if any(map(unread, nodes)))


def _has(node: onnx.NodeProto, text: bytes) -> bool:
    """True if an attribute of a node has this value."""
    return any(item.s == text for item in node.attribute)


def build(
    model: onnx.ModelProto,
    out: Path,
    spec: ModelSpec,
    precision: Precision,
    options: BuildOptions = DEFAULT_BUILD,
) -> Built:
    """Writes model.xml and model.bin; fixes a free batch to 1 in the file if the network can be reshaped again.

    Raises:
        InputError: OpenVINO cannot convert the network, or cannot write the files.
    """
    if precision in ROUNDED:
        model = copied(model)
        cast_pairs_as_arithmetic(model)
    serialised = model.SerializeToString(deterministic=True)
    static = bool(free_inputs(spec)) and _write_static(serialised, out, spec)
    if not static:
        _write(serialised, out, spec)
    execution: Json = {"device": "CPU", HINT: "bf16" if precision == Precision.BF16 else "f32"}
    return Built(execution=execution | ({STATIC: 1} if static else {}))


def _write_static(model: bytes, out: Path, spec: ModelSpec) -> bool:
    """Writes the network for one input; returns False if the network cannot then be reshaped to two inputs."""
    free = free_inputs(spec)
    batched = [tensor.name for tensor in spec.outputs if tensor.shape[0] == "N"]
    try:
        written = _write(model, out, spec, free)
        reshape(written, free, 2)
        return all(written.output(name).get_partial_shape()[0] == 2 for name in batched)
    except RuntimeError:  # a part of the network depends on the batch size
        return False


def _write(model: bytes, out: Path, spec: ModelSpec, free: Sequence[str] = ()) -> Any:
    """Writes the network, for one input along `free`; returns the network as an `openvino.Model`."""
    import openvino

    converted = _converted(model, spec)
    if free:
        reshape(converted, free, 1)
    for index, node in enumerate(converted.get_ordered_ops()):
        # OpenVINO numbers added nodes through the life of the process; numbers through the graph are reproducible.
        stem, _, number = node.get_friendly_name().rpartition("_")
        if number.isdecimal() and stem in (node.get_type_name(), "ShapeOf"):
            node.set_friendly_name(f"{stem}_added_{index}")
    try:
        openvino.save_model(converted, out / "model.xml", compress_to_fp16=False)
    except RuntimeError as error:  # OpenVINO's error for a refusal of the file system
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"OpenVINO cannot write {out}: {reason}", hint="free space there, or name another") from error
    return converted


def _converted(model: bytes, spec: ModelSpec) -> Any:
    """Returns the network as an `openvino.Model`.

    Raises:
        InputError: OpenVINO lacks an operator, or drops an input that no node reads.
    """
    import openvino

    hint = "use another target, or export it with other operators"
    try:
        converted = openvino.Core().read_model(model)
    except RuntimeError as error:
        raise InputError(f"OpenVINO cannot convert {spec.name}: {_reason(error)}", hint=hint) from error
    kept = {name for value in converted.inputs for name in value.get_names()}
    if unread := ", ".join(tensor.name for tensor in interface_of(spec).inputs if tensor.name not in kept):
        message = f"{spec.name} never reads its {unread}, and OpenVINO would drop it"
        raise InputError(message, hint="use another target, or look for what its output depends on")
    return converted


def _reason(error: RuntimeError) -> str:
    """Returns the end of OpenVINO's report, which names the operators that cannot be converted, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for kind in ("-- No conversion rule", "-- Conversion is failed"):  # the second may follow from the first
        if failed := [line.removeprefix("-- ") for line in lines if line.startswith(kind)]:
            return "; ".join(failed)
    return lines[-1]


def free_inputs(spec: ModelSpec) -> tuple[str, ...]:
    """Returns the names of the inputs with a free batch axis; other free axes are not a batch."""
    return tuple(tensor.name for tensor in interface_of(spec).inputs if tensor.shape[0] == "N")


def reshape(model: Any, inputs: Sequence[str], batch: int) -> None:
    """Fixes the batch axis of inputs of an `openvino.Model`; frees the axis if `batch` is -1."""
    shapes = {name: model.input(name).get_partial_shape() for name in inputs}
    for shape in shapes.values():
        shape[0] = batch
    model.reshape(shapes)


class OpenVinoSession:
    """A `Session` on OpenVINO's CPU plug-in; by default with one stream and the latency hint.

    The first run of a batch size compiles the network.

    Args:
        path: The model file.
        hint: Precision hint passed to the runtime.
        threads: Inference threads of a stream; 0 for OpenVINO's default.
        free: Inputs whose batch axis is free in the network and fixed in the file. The session compiles the network
            again for the first SIZES batch sizes, and once for all others.
        streams: Number of inferences that the compiled network can run at the same time.
    """

    def __init__(self, path: Path, hint: str, threads: int, free: Sequence[str] = (), *, streams: int = 1) -> None:
        import openvino

        performance = "LATENCY" if streams == 1 else "THROUGHPUT"
        config: dict[str, Any] = {HINT: hint, "NUM_STREAMS": streams, "PERFORMANCE_HINT": performance}
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads * streams
        self._config, self._free = config, tuple(free)
        self._core = openvino.Core()
        try:
            self._model = self._core.read_model(path)
        except RuntimeError as error:
            raise InputError(f"OpenVINO cannot load {path}: {_reason(error)}", hint="export again") from error
        self._hint = hint
        self._batch = self._model.input(free[0]).get_partial_shape()[0].get_length() if free else -1
        self._names = [output.any_name for output in self._model.outputs]
        self._compiled: dict[int, Any] = {}
        self._requests: dict[int, tuple[Any, dict[str, NDArray[Any]]]] = {}

    @property
    def execution_mismatch(self) -> str:
        """See `lmconv.types.Session`."""
        if self._hint == "f32":  # every CPU computes in f32
            return ""
        if not self._compiled:
            self._compile(self._batch)
        used = next(iter(self._compiled.values())).get_property(HINT).to_string()
        return "" if used == self._hint else f"asked for {self._hint}, this CPU computes in {used}"

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See `lmconv.types.Session`."""
        batch, compiled = self.compiled(inputs)
        if batch not in self._requests:
            request = compiled.create_infer_request()
            fixed = all(value.get_partial_shape().is_static for value in compiled.inputs)
            own = {value.any_name: request.get_tensor(value).data for value in compiled.inputs} if fixed else {}
            self._requests[batch] = request, own
        request, own = self._requests[batch]
        try:
            if own.keys() == inputs.keys() and all(map(_fits, own.values(), map(inputs.__getitem__, own))):
                for name, array in own.items():  # a new tensor for every run takes 0.05 ms and more
                    array[...] = inputs[name]
                request.infer()
            else:
                if own:
                    del self._requests[batch]  # the next line replaces the tensors of the request
                request.infer(dict(inputs), share_inputs=True)
        except RuntimeError as error:
            raise self._failed(error) from error
        return {name: np.array(request.get_output_tensor(index).data) for index, name in enumerate(self._names)}

    def compiled(self, inputs: Arrays) -> tuple[int, Any]:
        """Returns the batch size of the inputs and the network compiled for this size; -1 stands for any size."""
        sizes = {len(inputs[name]) for name in self._free}
        batch = (sizes.pop() or -1) if len(sizes) == 1 else -1  # a network compiled for 0 inputs ends the process
        if batch not in self._compiled and len(self._compiled) >= SIZES:
            batch = -1
        if batch not in self._compiled:
            self._compile(batch)
        return batch, self._compiled[batch]

    def _compile(self, batch: int) -> None:
        """Compiles the network for a batch size."""
        if batch != self._batch:
            reshape(self._model, self._free, batch)
            self._batch = batch
        try:
            self._compiled[batch] = self._core.compile_model(self._model, "CPU", self._config)
        except RuntimeError as error:
            raise self._failed(error) from error

    def _failed(self, error: RuntimeError) -> GateFailed:
        """Returns the error for a network that OpenVINO reads and cannot run."""
        hint = "use another target, or write this node with other operators"
        return GateFailed(f"OpenVINO cannot run the network: {_reason(error)}", hint=hint)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._requests, self._compiled, self._model


def open_artifact(artifact: Artifact, options: OpenOptions, *, streams: int = 1) -> OpenVinoSession:
    """Compiles an artefact for the CPU, with the precision hint of the manifest.

    Raises:
        MissingRuntime: The device is a GPU: this target supports the CPU only.
        InputError: OpenVINO cannot read the model.
        GateFailed: OpenVINO cannot run the model.
    """
    if options.device != "cpu":
        raise MissingRuntime("the openvino target runs on the CPU", hint="use --device cpu")
    path = model_file(artifact, ".xml")
    free = free_inputs(artifact.spec) if STATIC in artifact.execution else ()
    return OpenVinoSession(path, artifact.execution[HINT], options.threads, free, streams=streams)


def _fits(own: NDArray[Any], array: NDArray[Any]) -> bool:
    """True if an array can be copied to an input of OpenVINO as it is; OpenVINO refuses all others in its own words."""
    return own.shape == array.shape and own.dtype == array.dtype


class OpenVinoStreams:
    """`Streams` by asynchronous requests, two for each stream: the next one waits while the first one is computed.

    There is no callback, and so no `AsyncInferQueue`: a callback takes Python's lock when it ends, and the end of a
    session may wait forever for this (OpenVINO 2026.4).

    Args:
        session: A session with the same number of streams.
        streams: Number of streams.
    """

    def __init__(self, session: OpenVinoSession, streams: int) -> None:
        self._session, self._streams = session, streams
        self._requests: dict[int, list[Any]] = {}

    def run(self, inputs: Arrays, runs: int) -> list[float]:
        """See `lmconv.types.Streams`."""
        batch, compiled = self._session.compiled(inputs)
        if batch not in self._requests:
            self._requests[batch] = [compiled.create_infer_request() for _ in range(2 * self._streams)]
        requests, arrays, done = self._requests[batch], dict(inputs), list[float]()
        for turn in range(runs + len(requests)):
            request = requests[turn % len(requests)]
            if turn >= len(requests):
                request.wait()
                for index in range(len(compiled.outputs)):
                    np.array(request.get_output_tensor(index).data)  # a caller needs the outputs
                done.append(time.perf_counter())
            if turn < runs:
                request.start_async(arrays, share_inputs=True)
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._requests.clear()
        self._session.__exit__(kind, error, trace)


def open_streams(artifact: Artifact, options: OpenOptions, streams: int) -> OpenVinoStreams:
    """Compiles an artefact for several runs at the same time. Errors are those of `open_artifact`."""
    return OpenVinoStreams(open_artifact(artifact, options, streams=streams), streams)


class OpenVinoProbe:
    """A `Probe` on OpenVINO's CPU plug-in. A value that is read is not fused away.

    Args:
        path: An IR or ONNX file.
        execution: `execution` of the artefact.
    """

    def __init__(self, path: Path, execution: Json) -> None:
        import openvino

        self._core, self._path = openvino.Core(), path
        self._config = {HINT: execution[HINT], "PERFORMANCE_HINT": "LATENCY"}
        computed = (
            output
            for op in self._core.read_model(path).get_ordered_ops()
            if op.get_type_name() not in ("Constant", "Parameter", "Result")
            for output in op.outputs()
        )
        self.names = frozenset(name for output in computed for name in output.get_names())

    def run(self, inputs: Arrays, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """See `lmconv.types.Probe`."""
        model = self._core.read_model(self._path)
        model.reshape({name: list(array.shape) for name, array in inputs.items()})
        known = {name for output in model.outputs for name in output.get_names()}
        model.add_outputs([name for name in names if name not in known])
        results = self._core.compile_model(model, "CPU", self._config)(dict(inputs))
        return {name: np.array(results[name]) for name in names}


plugin = Target(
    name="openvino",
    summary="OpenVINO IR",
    suffixes=(".xml", ".bin"),
    precisions=(Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8, Precision.MIXED),
    quantisation=QuantScheme(
        activations="uint8",
        bracket=False,
        reason="its x86 kernels multiply unsigned activations by signed weights, and fuse PReLU to the layer before",
        deconvolutions=True,
    ),
    on_arm=QuantScheme(
        activations="int8",
        bracket=False,
        reason="on ARM it runs the Arm Compute Library, which has signed convolutions",
    ),
    requires=requires,
    build=build,
    open=open_artifact,
    floats=floats,
    open_streams=open_streams,
    inside=Inside(
        open=OpenVinoProbe,
        imports="openvino",
        call='list(openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(inputs).values())',
    ),
    exact={
        "Resize": "exact_resampling",
        "AveragePool": "exact_resampling",
        "QuantizeLinear": "exact_quantisation",
        "DequantizeLinear": "exact_quantisation",
    },
    last=last,
    rewrites=dict.fromkeys((Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8), ("dead",)),
)
