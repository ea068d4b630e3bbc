"""An ONNX file as the source network: its spec, its digest, and its unchanged computation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from numpy.typing import NDArray

from lmconv.errors import InputError, first_line
from lmconv.graph.facts import flops, parameters
from lmconv.inference.session import noise
from lmconv.networks.candidates import SEEDED, Candidates, joined, of_runs
from lmconv.networks.heads import head_of
from lmconv.sources.choice import choose
from lmconv.store.files import digest, sha256
from lmconv.types import ONNX, Arrays, ModelSpec, OutputOptions, Preprocess, Source, landmark_spec

if TYPE_CHECKING:
    import onnx

FLOAT = 1
"""float32 in ONNX's TensorProto.DataType."""


class OnnxSource:
    """A `Session` on the user's ONNX file, unchanged, in ONNX Runtime fp32.

    Attributes:
        source: The source.
    """

    execution_mismatch = ""

    def __init__(self, source: Source, *, threads: int = 0) -> None:
        from lmconv.inference.ort import OrtSession

        self.source = source
        path = _path(source)
        model = load_onnx(path)
        self._input = graph_inputs(model)[0].name
        self._free = not isinstance(_shape(graph_inputs(model)[0])[0], int)
        self._label = str(path)
        self._head = head_of(source.spec)
        if self._head.published_outputs:
            _check_published(model, source)
        try:
            self._session = OrtSession(path, threads=threads)
        except Exception as error:  # ONNX Runtime raises types of its compiled module
            raise InputError(f"ONNX Runtime cannot load {path}: {first_line(error)}") from error

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See `lmconv.types.Session`; a file with batch size 1 runs once per input."""
        images = inputs["input"]
        whole = self._session.run({self._input: images}) if self._free else {}
        if whole and all(len(whole[name]) == len(images) for name in self._used(whole)):
            return self._head.from_file(whole)
        parts = self._alone(images)
        return self._head.from_file({name: joined([part[name] for part in parts]) for name in self._used(parts[0])})

    def candidates(self) -> Candidates:
        """Returns all outputs of the file, with their values for seeded inputs."""
        return of_runs(self._label, self._alone(noise(self.source.spec, SEEDED, 0)))

    def _alone(self, images: NDArray[Any]) -> list[dict[str, Any]]:
        """Returns the outputs of the file for each input alone."""
        return [self._session.run({self._input: image[None]}) for image in images]

    def _used(self, outputs: Mapping[str, Any]) -> list[str]:
        """Returns the names of the outputs that the head reads."""
        if self._head.published_outputs:
            return list(outputs)
        chosen = self.source.spec.chosen
        return list(chosen.names) if chosen else list(outputs)[:1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.__exit__(kind, error, trace)


def _check_published(model: onnx.ModelProto, source: Source) -> None:
    """Checks that a file has the inputs and outputs of its backbone's spec.

    Raises:
        InputError: An input or output differs.
    """
    spec, inputs = source.spec, graph_inputs(model)
    actual = [_shape(inputs[0])[1:], *(_shape(value)[1:] for value in model.graph.output)]
    expected = [list(tensor.shape[1:]) for tensor in (*spec.inputs, *spec.outputs)]
    names = [value.name for value in model.graph.output]
    if len(inputs) > 1 or actual != expected or names != [tensor.name for tensor in spec.outputs]:
        summary = f"{_describe(inputs)} and gives {_describe(list(model.graph.output))}"
        raise InputError(f"{source.label} takes {summary}", hint=f"this is not {spec.name}; see `lmconv weights list`")


def load_source(source: Source) -> onnx.ModelProto:
    """Reads and checks the file of a source.

    Raises:
        InputError: The file is missing or not an ONNX model.
    """
    return load_onnx(_path(source))


def load_onnx(path: Path) -> onnx.ModelProto:
    """Reads and checks an ONNX file.

    Raises:
        InputError: The file is missing or not an ONNX model.
    """
    import onnx

    try:
        model = onnx.load(path)
        _declare_outputs(model)
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist", hint="name an .onnx file or a model of `lmconv models`") from error
    except Exception as error:  # protobuf and the checker raise their own types
        raise InputError(f"{path} is not a valid ONNX model: {first_line(error)}", hint="export it again") from error
    return model


def _declare_outputs(model: onnx.ModelProto) -> None:
    """Declares the shape of every output without one, which the checker requires: as inferred, or one unknown size."""
    from onnx import shape_inference

    missing = [value for value in model.graph.output if not value.type.tensor_type.HasField("shape")]
    if not missing:
        return
    inferred = {value.name: value for value in shape_inference.infer_shapes(model).graph.output}
    for value in missing:
        value.CopyFrom(inferred[value.name])
        if not value.type.tensor_type.HasField("shape"):
            value.type.tensor_type.shape.dim.add().dim_param = "?"


def file_digest(path: Path) -> str:
    """Returns the hex sha256 of an ONNX file, and of its external weight files together with the file, if any."""
    beside = [[name, sha256(path.parent / name)] for name in _external(path)]
    return digest([sha256(path), *beside]) if beside else sha256(path)


def _external(path: Path) -> list[str]:
    """Returns the names of a file's external weight files, as the file names them; empty if a file cannot be read."""
    import onnx

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception:  # protobuf raises its own types; opening the file reports the error
        return []
    stored = (tensor for tensor in _tensors(graph) if tensor.data_location == onnx.TensorProto.EXTERNAL)
    names = {entry.value for tensor in stored for entry in tensor.external_data if entry.key == "location"}
    return sorted(names) if all((path.parent / name).is_file() for name in names) else []


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yields every constant of a graph and its subgraphs."""
    from lmconv.graph.naming import graphs

    for part in graphs(graph):
        yield from part.initializer
        for sparse in part.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for item in (item for node in part.node for item in node.attribute):
            yield from (item.t, *item.tensors)


def counts(path: Path) -> tuple[int, int]:
    """Returns the numbers of parameters and FLOPs of an ONNX file."""
    model = load_onnx(path)
    inputs = graph_inputs(model)
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return parameters(model), flops(model)


def _path(source: Source) -> Path:
    if source.path is None:
        raise InputError(f"{source.spec.name} comes from an ONNX file, and none is named", hint="name the file")
    return source.path


def onnx_spec(path: Path, options: OutputOptions, preprocess: Preprocess) -> ModelSpec:
    """Reads the spec of an ONNX file with one (N, 3, H, W) input, and chooses its outputs by running the file.

    Args:
        path: The file.
        options: User options about the outputs.
        preprocess: Rule from a crop to the input, for the seeded inputs.

    Raises:
        InputError: The file has another input, or no output that can hold landmarks.
        UsageError: The user must name an output, or an option fits no output.
    """
    model = load_onnx(path)
    inputs = graph_inputs(model)
    shape = _shape(inputs[0]) if len(inputs) == 1 else []
    kinds = [value.type.tensor_type.elem_type for value in inputs]
    known = len(shape) == 4 and shape[1] == 3 and all(isinstance(side, int) for side in shape[2:])
    if not known or shape[0] not in (1, *(side for side in shape if isinstance(side, str))) or kinds != [FLOAT]:
        expected = "one float32 (N, 3, H, W), N free or 1"
        raise InputError(f"{path} has inputs {_describe(inputs)}, not {expected}", hint="export it so")
    height, width = (int(side) for side in shape[2:])
    spec = landmark_spec(path.stem, ONNX, size=(height, width), landmarks=0, preprocess=preprocess)
    with OnnxSource(Source(spec=spec, path=path, sha256="", kind="onnx")) as session:
        return choose(session.candidates(), options, spec)


def graph_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Returns the inputs of a graph without initializers, which older files list as inputs."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in initializers]


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims]


def _describe(values: list[onnx.ValueInfoProto]) -> str:
    from onnx import TensorProto

    kinds = [TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower() for value in values]
    return ", ".join(f"{value.name} {kind} {_shape(value)}" for value, kind in zip(values, kinds, strict=True))
