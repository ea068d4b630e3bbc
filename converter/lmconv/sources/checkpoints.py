"""Checkpoints: search by published file name or sha256, and loading that never runs code from a file."""

from __future__ import annotations

import os
import pickle
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmconv import machine
from lmconv.errors import InputError, MissingRuntime
from lmconv.plugins import INSTALL
from lmconv.store.files import sha256

if TYPE_CHECKING:
    import torch

State = Mapping[str, "torch.Tensor"]

SUFFIXES = (".safetensors", ".pth", ".pt", ".pth.tar", ".npz")
"""Suffixes of checkpoint files that have the name of their model."""
COUNTER = ".num_batches_tracked"
"""Suffix of BatchNorm's step counter: unused in inference, absent from checkpoints older than PyTorch 0.4.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A published checkpoint, as listed in known.toml.

    Attributes:
        file: Published file name; lmconv looks for a checkpoint under this name.
        source: Origin of the file.
        licence: Licence of the weights.
        ion: Published ION on subsets of 300-W, percent, by subset; empty for detectors.
        ion_note: Conditions of `ion`.
        sha256: Descriptions of the files with known bytes, by sha256.
    """

    file: str
    source: str
    licence: str
    ion: Mapping[str, float]
    ion_note: str
    sha256: Mapping[str, str]


@cache
def known() -> dict[str, Known]:
    """Returns the published checkpoints by model name."""
    text = (_known_folder() / "known.toml").read_text(encoding="utf-8")
    return {name: Known(**row) for name, row in tomllib.loads(text).items()}


def _known_folder() -> Path:
    """Returns the folder of known.toml and of the checkpoint that ships with lmconv (docs/drawn.md)."""
    return Path(str(resources.files("lmconv.known") / "known.toml")).parent


def cache_folder() -> Path:
    """Returns the user cache folder, to which `lmconv weights add` copies checkpoints."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lmconv" / "weights"


def folders() -> list[Path]:
    """Returns the folders that are searched for checkpoints, in order.

    The order is: folders of LMCONV_WEIGHTS, `weights/`, the user cache, the folder that ships with lmconv.
    """
    listed = [Path(part) for part in os.environ.get("LMCONV_WEIGHTS", "").split(os.pathsep) if part]
    return [*listed, Path("weights"), cache_folder(), _known_folder()]


def file_names(model: str) -> list[str]:
    """Returns the possible file names of a checkpoint of this model, published name first."""
    published = [known()[model].file] if model in known() else []
    suffixes = (".onnx",) if is_published_as_onnx(model) else SUFFIXES
    return [*published, *(f"{model}{suffix}" for suffix in suffixes)]


def is_published_as_onnx(model: str) -> bool:
    """True if only an ONNX file of a model was published."""
    return model in known() and known()[model].file.endswith(".onnx")


def find(model: str, extra: Path | None = None) -> Path | None:
    """Returns the first checkpoint of this model in `extra` or `folders()`, up to two levels deep; None if absent."""
    names = file_names(model)
    return next(candidates(lambda path: path.name in names, extra), None)


def find_digest(
    digest: str, name: str, *, extra: Path | None = None, digest_of: Callable[[Path], str] = sha256
) -> Path | None:
    """Returns a file in `extra` or `folders()` with sha256 `digest`; None if absent.

    Files with the name `name` are checked first, then all files with the same suffix. `digest_of` computes the sha256.
    """
    suffix = Path(name).suffix
    for accepts in (lambda path: path.name == name, lambda path: path.name != name and path.suffix == suffix):
        for path in candidates(accepts, extra):
            if digest_of(path) == digest:
                return path
    return None


def candidates(accepts: Callable[[Path], bool], extra: Path | None = None) -> Iterator[Path]:
    """Yields the files up to two levels below `extra` and `folders()` that `accepts` approves, in a fixed order."""
    for folder in [*([extra] if extra else []), *folders()]:
        for pattern in ("*", "*/*", "*/*/*"):
            yield from (path for path in sorted(folder.glob(pattern)) if accepts(path) and path.is_file())


def load_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Reads a state dict from a PyTorch file, safetensors or `.npz`.

    A PyTorch file holds `{"state_dict": …}` or a bare state dict. DataParallel's prefix `module.` is removed. Code in
    the file is never unpickled (`weights_only=True`, `allow_pickle=False`).

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
            content = _deserialise(path)
    except pickle.UnpicklingError as error:
        hint = "save only the network's state_dict(), with torch.save or as safetensors"
        raise InputError(f"{path} holds more than tensors, and lmconv runs no code from a file", hint=hint) from error
    except Exception as error:  # torch and safetensors raise half a dozen types for damaged files
        raise InputError(f"{path} is truncated or not a checkpoint", hint="download or save the file again") from error
    return _state_dict(content, path)


def _deserialise(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    if path.suffix == ".npz":
        import numpy as np

        with np.load(path, allow_pickle=False) as file:
            try:
                return {name: torch.from_numpy(file[name]) for name in file.files}
            except ValueError as error:  # an array of Python objects
                raise pickle.UnpicklingError(str(error)) from error

    return torch.load(path, map_location="cpu", weights_only=True)


def _refuse_unreadable(path: Path) -> None:
    """Refuses a file that cannot be opened, is empty, or is a web page."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", hint="name a checkpoint with --weights") from error
    if not start:
        raise InputError(f"{path} is empty", hint="download or save the file again")
    if start.lstrip()[:1] == b"<":
        raise InputError(f"{path} is a web page, not a checkpoint", hint="download the checkpoint file itself")


def _state_dict(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """Returns the state dict in the content of a checkpoint, without the prefix `module.`; refuses all else."""
    import torch

    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not any(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path} holds no state dict", hint="save the network's state_dict()")
    for key, value in state.items():
        real = isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_complex()
        if not isinstance(key, str) or not real or value.is_meta:
            hint = "save the network's state_dict()"
            raise InputError(f"{path} has an entry {key!r} that is not a tensor of real numbers", hint=hint)
    if all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return state


def fill(network: torch.nn.Module, state: State, path: Path) -> None:
    """Loads a state dict into a network; every name and shape must match, and every number must be finite.

    Args:
        network: The network to fill, in place.
        state: Tensors by state-dict name.
        path: File of the state dict, for error messages.

    Raises:
        InputError: The state dict does not fit; the message lists the first names.
    """
    import torch

    expected = network.state_dict()
    missing = [key for key in expected if key not in state and not key.endswith(COUNTER)]
    unexpected = [key for key in state if key not in expected]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    not_finite = [key for key, value in state.items() if not torch.isfinite(value.float()).all()]
    for problem, keys in [
        ("lacks", missing),
        ("has unexpected", unexpected),
        ("has different shapes:", shapes),
        ("has NaN or infinity in", not_finite),
        ("stores one tensor twice, with different values:", _different_copies(expected, state)),
    ]:
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            hint = "train the network again" if keys is not_finite else "these are not the weights of this network"
            raise InputError(f"{path} {problem} {', '.join(keys[:3])}{more}", hint=hint)
    network.load_state_dict({**expected, **state})


def _different_copies(expected: State, state: State) -> list[str]:
    """Returns the names that share a tensor with another name in the network, but not in `state`."""
    first_name: dict[int, str] = {}
    tensors = {key: value for key, value in expected.items() if value.numel() > 1}
    first = {key: first_name.setdefault(value.data_ptr(), key) for key, value in tensors.items()}
    return [key for key, other in first.items() if {key, other} <= set(state) and not state[key].equal(state[other])]
