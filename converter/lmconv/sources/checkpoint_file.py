"""The content of a checkpoint file, read without running code from the file.

A file of PyTorch is a pickle, and a pickle may hold any object: options of the training script, an enum, a path.
PyTorch's restricted unpickler (`weights_only=True`) refuses such a file. Here every unknown class becomes a stand-in
without behaviour, so that the tensors beside the object stay readable.
"""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import re
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

from lmconv import machine
from lmconv.errors import InputError, MissingRuntime
from lmconv.plugins import INSTALL

INDEX = ".index.json"
"""End of the name of the file that lists the shards of a large checkpoint, as Hugging Face's libraries write it."""
PROTOCOL = 2
"""Newest protocol of pickle that PyTorch's restricted unpickler reads; the default of `torch.save`."""
RETRIES = 20
"""Largest number of classes in one file that turn out to be containers."""
FORMATS = {
    b"\x89HDF": "HDF5 file (Keras)",
    b"\x1f\x8b": "gzip archive",
    b"BZh": "bzip2 archive",
    b"7z\xbc\xaf": "7z file",
}
"""Formats that are no checkpoint of PyTorch, by their first bytes."""

SAVE = "import torch; torch.save({}.state_dict(), 'weights.pth')"


class _NewProtocol(Exception):
    """A file of a newer protocol of pickle than PyTorch's restricted unpickler reads."""


