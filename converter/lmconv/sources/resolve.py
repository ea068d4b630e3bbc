"""Finds and opens the network that a user names, or the source network of an artefact."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict, Unpack

from lmconv import machine
from lmconv.errors import InputError, UsageError
from lmconv.networks.heads import head_of
from lmconv.plugins import BACKBONES, unknown
from lmconv.sources import checkpoint_file, checkpoints, usercode
from lmconv.store.files import sha256
from lmconv.types import (
    ONNX,
    Artifact,
    Axes,
    Decode,
    Json,
    ModelSpec,
    OutputOptions,
    PointUnit,
    Preprocess,
    Source,
    landmark_spec,
)

if TYPE_CHECKING:
    from lmconv.sources.onnx_files.source import OnnxSource
    from lmconv.sources.pytorch import TorchSource

Opened: TypeAlias = "TorchSource | OnnxSource"

NAME = re.compile(r"[^\x00-\x20/\\.][^\x00-\x1f/\\]*")
LONGEST = 100
"""Largest number of bytes in a model's name, which is the name of a folder."""


def name_of(model: str, name: str | None = None) -> str:
    """Returns the name of a model and its folder: `name`, or the name of the backbone or file.

    Raises:
        UsageError: The name cannot be the name of a folder.
    """
    if name is None:
        place, _, function = model.rpartition(":")
        factory = f"{Path(place).stem if place.endswith('.py') else place}-{function}"
        name = Path(model).stem if is_onnx(model) else factory if usercode.is_factory(model) else model
    if not NAME.fullmatch(name) or len(name.encode()) > LONGEST:
        raise UsageError(
            f"{name!r} cannot be the name of a folder",
            hint="name it with --name: at most 100 bytes, no / and no \\",
        )
    return name


def is_onnx(model: str) -> bool:
    """True if a model is named by its ONNX file."""
    return model.lower().endswith(".onnx")


class NetworkOptions(TypedDict, total=False):
    """Options of `resolve`; every option may be missing or None.

    Attributes:
        weights: The checkpoint, or a folder that is searched first.
        key: Dotted name in the checkpoint below which the state lies, if the state is not found by itself.
        seed: Seed for random weights if no checkpoint is found.
        landmarks: Number of points; by default the number of the backbone or ONNX file.
        size: (height, width) of the input, pixels, for a user's own network, an ONNX file or a network for pictures of
            any size.
        preprocess: Pre-processing instead of the backbone's.
        decode: Decoding of heatmaps, for networks with heatmaps.
        output: Name or index of the output that holds the points, for an ONNX file or a user's own network.
        unit: Unit of the points, for the same.
        coordinates: Coordinates to keep of points with three coordinates, for the same.
        output_slice: Half-open range of the flat output that holds the points, or of its maps, for the same.
        constants: For a user's own network, values of further arguments of forward(), by name.
        name: Name of the model instead of its own name.
    """

    weights: Path | None
    key: str | None
    seed: int | None
    landmarks: int | None
    size: tuple[int, int] | None
    preprocess: Preprocess | None
    decode: Decode | None
    output: str | None
    unit: PointUnit | None
    coordinates: Axes | None
    output_slice: tuple[int, int] | None
    constants: Json | None
    name: str | None


def resolve(model: str, **options: Unpack[NetworkOptions]) -> Source:
    """Finds the network that a user names: a backbone with its checkpoint, an ONNX file, or the user's own network.

    Args:
        model: Name of a backbone, path of a `.onnx` file, or `FILE.py:NAME`, the builder of a `torch.nn.Module`.
        options: See `NetworkOptions`.

    Raises:
        UsageError: The backbone is unknown, or an option is missing or does not fit the kind of source.
        InputError: The checkpoint or file is missing or broken.
    """
    check_options(model, **options)
    weights, seed, size = options.get("weights"), options.get("seed"), options.get("size")
    landmarks, decode = options.get("landmarks"), options.get("decode")
    outputs = output_options(options)
    path: Path | None
    factory = ""
    if is_onnx(model):
        path = Path(model)
        spec = _onnx(path, outputs, options)
    elif usercode.is_factory(model):
        factory, typed = model, Path(model)
        spec = landmark_spec(typed.name, typed.name, size=size or (0, 0), landmarks=landmarks or 0, heatmaps=decode)
        path = weights and _existing(weights)
    else:
        spec, path = _backbone(model, landmarks, decode, size), _checkpoint(model, weights, seed)
    name, preprocess = name_of(model, options.get("name")), options.get("preprocess") or spec.preprocess
    spec = replace(spec, name=name, preprocess=preprocess)
    digest = _digest(path) if path else _description(spec, seed)
    if _kind(model) == "onnx":
        _check_published(model, path, digest)
    return Source(
        spec=spec,
        path=path,
        sha256=digest,
        seed=None if path else seed,
        key=options.get("key") or "",
        factory=factory,
        constants=options.get("constants") or {},
        kind=_kind(spec.backbone),
        options=outputs if factory else None,
    )


