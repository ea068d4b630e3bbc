"""Core types. Every module may import this module; this module imports nothing of lmconv."""

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
"""`ModelSpec.backbone` of a source that is an ONNX file."""
OPSET = 18
"""The opset of every graph between export and target."""

Io: TypeAlias = Literal["tensor", "image", "frame"]
"""Input of an artefact: the network's own tensor, uint8 crops, or one uint8 frame with boxes."""


Cpu: TypeAlias = Literal["x86", "arm"]
"""Kind of CPU: the two kinds multiply 8-bit integers differently."""


class Precision(StrEnum):
    """Precision of an artefact; layers that the precision does not cover stay float32."""

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

    Attributes:
        name: Name of the tensor.
        dtype: NumPy name of the element type, such as `"float32"`.
        shape: Sizes of the axes; a name stands for a free axis: `("N", 3, 112, 112)`.
        layout: Letters of the axes, such as `"NCHW"`.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    layout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """Normalisation of a uint8 crop: `(pixel * scale - mean) / std`, with the channels in the order of `colour`."""

    colour: Literal["BGR", "RGB"] = "BGR"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """Square crop around a face: side = longer (`max`) or shorter (`min`) side of `box`, times `scale`."""

    box: Literal["landmarks", "detector"] = "landmarks"
    side: Literal["max", "min"] = "max"
    scale: float = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Decode:
    """Decoding of heatmaps to points, see `lmconv.networks.heatmaps.decode`; only `soft-argmax` uses `beta`."""

    method: Literal["argmax", "soft-argmax"] = "argmax"
    beta: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Description of a network, without its weights.

    Attributes:
        name: Name given by the user; also the name of the artefact's folder.
        backbone: Name of the backbone plug-in, `"onnx"` for an ONNX file, or `FILE.py:NAME` for a user's own network.
        inputs: Inputs of the network.
        outputs: Outputs of the network.
        task: `"landmarks"` or `"detection"`.
        landmarks: Number of points L; the output `landmarks` is (N, L, 2) float32. 0 for a detector, whose outputs are
            raw: `scores`, `boxes` and sometimes `points`.
        sample: (height, width) for comparing, timing and counting a network that takes pictures of any size, pixels.
        preprocess: Normalisation of a crop.
        decode: Unit of the network's points: `"fraction"` of the input's width and height, or `"pixels"` of the input.
        heatmaps: Decoding of the network's heatmaps, the output `heatmaps` (N, L, h, w) float32; None for a network
            without heatmaps.
        crop: Square crop around a face.
        output_slice: Half-open range of the flat output of an ONNX file that holds the points, or of the channels that
            hold the heatmaps.
        io: Input of the artefact. `inputs`, `outputs` and `decode` always describe the network itself.
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
        """(height, width) of the network's input, pixels; `sample` if the size is free."""
        height, width = self.sample or self.inputs[0].shape[2:]
        return int(height), int(width)

    @property
    def batch(self) -> int | None:
        """Fixed batch size of the graph; None for a free batch."""
        size = self.inputs[0].shape[0]
        return size if isinstance(size, int) else None


def landmark_spec(
    name: str, backbone: str, *, size: tuple[int, int], landmarks: int, heatmaps: Decode | None = None, **settings: Any
) -> ModelSpec:
    """Spec of a landmark network: `input` (N, 3, *size) float32 to `landmarks` (N, landmarks, 2) float32."""
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
"""`ModelSpec.sample` of the built-in detectors: the input size of the ultra-light ones. Times are comparable then."""


