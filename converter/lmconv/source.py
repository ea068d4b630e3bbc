"""The network an artefact comes from: a checkpoint of a backbone, or an ONNX file. What everything is compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from lmconv import checkpoints, machine, plugins
from lmconv.errors import InputError, UsageError, first_line
from lmconv.files import sha256
from lmconv.types import Arrays, Artifact, Backbone, ModelSpec, Preprocess, Session, landmark_spec

if TYPE_CHECKING:
    import onnx
    import torch

FLOAT = 1
"""float32 in ONNX's TensorProto.DataType."""
ONNX = "onnx"
"""The `backbone` of a spec whose source is an ONNX file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A network with its weights: what it is, the file it comes from, that file's sha256."""

    spec: ModelSpec
    path: Path
    sha256: str

    @property
    def kind(self) -> str:
        """What compares with it: "torch" or "onnx"."""
        return "onnx" if self.spec.backbone == ONNX else "torch"


def resolve(
    model: str,
    *,
    weights: Path | None = None,
    preprocess: Preprocess | None = None,
    output_slice: tuple[int, int] | None = None,
) -> Source:
    """Finds the network that a user names: a backbone with its checkpoint, or an ONNX file.

    Args:
        model: Name of a backbone, or the path of a `.onnx` file.
        weights: The checkpoint, or a folder to look in first.
        preprocess: Overrides the backbone's constants.
        output_slice: For an ONNX file: the half-open range of its flat output that holds the points.

    Raises:
        UsageError: There is no such backbone, or an option that is for the other kind of source.
        InputError: The checkpoint or file is missing or broken.
    """
    is_file = model.lower().endswith(".onnx")
    if is_file and weights and not weights.is_dir():
        raise UsageError(f"{model} holds its own weights", hint="leave --weights out")
    if not is_file and output_slice:
        raise UsageError(f"--output-slice is for ONNX files, and {model} is none", hint="leave it out")
    if is_file:
        spec, path = _onnx_spec(Path(model), output_slice), Path(model)
    else:
        backbone: Backbone = plugins.load("backbones", model)
        spec, path = backbone.spec, _checkpoint(model, weights)
    spec = replace(spec, preprocess=preprocess) if preprocess else spec
    return Source(spec=spec, path=path, sha256=sha256(path))


def _checkpoint(model: str, weights: Path | None) -> Path:
    found = weights if weights and not weights.is_dir() else checkpoints.find(model, weights)
    if found is None:
        where = weights or "LMCONV_WEIGHTS, weights/ and the user cache"
        hint = f"give --weights FILE, or put {checkpoints.file_names(model)[0]} there"
        raise InputError(f"no checkpoint of {model} in {where}", hint=hint)
    if not found.is_file():
        raise InputError(f"{found} does not exist", hint="name a checkpoint with --weights")
    return found


def recover(artifact: Artifact, weights: Path | None = None) -> Source | None:
    """The network an artefact was made from, found by its sha256; None where it, or PyTorch, is not here."""
    parent = artifact.parents["source"]
    if weights and weights.is_file():
        found = weights if sha256(weights) == parent["sha256"] else None
    else:
        found = checkpoints.find_digest(parent["sha256"], parent["file"], extra=weights)
    if found is None:
        return None
    source = Source(spec=artifact.spec, path=found, sha256=parent["sha256"])
    return source if source.kind == "onnx" or machine.has("torch") else None


def open_source(source: Source, *, threads: int = 0) -> Session:
    """Loads the network itself, ready to run as an artefact is: `input` to `landmarks`."""
    if source.kind == "onnx":
        return OnnxSource(source, threads=threads)
    return TorchSource(source, threads=threads)


def network(source: Source) -> torch.nn.Module:
    """The PyTorch network with its weights, in evaluation mode; forward gives (N, L, 2) float32.

    Raises:
        InputError: The checkpoint is broken, or of another network; the hint names it.
    """
    backbone: Backbone = plugins.load("backbones", source.spec.backbone)
    module = backbone.build(source.spec.landmarks)
    state = checkpoints.load(source.path)
    try:
        checkpoints.fill(module, state, source.path)
    except InputError as error:
        others = [name for name in identify(state) if name != source.spec.backbone]
        hint = f"these are the weights of {others[0]}" if others else error.hint
        raise InputError(error.message, hint=hint) from error
    return _points(module.eval())


def identify(state: checkpoints.State) -> list[str]:
    """Names of the backbones whose state dict has these names and shapes."""
    import torch

    shapes = {key: value.shape for key, value in state.items() if not key.endswith(checkpoints.COUNTER)}
    fitting = []
    for name, backbone in plugins.load_all("backbones").items():
        with torch.device("meta"):
            expected = backbone.build(backbone.spec.landmarks).state_dict()
        wanted = {key: value.shape for key, value in expected.items() if not key.endswith(checkpoints.COUNTER)}
        if wanted == shapes:
            fitting.append(name)
    return fitting


