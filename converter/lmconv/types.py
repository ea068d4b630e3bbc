"""Core types. Every other module may import this module, which imports no module of lmconv."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
else:  # annotations must not import numpy: `lmconv --help` runs without numpy
    Float32 = Float64 = Uint8 = Arrays = Any

Json: TypeAlias = dict[str, Any]

DEFAULT_TARGET = "onnx"
"""Target of the plain graph, and of commands without `--to`."""
ONNX = "onnx"
"""`ModelSpec.backbone` of a source that is an ONNX file."""
OPSET = 18
"""Opset of a graph that PyTorch exports: the lowest opset of the hub."""
OPSETS = range(OPSET, 25)
"""Opsets of the hub: a graph between export and target has 18, or the later opset of its ONNX file."""

Io: TypeAlias = Literal["tensor", "image", "frame"]
"""Input of an artefact: the network's own tensor, uint8 crops, or one uint8 frame with boxes."""


Cpu: TypeAlias = Literal["x86", "arm"]
"""Kind of CPU: the two kinds multiply 8-bit integers differently."""


class Precision(StrEnum):
    """Data type in which an artefact computes; all other values stay float32."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """An artefact of a network, by target, precision, input and batch size.

    Attributes:
        target: Name of the target, for example `"openvino"`.
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
    """An input or output of a network.

    `shape` holds integers, and names for free axes: `("N", 3, 112, 112)`.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    layout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """Rule from a uint8 crop to the network's input: `(pixel * scale - mean) / std`, per channel in `colour` order."""

    colour: Literal["BGR", "RGB"] = "BGR"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """Rule for the square around a face: the longer (`max`) or shorter (`min`) side of `box`, times `scale`."""

    box: Literal["landmarks", "detector"] = "landmarks"
    side: Literal["max", "min"] = "max"
    scale: float = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Decode:
    """Rule from heatmaps or SimCC vectors to landmarks, see `lmconv.networks.heatmaps` and `lmconv.networks.simcc`.

    Attributes:
        method: Name of the rule.
        beta: For `soft-argmax`, the factor before the softmax; for `simcc`, the number of cells per pixel of the input,
            0 if the vectors span the input.
    """

    method: Literal["argmax", "soft-argmax", "simcc"] = "argmax"
    beta: float = 1.0


PointUnit: TypeAlias = Literal["fraction", "pixels", "[-1,1]"]
"""Unit of a network's points: fractions of the input's width and height, pixels of the input, or -1 to 1 over the
input's width and height."""
Axes: TypeAlias = Literal["xy", "xyz"]
"""Coordinates of a point. The third has no origin; its scale is that of x."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """User options about the outputs of a source; None where the user names nothing.

    Attributes:
        output: Name or index of the output that holds the points; for SimCC two, separated by a comma.
        landmarks: Number of points.
        decode: Decoding of heatmaps or SimCC vectors; None for points.
        output_slice: Half-open range of the flat output that holds the points, or of the channels with heatmaps.
        unit: Unit of the points.
        coordinates: Coordinates to keep, for points with three coordinates.
    """

    output: str | None = None
    landmarks: int | None = None
    decode: Decode | None = None
    output_slice: tuple[int, int] | None = None
    unit: PointUnit | None = None
    coordinates: Axes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenOutputs:
    """The outputs of a source that hold the points, chosen from all outputs by `lmconv.sources.choice.choose`.

    Attributes:
        names: Names of the outputs: a dict key, a field, an index, or the name in an ONNX file. One, or for SimCC the
            vectors of x and of y.
        axes: Coordinates of a point in the output; the artefact keeps as many as its output `landmarks` has.
        unit_reason: Reason for the unit, in words.
        left_out: Descriptions of the other outputs: name, dtype, shape, range.
        split: For SimCC, the length of the vectors of x.
    """

    names: tuple[str, ...]
    axes: Axes = "xy"
    split: int = 0
    unit_reason: str = ""
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Everything needed to use a network, except the weights.

    `lmconv.networks.heads.head_of` and `lmconv.networks.interfaces.interface_of` return the behaviour of a spec.

    Attributes:
        name: Name of the model and of the folder of its artefacts.
        backbone: Name of the backbone plug-in; `"onnx"` for an ONNX file, `FILE.py:NAME` for a user's own network.
        landmarks: Number of points L; the output `landmarks` is (N, L, 2) float32, or (N, L, 3) for a network with
            three coordinates. 0 for a detector, whose outputs are raw: `scores`, `boxes` and perhaps `points`, as its
            backbone defines them.
        inputs: Inputs of the network itself, whatever the input of the artefact.
        outputs: Outputs of the network itself.
        task: Kind of the network; a detector has raw outputs.
        sample: (height, width) at which a network for pictures of any size is compared, timed and counted.
        preprocess: Rule from a crop to the network's input.
        decode: Unit of the network's points.
        heatmaps: Rule from heatmaps to landmarks; the network then has the output `heatmaps`, (N, L, h, w) float32, or
            for SimCC (N, L, w) float32: the vector of x, then the vector of y. None for a network without heatmaps.
        crop: Rule for the square around a face.
        output_slice: Half-open range of the flat output of the source that holds the points, or of the channels that
            hold the heatmaps.
        io: Input of the artefact.
        chosen: Outputs of the source that hold the points; None for the first output, as in the backbones and in
            manifests older than the choice.
    """

    name: str
    backbone: str
    landmarks: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    task: Literal["landmarks", "detection"] = "landmarks"
    sample: tuple[int, int] | None = None
    preprocess: Preprocess = Preprocess()
    decode: PointUnit = "fraction"
    heatmaps: Decode | None = None
    crop: Crop = Crop()
    output_slice: tuple[int, int] | None = None
    io: Io = "tensor"
    chosen: ChosenOutputs | None = None

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the network's input, pixels; `sample` if the size is free."""
        height, width = self.sample or self.inputs[0].shape[2:]
        return int(height), int(width)

    @property
    def batch(self) -> int | None:
        """Fixed batch size of the graph; None if the batch is free."""
        size = self.inputs[0].shape[0]
        return size if isinstance(size, int) else None


