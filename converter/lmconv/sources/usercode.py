"""A user's own network: import from a file or package, and error reports that point to the user's code.

Only a name that the user typed is imported, never a name from a manifest. All user code runs inside `theirs`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lmconv.errors import InputError, LmconvError, UsageError, first_line
from lmconv.plugins import BACKBONES, unknown
from lmconv.types import ONNX, Source

if TYPE_CHECKING:
    import torch

PACKAGE = Path(__file__).parents[1]
"""Folder of lmconv's converter packages: a frame in this folder is not the user's code."""


def is_factory(model: str) -> bool:
    """True if a name has the form `FILE.py:NAME` or `PACKAGE.MODULE:NAME`."""
    module, colon, name = model.rpartition(":")
    return bool(colon and module and name.isidentifier())


def require_factory(model: str) -> None:
    """Checks that the value of `--model` names a user's own network.

    Raises:
        UsageError: The value does not have the form `FILE.py:NAME`.
    """
    if not is_factory(model):
        hint = "--model names a network of your own: leave the option out for any other network"
        raise UsageError(f"--model {model!r} is not FILE.py:NAME", hint=hint)


def foreign(source: Source) -> str:
    """Returns the name of code outside lmconv: the user's factory or another package's backbone; else ""."""
    name = source.spec.backbone
    return source.factory or ("" if name == ONNX or BACKBONES.builtin(name) else name)


def build(factory: str, landmarks: int) -> torch.nn.Module:
    """Calls a factory and returns the network; passes `landmarks` if the factory has a parameter of this name.

    Args:
        factory: `FILE.py:NAME` or `PACKAGE.MODULE:NAME` of a function or a subclass of `torch.nn.Module`.
        landmarks: Number of landmarks that the network predicts.

    Raises:
        InputError: The file or name does not exist, or the factory raises, or its result is not a network.
    """
    import torch

    torch.compiler.set_stance("force_eager")  # torch.compile would need a C++ compiler, and changes no result
    function = _import(factory)
    if isinstance(function, torch.nn.Module):
        hint = "name a function that returns the network, or the class of the network"
        raise InputError(f"{factory} is a network, not a function that builds a network", hint=hint)
    with theirs(factory):
        network = function(landmarks=landmarks) if _takes_landmarks(function) else function()
    if not isinstance(network, torch.nn.Module):
        hint = "return the network itself" + (", not a tuple with the network" if isinstance(network, tuple) else "")
        raise InputError(f"{factory} returns a {type(network).__name__}, not a torch.nn.Module", hint=hint)
    return network


def takes_landmarks(factory: str) -> bool:
    """True if a factory has a parameter `landmarks`.

    Raises:
        InputError: See `build`.
    """
    return _takes_landmarks(_import(factory))


def _takes_landmarks(function: Any) -> bool:
    try:
        return "landmarks" in inspect.signature(function).parameters
    except ValueError:  # a compiled function has no signature
        return False


def _import(factory: str) -> Any:
    """Imports the function or class that `factory` names."""
    location, _, name = factory.rpartition(":")
    with theirs(factory):
        module = _import_file(Path(location)) if location.endswith(".py") else _import_module(location)
    function = getattr(module, name, None)
    if not callable(function):
        defined = (key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__)
        hint = unknown("function", name, sorted(defined)).hint
        raise InputError(f"{location} has no function {name}", hint=hint)
    return function


def _import_module(name: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            hint = "install the module, or name its file, such as my_models.py:build"
            raise InputError(f"module {error.name} does not exist", hint=hint) from error
        raise


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"{path} does not exist", hint="name the file of your network, such as my_models.py:build")
    name = f"lmconv_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported", hint="name a Python file")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # like Python for a script: the file can import its neighbours
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def theirs(factory: str, *, hint: str = "-v shows its traceback") -> Iterator[None]:
    """Runs a user's code: redirects its output to standard error, and reports its errors with file and line.

    Args:
        factory: Name of the user's code, as typed.
        hint: Hint of the error.

    Raises:
        InputError: The user's code raised an error.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except LmconvError:
        raise
    except (Exception, SystemExit) as error:
        place, description = described(error, factory)
        raise InputError(f"{place}: your network's code raises {description}", hint=hint) from error


def described(error: BaseException, factory: str) -> tuple[str, str]:
    """Returns the place of an error in the user's code, FILE:LINE, and its class with the first line of its message."""
    first = cause(error)
    text = f"{type(first).__name__}: {first_line(first)}" if str(first).strip() else type(first).__name__
    return _place(error, factory), text


def _place(error: BaseException, factory: str) -> str:
    """Returns FILE:LINE of the innermost frame in the user's own files, else of the innermost frame outside lmconv."""
    location = factory.rpartition(":")[0]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [frame for cause in _chain(error) for frame in traceback.extract_tb(cause.__traceback__)]
    folder = Path(location).resolve().parent if location.endswith(".py") else None
    users = [frame for frame in frames if folder and folder in Path(frame.filename).resolve().parents]
    users = [frame for frame in users if "site-packages" not in frame.filename]
    outside = [frame for frame in frames if PACKAGE not in Path(frame.filename).parents]
    outside = [frame for frame in outside if "<frozen" not in frame.filename]
    innermost = (users or outside)[-1:]
    return f"{innermost[0].filename}:{innermost[0].lineno}" if innermost else location


def cause(error: BaseException) -> BaseException:
    """Returns the error without the errors that PyTorch's exporter wraps around its cause."""
    while type(error).__module__.startswith("torch.onnx") and error.__cause__:
        error = error.__cause__
    return error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and its causes, the first cause last."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__