def _points(module: torch.nn.Module) -> torch.nn.Module:
    """Wraps a backbone: of several outputs the first, (N, 2L) as (N, L, 2)."""
    import torch

    class Points(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.net(x)
            flat: torch.Tensor = out[0] if isinstance(out, tuple) else out
            return flat.reshape(flat.shape[0], -1, 2)  # len() would fix the batch size

    return Points().eval()


class TorchSource:
    """A `Session` on the PyTorch network, eager, on the CPU."""

    caveat = ""

    def __init__(self, source: Source, *, threads: int = 0) -> None:
        self._network = network(source)
        self._threads = threads

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See `lmconv.types.Session`."""
        import torch

        if self._threads and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        with torch.inference_mode():
            return {"landmarks": self._network(torch.from_numpy(inputs["input"])).numpy()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._network


class OnnxSource:
    """A `Session` on the user's ONNX file, unchanged, in ONNX Runtime fp32."""

    caveat = ""

    def __init__(self, source: Source, *, threads: int = 0) -> None:
        from lmconv.runtime import OrtSession

        model = load_onnx(source.path)
        self._input = _inputs(model)[0].name
        self._free = not isinstance(_shape(_inputs(model)[0])[0], int)
        self._output = model.graph.output[0].name
        self._points = (source.spec.landmarks, source.spec.output_slice)
        try:
            self._session = OrtSession(source.path, threads=threads)
        except Exception as error:  # ONNX Runtime raises types of its own compiled module
            raise InputError(f"ONNX Runtime cannot load {source.path}: {first_line(error)}") from error

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See `lmconv.types.Session`; a file with batch size 1 is run once per input."""
        images = inputs["input"]
        batches = [images] if self._free else np.split(images, len(images))
        flat = np.concatenate([self._session.run({self._input: batch})[self._output] for batch in batches])
        count, part = self._points
        kept = flat.reshape(len(images), -1)[:, slice(*part) if part else slice(None)]
        return {"landmarks": kept.reshape(len(images), count, 2)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.__exit__(kind, error, trace)


def load_onnx(path: Path) -> onnx.ModelProto:
    """Reads and checks an ONNX file.

    Raises:
        InputError: It is missing or not an ONNX model.
    """
    import onnx

    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist", hint="name an .onnx file or a model of `lmconv models`") from error
    except Exception as error:  # protobuf and the checker raise types of their own
        raise InputError(f"{path} is not a valid ONNX model: {first_line(error)}", hint="export it again") from error
    return model


def _onnx_spec(path: Path, output_slice: tuple[int, int] | None) -> ModelSpec:
    """Reads a spec off an ONNX file with one (N, 3, H, W) input and points in its first output."""
    model = load_onnx(path)
    inputs = _inputs(model)
    shape = _shape(inputs[0]) if len(inputs) == 1 else []
    kinds = [value.type.tensor_type.elem_type for value in inputs]
    known = len(shape) == 4 and shape[1] == 3 and all(isinstance(side, int) for side in shape[2:])
    if not known or shape[0] not in (1, *(side for side in shape if isinstance(side, str))) or kinds != [FLOAT]:
        wanted = "one float32 (N, 3, H, W), N free or 1"
        raise InputError(f"{path} has inputs {_describe(inputs)}, not {wanted}", hint="export it so")
    outputs = _shape(model.graph.output[0])
    if not all(isinstance(side, int) for side in outputs[1:]):
        raise InputError(f"{path} has an output of unknown size {outputs}", hint="export it with fixed sizes")
    width = int(np.prod([int(side) for side in outputs[1:]]))
    start, stop = output_slice or (0, width)
    if not 0 <= start < stop <= width or (stop - start) % 2:
        hint = f"its output has {width} numbers: name the points' with --output-slice START:STOP, an even count"
        raise UsageError(f"numbers {start}:{stop} of {path} are not points", hint=hint)
    height, breadth = (int(side) for side in shape[2:])
    points = (stop - start) // 2
    return landmark_spec(path.stem, ONNX, size=(height, breadth), landmarks=points, output_slice=output_slice)


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    held = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in held]


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims]


def _describe(values: list[onnx.ValueInfoProto]) -> str:
    from onnx import TensorProto

    kinds = [TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower() for value in values]
    return ", ".join(f"{value.name} {kind} {_shape(value)}" for value, kind in zip(values, kinds, strict=True))
