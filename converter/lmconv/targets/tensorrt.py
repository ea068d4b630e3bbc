"""Target `tensorrt`: engines for TensorRT 8.6, 10 and 11. Precision is in the graph: one graph serves all versions.

All code that uses TensorRT is in `lmconv.trt`, which runs without the rest of lmconv; this module turns its faults into
lmconv's errors. An engine is tied to the GPU and TensorRT version of its build, and is native code. The manifest names
the machine, and the ledger lists the engines that this user has built or trusts; both are checked before TensorRT loads
an engine.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from lmconv.engines import ledger, remedy
from lmconv.engines.lint import complaints
from lmconv.errors import GateFailed, InputError, LmconvError, MissingRuntime
from lmconv.graph.naming import operators_of
from lmconv.passes.definitions import OPERATORS
from lmconv.plugins import INSTALL
from lmconv.store.artifact import model_file
from lmconv.store.files import replace_bytes, writing
from lmconv.trt import device
from lmconv.trt.build import Options, Plan
from lmconv.trt.build import build as build_plan
from lmconv.trt.compatibility import mismatch
from lmconv.trt.engine import Engine
from lmconv.trt.faults import Fault
from lmconv.types import (
    DEFAULT_BUILD,
    Arrays,
    Artifact,
    BuildOptions,
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

QUANTISATION = QuantScheme(
    activations="int8",
    bracket=False,
    weights="float32",
    fuse_sums=True,
    balance=0.75,
    float_stem=3,
    reason="it parses symmetric signed Q/DQ only, and a convolution adds a shortcut itself",
)
"""Source: NVIDIA's developer guide, "Explicit Quantization" and "Q/DQ Layer-Placement Recommendations".

