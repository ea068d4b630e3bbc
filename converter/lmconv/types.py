"""The few core types. Everything else may import this module; it imports nothing of ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import torch
    from numpy.typing import NDArray

    Float32: TypeAlias = NDArray[np.float32]
    Float64: TypeAlias = NDArray[np.float64]
    Uint8: TypeAlias = NDArray[np.uint8]
    Arrays: TypeAlias = Mapping[str, NDArray[Any]]
else:  # not worth importing numpy for an annotation: `lmconv --help` answers without it
    Float32 = Float64 = Uint8 = Arrays = Any

Json: TypeAlias = dict[str, Any]

DEFAULT_TARGET = "onnx"
"""Target of the plain graph, and of commands without `--to`."""
ONNX = "onnx"
"""The `backbone` of a spec whose source is an ONNX file."""
OPSET = 18
"""The opset of every graph between export and target."""

Io: TypeAlias = Literal["tensor", "image", "frame"]
"""Input of an artefact: the network's own, uint8 crops, or one uint8 frame and boxes; see `networks/interfaces`."""


Cpu: TypeAlias = Literal["x86", "arm"]
"""Kinds of CPU that multiply 8-bit integers differently."""


class Precision(StrEnum):
    """What an artefact computes in; what it does not name stays float32."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One artefact of a network: target, precision, input and batch size.

    Attributes:
        target: Name of the target, such as `"openvino"`.
        precision: Precision of the artefact.
        io: Input of the artefact.
        batch: A fixed batch size; None for a free one.
    """

    target: str
    precision: Precision = Precision.FP32
    io: Io = "tensor"
    batch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output of a network.

    `shape` holds integers, and a name where an axis is free: `("N", 3, 112, 112)`.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    layout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """From a uint8 crop to the network's input: `(pixel * scale - mean) / std`, per channel in `colour` order."""

    colour: Literal["BGR", "RGB"] = "BGR"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """The square cut around a face: the longer (`max`) or shorter (`min`) side of `box`, times `scale`."""

    box: Literal["landmarks", "detector"] = "landmarks"
    side: Literal["max", "min"] = "max"
    scale: float = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Decode:
    """How heatmaps become points, see `lmconv.networks.heatmaps.decode`; `beta` is for `soft-argmax` alone."""

    method: Literal["argmax", "soft-argmax"] = "argmax"
    beta: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Everything needed to use a network, apart from its weights.

    Attributes:
        name: What the user calls it; names the artefact's folder.
        backbone: Name of the backbone plug-in, `"onnx"` where the source is an ONNX file, `FILE.py:NAME` for a user's
            own network.
        landmarks: Number of points L; the output `landmarks` is (N, L, 2) float32. 0 of a network for detection, whose
            outputs are raw: `scores`, `boxes` and perhaps `points`, as its backbone says.
        sample: (height, width) at which a network that takes pictures of any size is compared, timed and counted.
        decode: The network's unit of points: `"fraction"` of its input's width and height, or `"pixels"` of it.
        heatmaps: How the network's maps become points, where it gives maps; they are then the output `heatmaps`,
            (N, L, h, w) float32.
        output_slice: For an ONNX source, the half-open range of its flat output that holds the points, or of its
            channels that hold the heatmaps.
        io: What the artefact takes; `inputs`, `outputs` and `decode` are always the network's own, and `takes` and
            `unit` are the artefact's.
    """

    name: str
    backbone: str
    landmarks: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    task: Literal["landmarks", "detection"] = "landmarks"
    sample: tuple[int, int] | None = None
    preprocess: Preprocess = Preprocess()
    decode: Literal["fraction", "pixels"] = "fraction"
    heatmaps: Decode | None = None
    crop: Crop = Crop()
    output_slice: tuple[int, int] | None = None
    io: Io = "tensor"

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the network's input, pixels; `sample` where it is free."""
        height, width = self.sample or self.inputs[0].shape[2:]
        return int(height), int(width)

    @property
    def batch(self) -> int | None:
        """The batch size a static graph is tied to, None where it is free."""
        size = self.inputs[0].shape[0]
        return size if isinstance(size, int) else None


