"""Reads ONNX files: the model, weights in other files, and the digest of all files together."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from lmconv.errors import InputError, first_line
from lmconv.graph.constants import dense, tensors_of
from lmconv.graph.facts import flops, parameters
from lmconv.store.files import digest, sha256
from lmconv.types import Source

if TYPE_CHECKING:
    import onnx

LARGEST = 2**31 - 1
"""Largest size of a model with its weights, bytes: protobuf writes no larger message, and every pass writes one."""


def load_source(source: Source) -> onnx.ModelProto:
    """Reads the file of a source; see `load_onnx`."""
    return load_onnx(path_of(source))


def path_of(source: Source) -> Path:
    """Returns the path of a source.

    Raises:
        InputError: The source has no file.
    """
    if source.path is None:
        raise InputError(f"{source.spec.name} comes from an ONNX file, and none is named", hint="name the file")
    return source.path


def load_onnx(path: Path) -> onnx.ModelProto:
    """Reads an ONNX file and its external weights.

    A file that ONNX's checker refuses is accepted if ONNX Runtime can load the file.

    Returns:
        The model. The graph has a name, and every initializer a name of its own.

    Raises:
        InputError: The file is missing, is not an ONNX model, or is larger than `LARGEST`; or external weights are
            missing, or outside the folder of the file.
    """
    import onnx

    _require_size(path, path.stat().st_size if path.is_file() else 0)
    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist", hint="name an .onnx file or a model of `lmconv models`") from error
    except Exception as error:  # protobuf raises its own types
        raise InputError(f"{path} is not a valid ONNX model: {first_line(error)}", hint="export it again") from error
    stored = _external(model)
    _require_beside(path, _files(stored))
    _require_size(path, model.ByteSize() + sum(map(_bytes, stored)))
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # ONNX raises errors of several libraries
        hint = "copy the files of the model again"
        raise InputError(f"the external weights of {path} cannot be read: {first_line(error)}", hint=hint) from error
    _check(path, model)
    _densify(model.graph)
    _distinct(model.graph)
    model.graph.name = model.graph.name or path.stem
    return model


def _require_size(path: Path, size: int) -> None:
    """Refuses a model above `LARGEST`; `size` is in bytes."""
    if size > LARGEST:
        message = f"{path} has {size / 2**30:.1f} GiB with its weights, and lmconv converts models up to 2 GiB"
        raise InputError(message, hint="protobuf, in which ONNX stores models, writes no larger message")


def _require_beside(path: Path, names: Iterable[str]) -> None:
    """Refuses external weights that are missing or outside the folder of the model: a model could name any file."""
    for name in names:
        file = path.parent / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            hint = "put the weights beside the model, and name the file without a path"
            raise InputError(f"{path} has its weights in {name}, outside its folder", hint=hint)
        if not file.is_file():
            raise InputError(f"{path} has its weights in {name}, which does not exist", hint=f"put it at {file}")


def _check(path: Path, model: onnx.ModelProto) -> None:
    """Refuses a model that both ONNX's checker and ONNX Runtime refuse."""
    import onnx

    from lmconv.inference.ort import OrtSession, reason

    try:
        onnx.checker.check_model(model)
    except Exception:  # the checker raises errors of several libraries
        try:
            OrtSession(path)
        except Exception as error:  # ONNX Runtime raises types of its compiled module
            message = f"{path} is not a valid ONNX model: {reason(error)}"
            raise InputError(message, hint="export it again") from error


def _densify(graph: onnx.GraphProto) -> None:
    """Replaces sparse initializers by dense ones, which every tool reads."""
    from onnx import numpy_helper

    tensors = [numpy_helper.from_array(dense(sparse), sparse.values.name) for sparse in graph.sparse_initializer]
    graph.initializer.extend(tensors)
    del graph.sparse_initializer[:]


def _distinct(graph: onnx.GraphProto) -> None:
    """Removes initializers whose name a later initializer has: ONNX Runtime reads the last one."""
    last = {tensor.name: index for index, tensor in enumerate(graph.initializer)}
    if len(last) < len(graph.initializer):
        kept = [tensor for index, tensor in enumerate(graph.initializer) if last[tensor.name] == index]
        del graph.initializer[:]
        graph.initializer.extend(kept)


def file_digest(path: Path) -> str:
    """Returns the hex sha256 of an ONNX file, and of its external weight files together with the file, if any."""
    beside = [[name, sha256(path.parent / name)] for name in _readable(path)]
    return digest([sha256(path), *beside]) if beside else sha256(path)


def _readable(path: Path) -> list[str]:
    """Returns the names of a file's external weight files, as the file names them; empty if a file cannot be read."""
    import onnx

    try:
        names = _files(_external(onnx.load(path, load_external_data=False)))
    except Exception:  # protobuf raises its own types; opening the file reports the error
        return []
    return names if all((path.parent / name).is_file() for name in names) else []


def _external(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Returns the constants whose numbers are in other files."""
    import onnx

    return [tensor for tensor in tensors_of(model.graph) if tensor.data_location == onnx.TensorProto.EXTERNAL]


def _files(tensors: Iterable[onnx.TensorProto]) -> list[str]:
    """Returns the sorted names of the files that hold the numbers of constants, as the model names them."""
    return sorted({entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"})


def _bytes(tensor: onnx.TensorProto) -> int:
    """Returns the size of the numbers of a constant, bytes."""
    from onnx import helper

    size: int = prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return size


def counts(path: Path) -> tuple[int, int]:
    """Returns the numbers of parameters and FLOPs of an ONNX file."""
    model = load_onnx(path)
    keep_graph_inputs(model)
    return parameters(model), flops(model)


def keep_graph_inputs(model: onnx.ModelProto) -> None:
    """Removes the initializers from the inputs of a graph."""
    inputs = graph_inputs(model)
    del model.graph.input[:]
    model.graph.input.extend(inputs)


def graph_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Returns the inputs of a graph without initializers, which older files list as inputs."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in initializers]