def output_options(options: NetworkOptions) -> OutputOptions:
    """Returns the options about the outputs."""
    return OutputOptions(
        output=options.get("output"),
        landmarks=options.get("landmarks"),
        decode=options.get("decode"),
        output_slice=options.get("output_slice"),
        unit=options.get("unit"),
        coordinates=options.get("coordinates"),
    )


def check_options(model: str, **options: Unpack[NetworkOptions]) -> None:
    """Refuses options that do not fit the kind of model, before any work.

    Raises:
        UsageError: The model is unknown, or an option is missing or does not fit.
    """
    known = BACKBONES.names()
    if not usercode.is_factory(model) and not is_onnx(model) and model not in known:
        if model.endswith((".py", ".py:")):
            place = model.removesuffix(":")
            raise UsageError(f"{place} is a file", hint=f"name what builds the network in it: {place}:build")
        if Path(model).is_file():
            hint = f"if it is a checkpoint, name its network: lmconv export FILE.py:NAME --weights {model}"
            raise UsageError(f"{model} is a file, not the name of a network", hint=hint)
        raise unknown("model", model, known)
    for wrong, message, hint in _mistakes(model, options):
        if wrong:
            raise UsageError(message, hint=hint)


def _mistakes(model: str, options: NetworkOptions) -> Iterator[tuple[object, str, str]]:
    """Yields the possible mistakes of a known model: a condition, the message and the hint."""
    own, file = usercode.is_factory(model), is_onnx(model)
    weights, seed, size = options.get("weights"), options.get("seed"), options.get("size")
    landmarks, decode = options.get("landmarks"), options.get("decode")
    is_file = bool(weights and not weights.is_dir())
    spec = spec_of(model) if landmarks or size or decode else None
    head = head_of(spec) if spec else None
    yield file and is_file, f"{model} holds its own weights", "leave --weights out"
    yield file and seed is not None, f"{model} holds its own weights", "leave --random-weights out"
    yield file and options.get("key"), f"{model} holds its own weights", "leave --key out"
    message = f"--constant is for ONNX files and networks of your own, and {model} is none"
    yield options.get("constants") and not own and not file, message, "leave it out"
    for name in ("output", "unit", "coordinates", "output_slice"):
        option = name.replace("_", "-")
        message = f"--{option} is for ONNX files and networks of your own, and the outputs of {model} are known"
        yield options.get(name) is not None and not file and not own, message, "leave it out"
    message = f"--input is for a network of your own, and {model} has its size"
    yield size and not own and not file and not (spec and spec.sample), message, "leave it out"
    yield landmarks and head and not head.counts_landmarks, f"{model} is a detector", "leave --landmarks out"
    yield own and not size, f"{model} needs --input", "such as --input 3x112x112"
    yield own and not landmarks, f"{model} needs --landmarks", "such as --landmarks 68"
    without = own and not weights and seed is None
    yield without, f"{model} needs --weights FILE", "its state_dict(); `lmconv export` also takes --random-weights"
    yield own and weights and not is_file, f"{weights} is a folder", f"name the checkpoint of {model} itself"
    contradiction = "--weights and --random-weights contradict each other"
    yield is_file and seed is not None, contradiction, "leave one out"
    yield decode and head and not head.decodes, f"{model} gives points, not heatmaps", "leave --decode out"


def _onnx(path: Path, outputs: OutputOptions, options: NetworkOptions) -> ModelSpec:
    from lmconv.sources.onnx_files.source import onnx_spec

    return onnx_spec(
        path,
        outputs,
        size=options.get("size"),
        preprocess=options.get("preprocess"),
        constants=options.get("constants") or {},
    )


def names(task: Literal["landmarks", "detection"]) -> list[str]:
    """Returns the names of the backbones for a task."""
    return [name for name, backbone in BACKBONES.load_all().items() if backbone.spec.task == task]