def read(path: Path) -> Any:
    """Reads a checkpoint: PyTorch's file in its new or old form, safetensors, `.npz`, or the index of shards.

    Returns:
        Nested dicts and lists with tensors, as saved; foreign objects are instances of `StandIn`.

    Raises:
        InputError: The file is missing, empty, truncated, or not a checkpoint.
        MissingRuntime: PyTorch is not installed.
    """
    if not machine.has("torch"):
        raise MissingRuntime(f"reading {path} needs PyTorch", hint=INSTALL["torch"])
    _refuse_unreadable(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _deserialise(path)
    except InputError:
        raise
    except _NewProtocol as error:
        hint = f"run: import torch; torch.save(torch.load({path.name!r}, weights_only=False), 'weights.pth')"
        raise InputError(f"{path} is a pickle of protocol {error}, which cannot be read safely", hint=hint) from error
    except pickle.UnpicklingError as error:
        message = f"{path} holds more than tensors, and lmconv runs no code from a file"
        hint = "save the state dict alone: torch.save(network.state_dict(), 'weights.pth')"
        raise InputError(message, hint=hint) from error
    except Exception as error:  # torch and safetensors raise half a dozen types for damaged files
        raise InputError(f"{path} is truncated or not a checkpoint", hint="download or save the file again") from error


def files(path: Path) -> list[Path]:
    """Returns the files of a checkpoint: the file itself, and the shards that an index lists."""
    return [path, *dict.fromkeys(_shards(path).values())] if path.name.endswith(INDEX) else [path]


def save_hint(name: str) -> str:
    """Returns a hint with the two lines of Python that save the state dict of a whole pickled network."""
    load = f"torch.load({name!r}, map_location='cpu', weights_only=False)"
    return f"where its code is at hand, run: {SAVE.format(load)}"


def _refuse_unreadable(path: Path) -> None:
    """Refuses a file that cannot be opened, is empty, or is of a known format that holds no state dict."""
    try:
        if not path.is_file():
            raise InputError(f"{path} is not a file", hint="name a checkpoint with --weights")
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", hint="name a checkpoint with --weights") from error
    if not start:
        raise InputError(f"{path} is empty", hint="download or save the file again")
    if start.lstrip()[:1] == b"<":
        raise InputError(f"{path} is a web page, not a checkpoint", hint="download the checkpoint file itself")
    if path.suffix.lower() == ".onnx":
        raise InputError(f"{path} is an ONNX file, not a checkpoint", hint=f"convert the file: lmconv export {path}")
    for magic, name in FORMATS.items():
        if start.startswith(magic):
            raise InputError(f"{path} is a {name}, not a checkpoint of PyTorch", hint="give the state_dict() as .pth")


def _deserialise(path: Path) -> Any:
    if path.name.endswith(INDEX):
        return _sharded(path)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if path.suffix == ".npz":
        return _arrays(path)
    _refuse_archives(path)
    return _unpickle(path)


def _arrays(path: Path) -> Any:
    import numpy as np
    import torch

    with np.load(path, allow_pickle=False) as file:
        try:
            return {name: torch.from_numpy(file[name]) for name in file.files}
        except ValueError as error:  # an array of Python objects
            raise pickle.UnpicklingError(str(error)) from error


def _shards(path: Path) -> dict[str, Path]:
    """Returns the shard of each tensor, from `{"weight_map": {name: file}}`; every shard lies beside the index."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        return {name: path.parent / Path(file).name for name, file in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        hint = 'the file needs {"weight_map": {NAME: FILE}}'
        raise InputError(f"{path} is not an index of shards", hint=hint) from error


def _sharded(path: Path) -> Any:
    shards = _shards(path)
    contents = {file: read(file) for file in files(path)[1:]}
    try:
        return {name: contents[file][name] for name, file in shards.items()}
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} lists {error}, which its shard lacks", hint="download all shards again") from error


def _refuse_archives(path: Path) -> None:
    """Refuses compiled networks, and the tar files that PyTorch wrote before version 0.1.10 (2017)."""
    names: list[str] = []
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        hint = f"run: {SAVE.format(f'torch.jit.load({path.name!r})')}"
        raise InputError(f"{path} is a TorchScript archive, a compiled network", hint=hint)
    if any(name.endswith(("serialized_exported_program.json", "models/model.json")) for name in names):
        hint = f"run: import torch; torch.save(torch.export.load({path.name!r}).state_dict, 'weights.pth')"
        raise InputError(f"{path} is an exported program, not a checkpoint", hint=hint)
    if not names and tarfile.is_tarfile(path):
        with tarfile.open(path) as file:
            old = {"pickle", "sys_info"} <= set(file.getnames())
        if not old:
            raise InputError(f"{path} is a tar archive, not a checkpoint", hint=f"unpack the archive: tar -xf {path}")
        hint = f"run: import torch; torch.save(torch.load({path.name!r}, weights_only=False), 'weights.pth')"
        raise InputError(f"{path} is a tar archive, the format of PyTorch before 2017", hint=hint)


class StandIn:
    """An object of a file whose class is not loaded: an object without behaviour that holds the saved data.

    Attributes:
        arguments: Arguments with which the file would create the object.
        content: State that the file would give to the object, mostly a dict of attributes.
    """

    arguments: tuple[Any, ...] = ()
    content: Any = None

    def __new__(cls, *arguments: Any) -> Self:
        """Creates the object; unpickling may leave `__init__` out."""
        made = super().__new__(cls)
        made.arguments = arguments
        return made

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, content: Any) -> None:
        self.content = content


def _unpickle(path: Path) -> Any:
    """Reads a file of `torch.save` with a stand-in for every class that PyTorch does not allow by itself.

    The restricted unpickler fills exact lists and dicts alone. A class that turns out to be a container becomes one.
    """
    import torch

    stand_ins: dict[str, Callable[..., Any]] = {name: type(name, (StandIn,), {}) for name in set(_globals(path))}
    stand_ins |= _numpy()
    for _ in range(RETRIES):
        try:
            with torch.serialization.safe_globals([(made, name) for name, made in stand_ins.items()]):
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            found = re.search(
                r"Can only (\w+) .*, but got <class '[\w.]+?\.sources\.checkpoint_file\.(.+?)'>", str(error)
            )
            if not found or found[2] not in stand_ins:
                raise
            stand_ins[found[2]] = _container(dict if found[1].startswith("SETITEM") else list)
    raise pickle.UnpicklingError(f"{path} has more than {RETRIES} classes of containers")


def _container(kind: type) -> type:
    """Returns a class whose instances are empty lists or dicts."""
    return type(kind.__name__, (), {"__new__": lambda cls, *arguments: OrderedDict() if kind is dict else []})


def _numpy() -> dict[str, Callable[..., Any]]:
    """Returns the classes and functions that rebuild dense numeric arrays of NumPy, by their names in a pickle."""
    rebuild = dict.fromkeys(("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"), _rebuild)
    return {**rebuild, "numpy.ndarray": _Array, "numpy.dtype": _Dtype}


def _rebuild(*arguments: Any) -> _Array:
    """Returns the empty array that `__setstate__` fills."""
    return _Array()


class _Dtype:
    """A numeric dtype of NumPy in a pickle."""

    def __init__(self, name: str, *flags: Any) -> None:
        self.name = name.decode() if isinstance(name, bytes) else name
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1].decode() if isinstance(state[1], bytes) else state[1]


class _Array:
    """An array of NumPy in a pickle; `tensor` is None unless the array is dense and numeric."""

    tensor: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        import numpy as np
        import torch

        _, shape, dtype, fortran, content = state
        if re.fullmatch("[fiub][1248]", dtype.name) and isinstance(content, bytes):
            kind = np.dtype(dtype.name).newbyteorder(dtype.order if dtype.order in "<>" else "=")
            array = np.frombuffer(content, kind).reshape(shape, order="F" if fortran else "C")
            self.tensor = torch.from_numpy(np.array(array, dtype=kind.newbyteorder("=")))


def _globals(path: Path) -> Iterator[str]:
    """Yields the names of the classes and functions in a file of `torch.save`, new or old form."""
    from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # new names of modules and classes of Python 2

    for name in _written(path):
        module, _, rest = name.partition(" ")
        module, rest = NAME_MAPPING.get((module, rest), (IMPORT_MAPPING.get(module, module), rest))
        yield f"{module}.{rest}"


def _written(path: Path) -> Iterator[str]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    yield from _names(io.BytesIO(archive.read(name)))
    else:
        with path.open("rb") as file:
            for _ in range(4):  # a magic number, the protocol, the machine, and the object; tensors follow
                yield from _names(file)


def _names(file: BinaryIO) -> Iterator[str]:
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "PROTO" and int(str(argument)) > PROTOCOL:
            raise _NewProtocol(str(argument))
        if opcode.name == "GLOBAL":
            yield str(argument)