def landmark_spec(
    name: str,
    backbone: str,
    *,
    size: tuple[int, int],
    landmarks: int,
    heatmaps: Decode | None = None,
    axes: Axes = "xy",
    **settings: Any,
) -> ModelSpec:
    """Returns the spec of a landmark network: `input` (N, 3, *size) float32 to `landmarks` (N, landmarks, 2 or 3)."""
    maps = TensorSpec(name="heatmaps", dtype="float32", shape=("N", landmarks, "h", "w"), layout="NLHW")
    if heatmaps and heatmaps.method == "simcc":
        maps = replace(maps, shape=("N", landmarks, "w"), layout="NLW")
    return ModelSpec(
        name=name,
        backbone=backbone,
        landmarks=landmarks,
        inputs=(TensorSpec(name="input", dtype="float32", shape=("N", 3, *size), layout="NCHW"),),
        outputs=(
            TensorSpec(name="landmarks", dtype="float32", shape=("N", landmarks, len(axes)), layout="NLC"),
            *([maps] if heatmaps else []),
        ),
        heatmaps=heatmaps,
        **settings,
    )


def with_any_size(spec: ModelSpec) -> ModelSpec:
    """Returns the spec of a network that takes images of any size; the size of the spec becomes `sample`."""
    (image,) = spec.inputs
    return replace(spec, inputs=(replace(image, shape=(*image.shape[:2], "H", "W")),), sample=spec.input_size)


SAMPLE = (240, 320)
"""`ModelSpec.sample` of the built-in detectors: the size of the ultra-light detectors, so that times are comparable."""