def detection_spec(
    name: str,
    *,
    outputs: Mapping[str, tuple[int | str, ...]],
    size: tuple[int, int] | None = None,
    **settings: Any,
) -> ModelSpec:
    """Returns the spec of a detector: `input` (N, 3, *size) float32; the size is free if `size` is None.

    Args:
        name: Name of the backbone.
        outputs: Shapes of `scores`, `boxes` and sometimes `points`, in the order of the network's outputs; all float32.
        size: (height, width) of the input, pixels.
        settings: Other fields of `ModelSpec`.
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

    Attributes:
        spec: Description of the network.
        build: Returns a module in PyTorch's initial state for a number of landmarks. The module's forward takes
            (N, 3, H, W) float32. A landmark network returns (N, 2 * landmarks) float32; with `spec.heatmaps`, maps
            (N, landmarks, h, w) float32; or a tuple with these first. A detector returns a tuple in the order of
            `spec.outputs`. None for a network that is published as an ONNX file with such outputs.
        summary: One line for `lmconv models`.
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
    """A network with its weights: the reference for every artefact.

    Attributes:
        spec: Description of the network.
        path: Checkpoint or ONNX file; None for random weights.
        sha256: Hex sha256 of the file; for random weights, of their description.
        seed: Seed of random weights.
        factory: `FILE.py:NAME` of the function that builds a user's own network, as the user typed it; otherwise empty.
        kind: Library that runs the network.
    """

    spec: ModelSpec
    path: Path | None
    sha256: str
    seed: int | None = None
    factory: str = ""
    kind: Literal["torch", "onnx"] = "torch"

    @property
    def label(self) -> str:
        """Origin of the weights, for messages."""
        return str(self.path) if self.path else f"random weights, seed {self.seed}"


class Session(Protocol):
    """A loaded artefact, ready to run; a context manager that frees its resources.

    Attributes:
        execution_mismatch: Difference between the artefact's `execution` and this machine's actual computation; empty
            without a difference.
    """

    execution_mismatch: str

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Returns the outputs by name; shapes and dtypes follow the spec."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantScheme:
    """int8 scheme of a target.

    Attributes:
        activations: `"uint8"` (asymmetric) or `"int8"` (symmetric, zero point 0).
        bracket: True if every output of a layer is quantised before the next node. ONNX Runtime has an integer kernel
            for the layer only then; OpenVINO and TensorRT fuse the next node instead.
        reason: Reason for the scheme, one sentence; written to the recipe.
        weights: `"int8"` initializers with a DQ node, or the same values as `"float32"` with a Q/DQ pair.
        fuse_sums: True if a layer whose only consumer is a sum keeps a float output: one kernel computes both.
        balance: Fraction of a channel's range that equalisation moves into the weights of a dense consumer, 0 to 1.
        float_stem: Number of first layers that stay float, at most a quarter of all layers.
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
"""Multiples of channels for CPUs: vector widths of float32, without vectors, with SSE, AVX2 and AVX512."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassContext:
    """Inputs of a pass besides the graph.

    Attributes:
        spec: Description of the network.
        crops: (n, 3, H, W) float32 network inputs for calibration; None without faces.
        scheme: int8 scheme of the target.
        measure: Times graphs on the target, one thread, alternately: (graphs, samples) float64, milliseconds; None
            if the runtime is not installed.
        compact_px: Largest shift of a landmark on a face by compaction, input pixels; None for exact compaction.
        replay: Recorded decisions of an earlier run of this pass, to be repeated.
        settings: Options of the quantiser that differ from the target's.
        channels: Multiples of channels, see `Target`.
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
        name: Name of the pass and of its file.
        summary: One line for the documentation.
        apply: Returns a new model (the argument may be changed) and the decisions for the recipe. Figures that differ
            from run to run stand under the key `measured`.
        tolerance: Largest mean absolute difference, on noise and on real crops if given: of the landmarks, fractions of
            the input; of heatmaps if the network has heatmaps, fractions of their range; for a detector the mean over
            its raw outputs, fractions of the range of each.
        required: True if the artefact is impossible without the pass. Another pass is left out when refused.
        calibrated: True if the pass needs real crops. Such a pass is judged on crops only: noise is outside its range.
        uses: Fields of `PassContext` on which the result depends, besides the spec.
        opset: Opset of the result; only a pass of `Target.last` may leave opset 18.
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
    """A folder with a deployable model, its manifest.json and reference.npz.

    Attributes:
        path: The folder.
        digest: Hex sha256 of the manifest without `measured`.
        spec: Description of the network.
        target: Name of the target.
        precision: Precision of the artefact.
        files: Hex sha256 of every other file, by name.
        execution: Settings of the runtime, which every command applies.
        parents: File name and sha256 of the checkpoint (`source`) and of the plain graph (`plain`).
        recipe: Every decision of the build.
        versions: Versions of the tools.
        machine: Machine of an engine; None for an artefact that runs anywhere.
        parameters: Number of weights in the graph.
        flops: Floating-point operations for one input.
        measured: Measurements with their time; outside the digest.
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
        """int8 scheme for a kind of CPU."""
        return self.on_arm if cpu == "arm" and self.on_arm else self.quantisation


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """Options for building an engine; only TensorRT uses them.

    Attributes:
        profile: Smallest, best and largest batch of an engine with a free batch.
        workspace: Scratch memory of the builder on the device, bytes.
        builder_level: Effort of the search for fast kernels, 0 to 5.
        cache: Timing cache, or a folder with one timing cache per version and GPU; None for no cache.
        locked: True to refuse a build that would change the timing cache.
        version_compatible: True if newer versions of TensorRT may run the engine.
        hardware_compatible: True if every GPU from compute capability 8.0 on may run the engine.
        modules: PyTorch module that computes each value, for error messages.
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
    """Result of `Target.build`: settings of the runtime, machine of an engine, and the target's part of the recipe."""

    execution: Json
    machine: Json | None = None
    recipe: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOptions:
    """Options for opening a session.

    Attributes:
        device: Device that runs the session.
        threads: Number of intra-op threads; 0 leaves the number to the runtime.
        trust: True to load an engine that this user did not build.
    """

    device: Literal["cpu", "gpu"] = "cpu"
    threads: int = 0
    trust: bool = False