def spec_of(model: str, size: tuple[int, int] | None = None) -> ModelSpec | None:
    """Returns the spec of a backbone; None for a file or a user's network.

    Args:
        model: Name of a backbone, a file, or `FILE.py:NAME`.
        size: (height, width) of the input, pixels, for a network for pictures of any size.
    """
    return _backbone(model, None, None, size) if model in BACKBONES.names() else None


def _backbone(model: str, landmarks: int | None, decode: Decode | None, size: tuple[int, int] | None) -> ModelSpec:
    return head_of(BACKBONES.load(model).spec).configured(landmarks=landmarks, decode=decode, size=size)


def _checkpoint(model: str, weights: Path | None, seed: int | None) -> Path | None:
    path = weights if weights and not weights.is_dir() else checkpoints.find(model, weights)
    if path is None and (seed is None or _kind(model) == "onnx"):
        where = weights or "LMCONV_WEIGHTS, weights/ or the user cache"
        hint = f"give --weights FILE, or put {checkpoints.file_names(model)[0]} there"
        raise InputError(f"no checkpoint of {model} in {where}", hint=hint)
    return path and _existing(path)


def _check_published(model: str, path: Path | None, digest: str) -> None:
    """Refuses a file that differs from the published file of a network without PyTorch code.

    Raises:
        InputError: The sha256 differs.
    """
    known = checkpoints.known().get(model)
    if known and known.sha256 and digest not in known.sha256:
        hint = f"what its outputs mean is not known; `lmconv weights list` says where {known.file} is from"
        raise InputError(f"{path} is not the published file of {model}: its sha256 differs", hint=hint)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path} does not exist", hint="name a checkpoint with --weights")
    return path


def _digest(path: Path) -> str:
    """Returns the hex sha256 of a file, or of all files of a sharded checkpoint; for ONNX, see `file_digest`."""
    if not is_onnx(path.name):
        shards = checkpoint_file.files(path)[1:]
        return hashlib.sha256("".join(map(sha256, [path, *shards])).encode()).hexdigest() if shards else sha256(path)
    from lmconv.sources.onnx_files.reading import file_digest

    return file_digest(path)


def _description(spec: ModelSpec, seed: int | None) -> str:
    """Returns the sha256 of a description of random weights, which are in no file."""
    height, width = spec.input_size
    text = (
        f"random weights of {spec.backbone}, {spec.landmarks} points, {height}x{width}, {spec.preprocess}, seed {seed}"
    )
    return hashlib.sha256(text.encode()).hexdigest()


def recover(artifact: Artifact, weights: Path | None = None, model: str | None = None) -> Source | None:
    """Finds the source network of an artefact by its sha256; None if the file or PyTorch is missing.

    Args:
        artifact: The artefact.
        weights: The checkpoint, or a folder that is searched first.
        model: `FILE.py:NAME` for a user's own network: code that only the manifest names never runs.
    """
    parent, spec = artifact.parents["source"], replace(artifact.spec, io="tensor")
    own = usercode.is_factory(spec.backbone)
    kind: Literal["torch", "onnx"] = "onnx" if is_onnx(parent["file"] or "") else "torch"
    if (own and model is None) or (kind == "torch" and not machine.has("torch")):
        return None
    factory, constants = model if own and model else "", parent.get("constants", {})
    if parent.get("seed") is not None:
        seed = parent["seed"]
        return Source(spec=spec, path=None, sha256=parent["sha256"], seed=seed, factory=factory, constants=constants)
    if weights and weights.is_file():
        path = weights if _digest(weights) == parent["sha256"] else None
    else:
        path = checkpoints.find_digest(parent["sha256"], parent["file"], extra=weights, digest_of=_digest)
    if path is None:
        return None
    key = parent.get("key", "")
    return Source(
        spec=spec, path=path, sha256=parent["sha256"], key=key, factory=factory, constants=constants, kind=kind
    )


def _kind(backbone: str) -> Literal["torch", "onnx"]:
    """Returns the library that runs the networks of a backbone."""
    if backbone == ONNX:
        return "onnx"
    known = backbone in BACKBONES.names()
    return "onnx" if known and BACKBONES.load(backbone).build is None else "torch"


def open_source(source: Source, *, threads: int = 0) -> Opened:
    """Opens a source network as a session with the inputs and outputs of its spec."""
    if source.kind == "onnx":
        from lmconv.sources.onnx_files.source import OnnxSource

        return OnnxSource(source, threads=threads)
    from lmconv.sources.pytorch import TorchSource

    return TorchSource(source, threads=threads)
