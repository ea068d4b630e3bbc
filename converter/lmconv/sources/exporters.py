"""PyTorch's exporters, in the order in which lmconv tries them.

The first exporter is `torch.onnx.export(dynamo=True)`. The second one exports operators that the first one has no ONNX
function for as other operators, see `lmconv.sources.decompositions`. The third one is the older exporter, which runs
TorchScript and therefore also exports modules that are TorchScript already.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmconv.errors import LmconvError
from lmconv.types import OPSET

if TYPE_CHECKING:
    import onnx
    import torch


class NotExported(LmconvError):
    """An exporter gives no graph; another one is tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """Arguments of an exporter.

    Attributes:
        network: The network, see `lmconv.sources.pytorch.network`.
        shape: Shape (N, 3, H, W) of the input of the trace.
        free: Axes of the input that stay free, by index, with the name of the axis.
        outputs: Names of the outputs.
        reads: True if Python code of the network reads numbers that depend on the input.
    """

    network: torch.nn.Module
    shape: tuple[int, int, int, int]
    free: dict[int, str]
    outputs: tuple[str, ...]
    reads: bool = False

    @property
    def inputs(self) -> tuple[torch.Tensor]:
        """Zeros as arguments of the network."""
        import torch

        return (torch.zeros(self.shape),)

    @property
    def dynamic_shapes(self) -> tuple[dict[int, Any], ...] | None:
        """The free axes, as `torch.export` takes them."""
        import torch

        return ({axis: torch.export.Dim(name) for axis, name in self.free.items()},) if self.free else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """A conversion from a PyTorch module to an ONNX graph.

    Attributes:
        name: Name of the exporter, as a manifest records it.
        export: Returns the graph; raises any error.
        prefers: True if the exporter is tried before the others for a network with these operators.
    """

    name: str
    export: Callable[[Traced], onnx.ModelProto]
    prefers: Callable[[Collection[str]], bool] = lambda operators: False


def _dynamo(traced: Traced) -> onnx.ModelProto:
    return _translated(traced.network, traced, traced.inputs)


def _decomposed(traced: Traced) -> onnx.ModelProto:
    import torch

    from lmconv.sources.decompositions import decompositions

    used = []

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def decomposition(*args: Any, **kwargs: Any) -> Any:
            used.append(function)
            return function(*args, **kwargs)

        return decomposition

    program = torch.export.export(traced.network, traced.inputs, dynamic_shapes=traced.dynamic_shapes, strict=False)
    table: Any = torch.export.default_decompositions()  # without these, composite operators would hide ours
    table.pop(torch.ops.aten.roll.default)  # its decomposition has no ONNX function for complex numbers
    table.update({name: noted(function) for name, function in decompositions().items()})
    program = program.run_decompositions(table)
    if not used:
        raise NotExported("no operator of the network has a decomposition of lmconv")
    return _translated(program, traced, ())


def _translated(program: Any, traced: Traced, inputs: tuple[torch.Tensor, ...]) -> onnx.ModelProto:
    """Runs PyTorch's exporter on a module or on the result of `torch.export`."""
    import torch

    exported = torch.onnx.export(
        program,
        inputs,
        dynamo=True,
        opset_version=OPSET,
        external_data=False,
        input_names=["input"],
        output_names=list(traced.outputs),
        dynamic_shapes=traced.dynamic_shapes if inputs else None,
        verbose=False,
    )
    if exported is None:
        raise NotExported("torch.onnx.export gave nothing")
    model: onnx.ModelProto = exported.model_proto
    return model


def _torchscript(traced: Traced) -> onnx.ModelProto:
    """Exports in a copy of the process: PyTorch 2.13 can end the process in a network that catches an error."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path, error = Path(folder) / "model.onnx", Path(folder) / "error"
        if sys.platform == "linux":
            child = get_context("fork").Process(target=_in_child, args=(traced, path, error))
            child.start()
            child.join()
            if child.exitcode:
                raise RuntimeError(f"the exporter ended its process with exit code {child.exitcode}")
        else:
            _write_torchscript(traced, path)
        if error.exists():
            raise RuntimeError(error.read_text(encoding="utf-8"))
        return onnx.load(path)


def _in_child(traced: Traced, path: Path, error: Path) -> None:
    """Writes the graph to `path`, or the reason why there is none to `error`."""
    import torch

    torch.set_num_threads(1)  # a forked process does not have the threads of its parent
    try:
        _write_torchscript(traced, path)
    except Exception as failure:
        error.write_text(f"{type(failure).__name__}: {failure}", encoding="utf-8")


def _write_torchscript(traced: Traced, path: Path) -> None:
    import torch
    from torch.jit import TracerWarning  # type: ignore[attr-defined]

    axes = {"input": traced.free} | {name: {0: traced.free[0]} for name in traced.outputs if traced.free}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if traced.reads:  # the graph would have the numbers of the trace
            warnings.filterwarnings("error", "Converting a tensor to a (Python|NumPy)", TracerWarning)
        script: Any = torch.jit.trace(traced.network, traced.inputs, check_trace=False)  # type: ignore[no-untyped-call]
        torch.onnx.export(
            script,
            traced.inputs,
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=["input"],
            output_names=list(traced.outputs),
            dynamic_axes=axes,
        )


EXPORTERS = (
    Exporter(name="torch.onnx dynamo", export=_dynamo),
    Exporter(
        name="torch.onnx dynamo, decomposed",
        export=_decomposed,
        # OpenVINO cannot read the Fourier transforms of PyTorch's exporter.
        prefers=lambda operators: any(name.startswith("_fft_") for name in operators),
    ),
    Exporter(name="torch.onnx torchscript", export=_torchscript),
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides the output and the log of exporters: a failing exporter prints whole graphs, also from C++."""
    import torch

    for name in ("onnx", "fx", "export", "_dynamo", "_subclasses"):  # long warnings about torchvision, raised errors
        logging.getLogger(f"torch.{name}").setLevel(logging.CRITICAL)
    with (
        _no_file_descriptor(1),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Pauses Python's garbage collector: exporters make millions of objects, and a collection visits all of PyTorch."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _no_file_descriptor(number: int) -> Iterator[None]:
    """Discards the output of C++ code to a file descriptor."""
    sys.stdout.flush()
    kept, nowhere = os.dup(number), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, number)
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)
        os.close(nowhere)