def detection_spec(
    name: str,
    *,
    outputs: Mapping[str, tuple[int | str, ...]],
    size: tuple[int, int] | None = None,
    **settings: Any,
) -> ModelSpec:
    """Returns the spec of a detector: `input` (N, 3, *size) float32.

    Args:
        name: Name of the backbone.
        outputs: Shapes of `scores`, `boxes` and perhaps `points`, in the order of the network's outputs; all float32.
        size: (height, width) of the input, pixels; None for any size.
        settings: Further fields of `ModelSpec`.
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
        spec: Spec of the network with its usual number of landmarks.
        build: Function from the number of landmarks to a module in PyTorch's initial state. Its forward takes
            (N, 3, H, W) float32 and returns (N, 2 * landmarks) float32, or maps (N, landmarks, h, w) if the spec has
            `heatmaps`, or a tuple that starts with this tensor. A detector returns a tuple in the order of the spec's
            outputs. None for a network that was published as an ONNX file with architecture and weights.
        summary: One line for `lmconv models`.
    """

    spec: ModelSpec
    build: Callable[[int], torch.nn.Module] | None
    summary: str

    def module(self, landmarks: int) -> torch.nn.Module:
        """Builds the network in PyTorch's initial state. A network published as an ONNX file cannot be built."""
        assert self.build, f"{self.spec.name} is published as an ONNX file"
        return self.build(landmarks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A network with its weights; every artefact of the network is compared with its source.

    Attributes:
        spec: Spec of the network.
        path: Checkpoint or ONNX file; None for random weights.
        sha256: sha256 of the file; for random weights, sha256 of their description.
        seed: Seed of random weights.
        key: Dotted name in the checkpoint below which the state lies; empty to search the whole checkpoint.
        factory: `FILE.py:NAME`, the builder of a user's own network; empty for other networks.
        constants: Values of further arguments of the own network's forward(), or of further inputs of an ONNX file, by
            name: numbers, texts, lists, None.
        kind: Library that runs the network.
        options: User options about the outputs of a user's own network; the choice is made when the network is opened.
            None if the spec is complete.
    """

    spec: ModelSpec
    path: Path | None
    sha256: str
    seed: int | None = None
    key: str = ""
    factory: str = ""
    constants: Json = field(default_factory=dict)
    kind: Literal["torch", "onnx"] = "torch"
    options: OutputOptions | None = None

    @property
    def label(self) -> str:
        """Origin of the weights, in words."""
        return str(self.path) if self.path else f"random weights, seed {self.seed}"


class Session(Protocol):
    """A loaded artefact, ready to run; a context manager that frees memory and device at the end."""

    @property
    def execution_mismatch(self) -> str:
        """Difference between the artefact's `execution` and this machine's computation; empty without a difference."""
        ...

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Computes the outputs, by name. Shapes and dtypes are as in the spec."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Streams(Protocol):
    """A loaded artefact that computes several runs at the same time; a context manager as `Session` is."""

    def run(self, inputs: Arrays, runs: int) -> list[float]:
        """Computes the same inputs `runs` times; returns the end of each run, `perf_counter` seconds, ascending."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Probe(Protocol):
    """A graph on a runtime whose intermediate values can be read.

    Attributes:
        names: Names of the values that the runtime can show.
    """

    names: frozenset[str]

    def run(self, inputs: Arrays, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Computes the named values, by name."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """Means of a target to look inside an artefact.

    Attributes:
        open: Opens a model file, or an ONNX file, with the `execution` of an artefact.
        imports: Python modules that `call` needs.
        call: Python expression that runs `model` (path of an ONNX file) on `inputs` and returns a list of outputs.
    """

    open: Callable[[Path, Json], Probe]
    imports: str
    call: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantScheme:
    """Form of the int8 graph for a target.

    Attributes:
        activations: `"uint8"` (asymmetric) or `"int8"` (symmetric, zero point 0).
        bracket: True if every output of a layer is quantised before another node reads the output. ONNX Runtime has an
            integer kernel for the layer only in this form; OpenVINO and TensorRT prefer to fuse the following nodes.
        reason: Reason for the form, one sentence; written to the recipe.
        weights: `"int8"`, read by a DQ node, or the same values as `"float32"`, read by a Q/DQ pair.
        fuse_sums: True if a layer whose only reader is a sum keeps a float output, because one kernel computes both.
        balance: Share of a channel's range that equalisation moves into the weights of a dense reader, 0 to 1.
        float_stem: Number of first layers that stay float, at most a quarter of all layers.
        deconvolutions: True if the target has an integer kernel for a dense ConvTranspose of values that are never
            negative.
    """

    activations: Literal["uint8", "int8"]
    bracket: bool
    reason: str
    weights: Literal["int8", "float32"] = "int8"
    fuse_sums: bool = False
    balance: float = 0.5
    float_stem: int = 0
    deconvolutions: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPrecision:
    """Content of precision "mixed": chosen by `lmconv tune`, built by `--precision mixed`.

    Attributes:
        precision: fp32, fp16, bf16, or int8 with some float layers.
        floats: Precision of the float layers, fp32 or bf16; a hint to the runtime.
        rewrites: Passes before the passes of the precision, in order.
        settings: Options of the quantiser that differ from the target's options: fields of
            `lmconv.quantise.plan.QuantiserOptions`, sets as sorted lists.
        decisions: Decisions that passes otherwise take by measuring, by the name of the pass.
    """

    precision: Precision
    floats: Precision = Precision.FP32
    rewrites: tuple[str, ...] = ()
    settings: Json = field(default_factory=dict)
    decisions: Json = field(default_factory=dict)

    @classmethod
    def of(cls, document: Json) -> MixedPrecision:
        """Returns the content that a manifest records under `mix`."""
        return cls(
            precision=Precision(document["precision"]),
            floats=Precision(document["floats"]),
            rewrites=tuple(document["rewrites"]),
            settings=document["settings"],
            decisions=document["decisions"],
        )


CHANNELS = (1, 4, 8, 16, 32, 64)
"""Numbers of channels per instruction of a CPU: float32 in scalar, SSE, AVX2 and AVX512; bf16 and int8 in AMX tiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassContext:
    """Inputs of a pass besides the graph.

    Attributes:
        spec: Spec of the network.
        crops: (n, 3, H, W) float32 network inputs for calibration; None without faces.
        scheme: Form of the int8 graph for the target.
        measure: Times graphs on the target in the precision of the variant, one thread, to find the fastest; returns
            (rounds, timed) float64, milliseconds, for each graph, see `lmconv.inference.latency.halved`. None if the
            target cannot run.
        compact_px: Largest distance that compaction may move a landmark on a face, input pixels; None for exact
            compaction.
        replay: Decisions that an earlier run of this pass took by measuring, to be repeated.
        settings: Options of the quantiser, see `MixedPrecision`.
        channels: Multiples of channels, see `Target`.
        memo: Results that a pass keeps for the other variants of the network; the key starts with the pass's name.
    """

    spec: ModelSpec
    crops: Float32 | None = None
    scheme: QuantScheme | None = None
    measure: Callable[[Sequence[onnx.ModelProto]], list[Float64]] | None = None
    compact_px: float | None = None
    replay: Json | None = None
    settings: Json = field(default_factory=dict)
    channels: tuple[int, ...] = CHANNELS
    memo: dict[tuple[object, ...], Any] = field(default_factory=dict)


FLOAT16_ROUNDING = 1e-3
"""Tolerance of the passes of `Target.last`. Other operators of a float16 graph move the roundings of ONNX Runtime."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """A rewrite of the ONNX graph: the plug-in of `passes/<one>.py`.

    Attributes:
        name: Name of the pass.
        summary: One line for the documentation.
        apply: Returns a new model (the argument may be changed) and the decisions for the recipe; figures that differ
            from run to run are under the key `measured`, and lines for the user under `warnings`.
        tolerance: Largest allowed mean absolute difference of the landmarks, fractions of the input, on noise and on
            real crops; of the heatmaps, fractions of their range, for a network with heatmaps; of the raw outputs, mean
            of the differences as fractions of the range of each, for a detector.
        required: True if the artefact is impossible without the pass; any other refused pass is left out.
        calibrated: True if the pass needs real crops. The pass is then judged on crops only: noise is outside the
            calibrated range.
        uses: Fields of PassContext on which the result depends, besides the spec.
        in_float: True if the graphs that the pass times stay in float for int8 too, bf16 where the CPU can: for a
            decision in which the number of nodes matters more than their precision.
        opset: Opset of the result; None for the opset of the input. Only a pass of `Target.last` may change the opset.
    """

    name: str
    summary: str
    apply: Callable[[onnx.ModelProto, PassContext], tuple[onnx.ModelProto, Json]]
    tolerance: float
    required: bool = False
    calibrated: bool = False
    uses: tuple[str, ...] = ()
    in_float: bool = False
    opset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A folder with a deployable model, its manifest.json and reference.npz.

    Attributes:
        path: The folder.
        digest: sha256 of the manifest without `measured`.
        spec: Spec of the artefact.
        target: Name of the target.
        precision: Precision of the artefact.
        files: sha256 of every other file, by name.
        execution: Settings of the runtime, the same for every command.
        parents: Checkpoint (`source`) and plain graph (`plain`): file name and sha256.
        recipe: Every decision of the build.
        versions: Versions of the tools.
        machine: Machine to which an engine is tied; None for other artefacts.
        parameters: Number of weights.
        flops: Floating-point operations of one input.
        measured: Measurements and their time; outside the digest.
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
        name: Name of the target.
        summary: One line for `lmconv doctor`.
        suffixes: File name endings of the model files.
        precisions: Possible precisions.
        quantisation: Form of the int8 graph.
        requires: Returns an instruction to install missing packages ("pip install …"), or None if the target can run.
        build: Writes the model files for a graph to a folder.
        open: Loads an artefact on a device with a number of threads.
        open_streams: Loads an artefact for a number of runs at the same time. None if each stream is a thread with a
            session of `open`.
        check_loadable: Refuses an artefact that cannot or must not be loaded here, before the runtime is used.
        engines: True if the target builds engines, for which `BuildOptions` are.
        fixed_size: True if an artefact needs one size of picture.
        fp32_tolerance: Largest difference of a coordinate in fp32, fractions of the input.
        int8_ion_loss: Largest rise of the mean ION in int8 and mixed, points; None for `limits.ION_LOSS`.
        clock: Returns nanoseconds, for timing graphs in a search. The default counts the work of this process only,
            whatever else the machine does; the work of a GPU needs a wall clock.
        floats: Returns the precision in which this machine computes the float layers of a graph with a precision hint:
            fp32 or bf16.
        contestant: Returns the Python module and the arguments of the process that serves an artefact for timing on a
            GPU; called with the artefact and the device, "gpu" or "cpu". None if the target does not run on a GPU.
        ios: Possible inputs of artefacts.
        rewrites: Passes that make graphs faster on the target, by precision, in order; measured in docs/passes.md.
        on_arm: Form of the int8 graph for ARM CPUs, if different.
        last: Returns the passes that the installed runtime needs for a graph, after all others and after wrapping.
        channels: Multiples of channels that compaction tries, ascending; the first one if nothing can be timed.
        inside: Means to read intermediate values of an artefact; None if the runtime cannot show any.
        exact: Passes that rewrite operators which the runtime computes inexactly, by operator; measured in
            docs/blame.md. A pass runs where its operator makes an artefact fail, and with `--exact`.
    """

    name: str
    summary: str
    suffixes: tuple[str, ...]
    precisions: tuple[Precision, ...]
    quantisation: QuantScheme
    requires: Callable[[], str | None]
    build: Callable[[onnx.ModelProto, Path, ModelSpec, Precision, BuildOptions], Built]
    open: Callable[[Artifact, OpenOptions], Session]
    open_streams: Callable[[Artifact, OpenOptions, int], Streams] | None = None
    check_loadable: Callable[[Artifact, OpenOptions], None] = lambda artifact, options: None
    engines: bool = False
    fixed_size: bool = False
    fp32_tolerance: float = 1e-5
    int8_ion_loss: float | None = None
    clock: Callable[[], int] = time.process_time_ns
    floats: Callable[[Precision], Precision] = lambda hint: Precision.FP32
    contestant: Callable[[Artifact, str], tuple[str, Sequence[str | Path]]] | None = None
    ios: tuple[Io, ...] = ("tensor", "image", "frame")
    rewrites: Mapping[Precision, tuple[str, ...]] = field(default_factory=dict)
    on_arm: QuantScheme | None = None
    last: Callable[[onnx.ModelProto], tuple[str, ...]] = lambda model: ()
    channels: tuple[int, ...] = CHANNELS
    inside: Inside | None = None
    exact: Mapping[str, str] = field(default_factory=dict)

    def scheme(self, cpu: Cpu) -> QuantScheme:
        """Returns the form of the int8 graph for a kind of CPU."""
        return self.on_arm if cpu == "arm" and self.on_arm else self.quantisation


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """Options for building an engine; only TensorRT uses them.

    Attributes:
        profile: Smallest, optimal and largest batch of a network with a free batch.
        workspace: Bytes of device memory for the builder.
        builder_level: Optimisation level of the builder, 0 to 5.
        cache: File of the timing cache, or folder with one timing cache per version and GPU; None for no cache.
        locked: True to refuse a build that would change the timing cache.
        version_compatible: True if newer versions of TensorRT may run the engine.
        hardware_compatible: True if other GPUs, from compute capability 8.0 on, may run the engine.
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
    """Result of `Target.build`: settings of the runtime, machine to which an engine is tied, entries of the recipe."""

    execution: Json
    machine: Json | None = None
    recipe: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOptions:
    """Options for opening a session.

    Attributes:
        device: Device of the session.
        threads: Number of intra-op threads; 0 for the default of the runtime.
        trust: True to load an engine that this user has not built.
    """

    device: Literal["cpu", "gpu"] = "cpu"
    threads: int = 0
    trust: bool = False
