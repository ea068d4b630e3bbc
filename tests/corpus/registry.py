"""Cases of the corpus: small networks and files, each with one construct, found by kind and name."""

from __future__ import annotations

import importlib
import pkgutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

HERE = Path(__file__).parent
SIDE, POINTS = 32, 68
"""Height and width of the input, and number of landmarks, unless a case has others."""

EXPORTERS = {"torchscript": (7, 9, 11, 13, 15, 17), "dynamo": (18, 20, 21, 23)}
"""Opsets that PyTorch's older and newer exporter write here; a construct is tried at every second one."""
OWN = "own"
"""Route of a network that lmconv itself exports from `FILE.py:NAME`."""
FILE = "file"
"""First part of the route of a hand-written file; the second is the opset."""

Route: TypeAlias = str


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network or a file with one construct.

    Attributes:
        name: Kind and name, such as `activations/mish`.
        summary: The construct, in words.
        build: Returns a `torch.nn.Module`, or for a hand-written file a model of the opset in the argument.
        routes: Ways from the construct to lmconv.
        size: (height, width) of the input, pixels.
        options: Options of the command line by name, as typed, besides weights, input and number of landmarks.
        points: Number of landmarks.
        expected: Returns the landmarks, or the heatmaps, in what the network or file computes.
        white: Number of a white pixel in the input of the artefact.
        feed: Converts images (N, 3, H, W) float32 to what the file takes.
        slack: Factor of the limits, for networks that are less exact themselves.
        alone: True if the network takes one image, or computes something else for one image than for several.
    """

    name: str
    summary: str
    build: Callable[..., Any]
    routes: tuple[Route, ...]
    size: tuple[int, int] = (SIDE, SIDE)
    options: dict[str, str] = field(default_factory=dict)
    points: int = POINTS
    expected: Callable[[Any], Any] = lambda output: output[0] if isinstance(output, tuple | list) else output
    white: float = 1.0
    feed: Callable[[Any], Any] = lambda images: images
    slack: float = 1.0
    alone: bool = False

    @property
    def kind(self) -> str:
        """First part of the name."""
        return self.name.partition("/")[0]

    @property
    def is_architecture(self) -> bool:
        """True for a whole published architecture."""
        return Path(self.build.__code__.co_filename).parent.name == "architectures"


def network(summary: str, *, exported: bool = True, **fields: Any) -> Callable[..., Callable[[], nn.Module]]:
    """Marks a function without arguments that returns a network.

    Args:
        summary: The construct, in words.
        exported: True to also try the files that PyTorch's two exporters write.
        fields: Further fields of `Case`.
    """

    def mark(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        first = zlib.crc32(build.__name__.encode()) % 2
        routes = [f"{exporter}-{opset}" for exporter, opsets in EXPORTERS.items() for opset in opsets[first::2]]
        marked: Callable[[], nn.Module] = _mark(summary, (OWN, *(routes if exported else ())), fields)(build)
        return marked

    return mark


def file(summary: str, *opsets: int, **fields: Any) -> Callable[..., Callable[[int], onnx.ModelProto]]:
    """Marks a function from an opset to an ONNX model, for these opsets."""
    return _mark(summary, tuple(f"{FILE}-{opset}" for opset in opsets), fields)


def _mark(summary: str, routes: tuple[Route, ...], fields: dict[str, Any]) -> Callable[..., Any]:
    def mark(build: Callable[..., Any]) -> Callable[..., Any]:
        place = build.__module__.rpartition(".")[2]
        case = Case(name=f"{place}/{build.__name__}", summary=summary, build=build, routes=routes, **fields)
        build.case = case  # type: ignore[attr-defined]
        return build

    return mark


@cache
def cases() -> dict[str, Case]:
    """Returns all cases by name, in the order of their files."""
    found = (value.case for module in _modules() for value in vars(module).values() if hasattr(value, "case"))
    return {case.name: case for case in found}


def _modules() -> Iterator[ModuleType]:
    for folder in ("networks", "files", "architectures"):
        for module in sorted(pkgutil.iter_modules([str(HERE / folder)]), key=lambda module: module.name):
            yield importlib.import_module(f"tests.corpus.{folder}.{module.name}")


def place_of(case: Case) -> str:
    """Returns `FILE.py:NAME` of the function of a network."""
    return f"{Path(case.build.__code__.co_filename)}:{case.build.__name__}"


def settled(network: nn.Module, images: torch.Tensor) -> nn.Module:
    """Gives every BatchNorm the statistics of images, as training does; returns the network in evaluation mode.

    Args:
        network: The network, in place.
        images: (N, 3, H, W) float32, given one by one: not every network takes a batch.
    """
    import torch

    modules = [module for module in network.eval().modules() if not isinstance(module, torch.jit.ScriptModule)]
    norms = [module for module in modules if getattr(module, "running_mean", None) is not None]
    for norm in norms:
        norm.train()
        setattr(norm, "momentum", None)  # noqa: B010 (the mean over all images; not known to be a BatchNorm)
        norm.reset_running_stats()  # type: ignore[operator]
    with torch.no_grad():
        for image in images if norms else ():
            network(image[None].clone())
    return network.eval()