All versions document float32 weights with a Q/DQ pair; some versions of TensorRT 8 refuse a DQ node that reads an int8
constant (https://github.com/microsoft/onnxruntime/issues/11535). Symmetric int8 has 127 steps for the output of a ReLU:
equalisation gives the activations more range than for other targets, and the first layers, which lose most, stay float
(docs/precision.md). A convolution also computes a following sum if only the other operand is quantised; a Q node
between convolution and sum prevents this fusion.
"""
UNREAD = {"qlinear": {"QLinearConv", "QLinearMatMul"}, "definitions": OPERATORS}
"""Operators that TensorRT 10 and 11 do not read, by the pass that replaces the operators."""
ERRORS: Mapping[str, type[LmconvError]] = {
    "device": MissingRuntime,
    "memory": MissingRuntime,
    "load": MissingRuntime,
    "build": GateFailed,
    "locked": GateFailed,
    "run": GateFailed,
    "shape": InputError,
}
"""Error class for each kind of fault. An intact engine that cannot be loaded was built for another machine."""


def requires() -> str | None:
    """Returns an instruction if TensorRT, pycuda or a device is missing."""
    if names := device.missing_packages():
        return f"{INSTALL['tensorrt']} (missing: {', '.join(names)})"
    if reason := device.missing():
        return f"a machine with an NVIDIA GPU, its driver and TensorRT: {reason}"
    return None


@contextmanager
def faults(hint: str = "", modules: Mapping[str, str] | None = None) -> Iterator[None]:
    """Turns faults into errors of lmconv.

    Args:
        hint: Hint of the error; by default the hint of the fault.
        modules: PyTorch module of each ONNX node, for the message.
    """
    try:
        yield
    except Fault as fault:
        guilty = sorted({modules[node] for node in fault.nodes if node in modules}) if modules else []
        where = f" (in the network: {', '.join(guilty[:3])})" if guilty else ""
        raise ERRORS[fault.kind](fault.message + where, hint=hint or fault.hint) from fault


def last(model: onnx.ModelProto) -> tuple[str, ...]:
    """Returns the passes that write a graph in operators that the installed parser reads.

    The parser of TensorRT 8 supports opset 17 at most.
    """
    if requires():
        return ()
    import tensorrt

    if int(tensorrt.__version__.partition(".")[0]) < 10:
        return ("opset17",)
    return tuple(name for name, unread in UNREAD.items() if unread & operators_of(model))


def build(
    model: onnx.ModelProto,
    out: Path,
    spec: ModelSpec,
    precision: Precision,
    options: BuildOptions = DEFAULT_BUILD,
) -> Built:
    """Builds model.engine on this machine's GPU, and adds the engine to the user's ledger.

    Raises:
        MissingRuntime: TensorRT, pycuda or a GPU is missing.
        GateFailed: The graph has parts that TensorRT does not support, see `lmconv.engines.lint`; or TensorRT refuses
            the graph, with its own message; or the timing cache is locked and would change.
        InputError: The timing cache or the ledger cannot be read or written.
    """
    profile = options.profile if spec.batch is None else None
    with faults(modules=_modules(model, options.modules)):
        machine = device.describe()
        if problems := complaints(model, int(machine["tensorrt"].partition(".")[0])):
            more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
            raise GateFailed(f"TensorRT {machine['tensorrt']} would not take {spec.name}: {problems[0]}{more}")
        cache = _cache_path(options.cache, machine)
        before = _read(cache)
        if options.locked and before is None:
            raise Fault("locked", f"there is no timing cache {cache}", "build once without --locked")
        for file in (ledger.path(), *([cache] if cache and not options.locked else [])):
            _check_writable(file)
        plan = build_plan(
            model.SerializeToString(deterministic=True),
            Options(
                profile=profile,
                workspace=options.workspace,
                level=options.builder_level,
                cache=before,
                version_compatible=options.version_compatible,
                hardware_compatible=options.hardware_compatible,
            ),
        )
        _keep(cache, before, plan, locked=options.locked)
    (out / "model.engine").write_bytes(plan.engine)
    ledger.note(hashlib.sha256(plan.engine).hexdigest())
    compatible = {name: getattr(options, name) for name in ("version_compatible", "hardware_compatible")}
    tied_to = ("gpu", "compute_capability", "tensorrt", "cuda", "driver", "platform")
    recipe: Json = {"workspace": options.workspace, "builder_level": options.builder_level, **compatible}
    batches: Json = {"batches": list(profile)} if profile else {}
    return Built(
        execution={"tf32": False, **batches},
        machine={name: machine[name] for name in tied_to} | compatible,
        recipe={"engine": recipe | batches},
    )


def _modules(model: onnx.ModelProto, modules: Mapping[str, str]) -> dict[str, str]:
    """Returns the PyTorch module of each node, by the name of the node and of its outputs."""
    table: dict[str, str] = {}
    for node in model.graph.node:
        for value in node.output:
            if value in modules:
                table[node.name] = table[value] = modules[value]
    return table


def _cache_path(named: Path | None, machine: Json) -> Path | None:
    """Returns the file of the timing cache; in a folder, one file per version and GPU, to which a cache is tied."""
    if named is None or not named.is_dir():
        return named
    gpu = re.sub("[^A-Za-z0-9]+", "-", machine["gpu"]).strip("-")
    return named / f"tensorrt-{machine['tensorrt']}-{gpu}.cache"


def _read(cache: Path | None) -> bytes | None:
    try:
        return cache.read_bytes() if cache and cache.exists() else None
    except OSError as error:
        raise InputError(f"cannot read {cache}: {error.strerror}", hint="name another --timing-cache") from error


def _check_writable(file: Path) -> None:
    """Checks before a build of minutes that a file can be written.

    Raises:
        InputError: The file cannot be written.
    """
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=file.parent).close()


def _keep(cache: Path | None, before: bytes | None, plan: Plan, *, locked: bool) -> None:
    """Writes the timing cache of a build.

    Raises:
        Fault: The cache is locked and would change (kind "locked").
    """
    if plan.cache == before:
        return
    if locked:
        sizes = f"{len(before or b''):,} to {len(plan.cache):,} bytes"
        hint = "build once without --locked, or go back to what the cache was made with"
        raise Fault("locked", f"--locked: kernels were timed that {cache} does not have ({sizes})", hint)
    if cache is not None:
        with writing(cache):
            replace_bytes(cache, plan.cache)


def portions(count: int, batches: tuple[int, int, int] | None) -> list[tuple[int, int, int]]:
    """Splits inputs into runs that a profile allows.

    Args:
        count: Number of inputs.
        batches: Smallest, optimal and largest batch of the profile; None for a single run.

    Returns:
        Start, stop and padded size of each run.
    """
    if batches is None:
        return [(0, count, count)]
    smallest, _, largest = batches
    starts = range(0, max(count, 1), largest)
    stops = [min(start + largest, count) for start in starts]
    return [(start, stop, max(smallest, stop - start)) for start, stop in zip(starts, stops, strict=True)]


def filled(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Pads an array with zeros along the first axis, up to a size."""
    if len(array) == size:
        return array
    return np.concatenate([array, np.zeros((size - len(array), *array.shape[1:]), array.dtype)])


def in_portions(
    run: Callable[[Arrays], dict[str, NDArray[Any]]], inputs: Arrays, batches: tuple[int, int, int] | None
) -> dict[str, NDArray[Any]]:
    """Runs any number of inputs in parts that a profile allows, and removes the padding."""
    parts = []
    for start, stop, size in portions(len(next(iter(inputs.values()))), batches):
        outputs = run({name: filled(value[start:stop], size) for name, value in inputs.items()})
        parts.append({name: value[: stop - start] for name, value in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class TensorRtSession:
    """A `Session` on an engine, for any number of inputs: the session splits the inputs for the engine's profile."""

    execution_mismatch = ""

    def __init__(self, plan: bytes, hint: str) -> None:
        with faults(hint):
            self._engine = Engine(plan)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See `lmconv.types.Session`."""
        with faults():
            return in_portions(self._engine.run, inputs, self._engine.batches)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.close()


def check_loadable(artifact: Artifact, options: OpenOptions) -> None:
    """Refuses an engine that cannot or must not be loaded here, before TensorRT reads the engine.

    Raises:
        InputError: This user has neither built nor trusted the engine.
        MissingRuntime: TensorRT or a GPU is missing, or the engine was built for another GPU or TensorRT.
    """
    _trusted(artifact, options)


def _trusted(artifact: Artifact, options: OpenOptions) -> bytes:
    """Returns the bytes of the engine, read once: the checked bytes are loaded. Raises as `check_loadable`."""
    path = model_file(artifact, ".engine")
    try:
        plan = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", hint="export again") from error
    digest = hashlib.sha256(plan).hexdigest()
    if options.trust:
        ledger.note(digest)
    elif not ledger.known(digest):
        hint = "--trust, where you know who built it; or export it here"
        raise InputError(f"{path} was not built by you, and an engine is code that would be run", hint=hint)
    if missing := requires():
        raise MissingRuntime(f"{artifact.path} needs tensorrt, which is not here", hint=missing)
    with faults():
        reason = mismatch(artifact.machine or {}, device.describe())
    if reason:
        raise MissingRuntime(f"{artifact.path} was {reason}", hint=_again(artifact))
    return plan


def _again(artifact: Artifact) -> str:
    return f"build it here: {remedy.command(artifact)}"


def open_artifact(artifact: Artifact, options: OpenOptions) -> Session:
    """Loads an engine on the GPU of its build; `options.device` is ignored, because an engine runs on a GPU only.

    Raises:
        InputError: See `check_loadable`.
        MissingRuntime: See `check_loadable`; or TensorRT cannot load the engine, or the GPU has too little memory.
    """
    return TensorRtSession(_trusted(artifact, options), _again(artifact))


def contestant(artifact: Artifact, device: str) -> tuple[str, list[str | Path]]:
    """Returns the worker of an engine. The worker refuses any file but the checked file, by its sha256."""
    path = model_file(artifact, ".engine")
    return "lmconv.trt.worker", [path, artifact.files[path.name]]


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
    channels=(8, 16, 32),  # tensor cores multiply fp16 in eights and int8 in sixteens
    check_loadable=check_loadable,
    engines=True,
    clock=time.perf_counter_ns,
    contestant=contestant,
    fixed_size=True,
    fp32_tolerance=1e-4,  # the kernels of a GPU sum in another order
    ios=("tensor", "image"),  # TensorRT supports uint8 as input of a network only, not in Gather
)