def landmark_spec(
    name: str, backbone: str, *, size: tuple[int, int], landmarks: int, heatmaps: Decode | None = None, **settings: Any
) -> ModelSpec:
    """The spec of an ordinary landmark network: `input` (N, 3, *size) float32 to `landmarks` (N, landmarks, 2)."""
    maps = TensorSpec(name="heatmaps", dtype="float32", shape=("N", landmarks, "h", "w"), layout="NLHW")
    return ModelSpec(
        name=name,
        backbone=backbone,
        landmarks=landmarks,
        inputs=(TensorSpec(name="input", dtype="float32", shape=("N", 3, *size), layout="NCHW"),),
        outputs=(
            TensorSpec(name="landmarks", dtype="float32", shape=("N", landmarks, 2), layout="NLC"),
            *([maps] if heatmaps else []),
        ),
        heatmaps=heatmaps,
        **settings,
    )


SAMPLE = (240, 320)
"""`ModelSpec.sample` of the detectors here: the size that the ultra-light ones are made for, so that times compare."""


def detection_spec(
    name: str,
    *,
    outputs: Mapping[str, tuple[int | str, ...]],
    size: tuple[int, int] | None = None,
    **settings: Any,
) -> ModelSpec:
    """The spec of a network for detection: `input` (N, 3, *size) float32, of any size where none is given.

    Args:
        name: Of the backbone.
        outputs: Shapes of `scores`, `boxes` and perhaps `points`, in the order in which they are computed; all float32.
        size: (height, width) that it takes, pixels.
        settings: See `ModelSpec`.
    """
    return ModelSpec(
        name=name,
        backbone=name,
        task="detection",
        landmarks=0,
        inputs=(TensorSpec(name="input", dtype="float32", shape=("N", 3, *(size or ("H", "W"))), layout="NCHW"),),
        outputs=tuple(
            TensorSpec(name=key, dtype="float32", shape=shape, layout={2: "NC", 3: "NPC", 4: "NCHW"}[len(shape)])
            for key, shape in outputs.items()
        ),
        sample=None if size else SAMPLE,
        **settings,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """A network architecture: the plug-in of `backbones/<one>.py`.

    `build(landmarks)` gives a module in PyTorch's initial state whose forward takes (N, 3, H, W) float32 and gives
    (N, 2 * landmarks) float32; where the spec has `heatmaps`, maps (N, landmarks, h, w); or a tuple that begins so. For
    detection it gives a tuple in the order of the spec's outputs. None where the network was published as an ONNX file,
    which holds architecture and weights, and has such outputs.
    """

    spec: ModelSpec
    build: Callable[[int], torch.nn.Module] | None
    summary: str

    def module(self, landmarks: int) -> torch.nn.Module:
        """Builds the network in PyTorch's initial state; not for a network published as an ONNX file."""
        assert self.build, f"{self.spec.name} is published as an ONNX file"
        return self.build(landmarks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A network with its weights: what everything that is made from it is compared with.

    Attributes:
        spec: What it is.
        path: The checkpoint or ONNX file; None where the weights are random.
        sha256: That of the file; of random weights, that of their description.
        seed: Of random weights.
        factory: What builds a user's own network, as they named it: `FILE.py:NAME`; else empty.
        kind: What runs it.
    """

    spec: ModelSpec
    path: Path | None
    sha256: str
    seed: int | None = None
    factory: str = ""
    kind: Literal["torch", "onnx"] = "torch"

    @property
    def label(self) -> str:
        """Where the weights come from, in words."""
        return str(self.path) if self.path else f"random weights, seed {self.seed}"


class Session(Protocol):
    """A loaded artefact, ready to run; a context manager that frees what it holds.

    Attributes:
        execution_mismatch: Difference between the artefact's `execution` and this machine's actual computation; empty
            without a difference.
    """

    execution_mismatch: str

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Computes the outputs by name. Shapes and dtypes are those of the spec."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantScheme:
    """How a target wants its int8 graph.

    Attributes:
        activations: `"uint8"` (asymmetric) or `"int8"` (symmetric, zero point 0).
        bracket: Whether all that a layer computes is quantised before anything reads it: ONNX Runtime has an integer
            kernel for the layer only then; OpenVINO and TensorRT would rather fuse what follows.
        reason: Why, in one sentence; written to the recipe.
        weights: `"int8"`, which a DQ node reads, or the same values as `"float32"`, which pass a Q/DQ pair.
        fuse_sums: Whether a layer that only a sum reads gives it float values, as one kernel computes both.
        balance: Share of a channel's range that equalisation moves into the weights of a dense reader, 0 to 1.
        float_stem: How many of the first layers stay float, at most a quarter of them all.
    """

    activations: Literal["uint8", "int8"]
    bracket: bool
    reason: str
    weights: Literal["int8", "float32"] = "int8"
    fuse_sums: bool = False
    balance: float = 0.5
    float_stem: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPrecision:
    """How the layers of a mixed graph compute: what `lmconv tune` chose, and `--precision mixed` makes.

    Attributes:
        precision: fp32, fp16, bf16, or int8 with some layers left in float.
        floats: What float layers compute in, fp32 or bf16; a hint to the runtime.
        rewrites: Passes before those of the precision, in order.
        settings: Of the quantiser, where they are not the target's own: fields of
            `lmconv.quantise.plan.QuantiserOptions`, sets as sorted lists.
        decisions: What passes would have decided by measuring, by name.
    """

    precision: Precision
    floats: Precision = Precision.FP32
    rewrites: tuple[str, ...] = ()
    settings: Json = field(default_factory=dict)
    decisions: Json = field(default_factory=dict)

    @classmethod
    def of(cls, document: Json) -> MixedPrecision:
        """What a manifest says of one."""
        return cls(
            precision=Precision(document["precision"]),
            floats=Precision(document["floats"]),
            rewrites=tuple(document["rewrites"]),
            settings=document["settings"],
            decisions=document["decisions"],
        )


CHANNELS = (1, 4, 8, 16)
"""Numbers of channels that vector instructions of a CPU work on at once: none, SSE, AVX2, AVX512."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassContext:
    """What a pass may use besides the graph.

    Attributes:
        spec: The network's spec.
        crops: (n, 3, H, W) float32 network inputs to calibrate on; None where none were given.
        scheme: How the target wants int8.
        measure: Times graphs on the target, one thread, interleaved: (graphs, samples) float64, milliseconds; None
            where nothing can be measured.
        compact_px: How far compaction may move a landmark on a face, input pixels; None where it has to be exact.
        replay: What an earlier run of this pass decided by measuring: to be done again as it was.
        settings: Of the quantiser, see `MixedPrecision`.
        channels: See `Target`.
    """

    spec: ModelSpec
    crops: Float32 | None = None
    scheme: QuantScheme | None = None
    measure: Callable[[Sequence[onnx.ModelProto]], Float64] | None = None
    compact_px: float | None = None
    replay: Json | None = None
    settings: Json = field(default_factory=dict)
    channels: tuple[int, ...] = CHANNELS


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """A rewrite of the ONNX graph: the plug-in of `passes/<one>.py`.

    Attributes:
        apply: Gives a new model (the argument may be changed) and what it decided, for the recipe; figures that differ
            from run to run under the key `measured`.
        tolerance: Largest allowed mean absolute difference of the landmarks, fractions of the input, on real crops
            (where given) and on noise; where the network gives heatmaps, of these, fractions of their range; for
            detection, the mean over its raw outputs, each so.
        required: Whether the artefact is impossible without it; another pass is left out when it is refused.
        calibrated: Whether it needs real crops; it is then judged on crops alone, as noise is outside its range.
        uses: The fields of PassContext that its result depends on, besides the spec.
        opset: The opset of what it gives; only a pass of `Target.last` may leave another.
    """

    name: str
    summary: str
    apply: Callable[[onnx.ModelProto, PassContext], tuple[onnx.ModelProto, Json]]
    tolerance: float
    required: bool = False
    calibrated: bool = False
    uses: tuple[str, ...] = ()
    opset: int = OPSET


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A folder with a model that can be deployed, its manifest.json and reference.npz.

    Attributes:
        path: The folder.
        digest: sha256 of the manifest without `measured`.
        files: sha256 of every other file, by name.
        execution: What the runtime is told, so that every command runs the same thing.
        parents: The checkpoint (`source`) and the plain graph (`plain`) it was made from: file name and sha256.
        recipe: Every decision that made it.
        measured: What was measured on it, and when; outside the digest.
    """

    path: Path
    digest: str
    spec: ModelSpec
    target: str
    precision: Precision
    files: Mapping[str, str]
    execution: Json
    parents: Json
    recipe: Json
    versions: Json
    machine: Json | None
    parameters: int
    flops: int
    measured: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A runtime: the plug-in of `targets/<one>.py`.

    Attributes:
        suffixes: File name endings of its model files.
        precisions: What it can be built in.
        ios: What its artefacts can take.
        quantisation: How it wants int8.
        on_arm: The same for ARM CPUs, where that is another.
        requires: What is missing here, as an instruction ("pip install …"), or None when it can be used.
        build: Writes its files for a graph to a folder; gives `execution` and, for an engine tied to one, `machine`.
        open: Loads an artefact on a device with a number of threads.
        check_loadable: Refuses an artefact that cannot or should not be loaded here, before its runtime is touched.
        engines: Whether it builds engines, which `BuildOptions` are for.
        fixed_size: True if an artefact needs one size of picture.
        fp32_tolerance: Largest difference of a coordinate in fp32, fractions of the input.
        clock: Returns nanoseconds, the clock for timing graphs in a search. The default counts the work of this process
            only, whatever else the machine does; the work of a GPU needs a wall clock.
        contestant: Returns the Python module, and its arguments, that serves an artefact in a process of its own and
            is timed on a GPU; called with the artefact and the device, "gpu" or "cpu". None if the target does not
            run on a GPU.
        int8_ion_loss: Largest rise of the mean ION in int8 and mixed, percent of the source's.
        rewrites: Passes that make it faster here, by precision, in order: each has been measured, see docs/passes.md.
        last: Passes that the runtime found here cannot do without, after all others and after wrapping.
        channels: Multiples of channels that compaction tries where it removes some; the first where nothing can be
            timed.
    """

    name: str
    summary: str
    suffixes: tuple[str, ...]
    precisions: tuple[Precision, ...]
    quantisation: QuantScheme
    requires: Callable[[], str | None]
    build: Callable[[onnx.ModelProto, Path, ModelSpec, Precision, BuildOptions], Built]
    open: Callable[[Artifact, OpenOptions], Session]
    check_loadable: Callable[[Artifact, OpenOptions], None] = lambda artifact, options: None
    engines: bool = False
    fixed_size: bool = False
    fp32_tolerance: float = 1e-5
    int8_ion_loss: float = 5.0
    clock: Callable[[], int] = time.process_time_ns
    contestant: Callable[[Artifact, str], tuple[str, Sequence[str | Path]]] | None = None
    ios: tuple[Io, ...] = ("tensor", "image", "frame")
    rewrites: Mapping[Precision, tuple[str, ...]] = field(default_factory=dict)
    on_arm: QuantScheme | None = None
    last: Callable[[], tuple[str, ...]] = tuple
    channels: tuple[int, ...] = CHANNELS

    def scheme(self, cpu: Cpu) -> QuantScheme:
        """How it wants int8 for a kind of CPU."""
        return self.on_arm if cpu == "arm" and self.on_arm else self.quantisation


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """How an engine is built; only TensorRT has a use for it.

    Attributes:
        profile: Smallest, best and largest batch, where the network's is free.
        workspace: Bytes of device memory for the builder's scratch.
        builder_level: How hard the builder looks for fast kernels, 0 to 5.
        cache: Its timing cache, or the folder where there is one for each version and GPU; None keeps none.
        locked: Whether to refuse what would change the timing cache.
        version_compatible: Whether newer versions may run the engine.
        hardware_compatible: Whether other GPUs may, from compute capability 8.0 on.
        modules: The PyTorch module that computes each value, for errors to name.
    """

    profile: tuple[int, int, int] = (1, 8, 64)
    workspace: int = 2 << 30
    builder_level: int = 3
    cache: Path | None = None
    locked: bool = False
    version_compatible: bool = False
    hardware_compatible: bool = False
    modules: Mapping[str, str] = field(default_factory=dict)


DEFAULT_BUILD = BuildOptions()
"""Default options for building an engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What `Target.build` decided: the runtime's settings, the machine an engine is tied to, its part of the recipe."""

    execution: Json
    machine: Json | None = None
    recipe: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOptions:
    """Where and with how many intra-op threads a session runs; 0 leaves the number to the runtime.

    `trust` lets an engine be loaded that this user has not built.
    """

    device: Literal["cpu", "gpu"] = "cpu"
    threads: int = 0
    trust: bool = False
