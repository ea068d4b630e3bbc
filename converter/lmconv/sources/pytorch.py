"""The PyTorch network with its weights, ready to run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from numpy.typing import NDArray

from lmconv.errors import InputError
from lmconv.networks.heads import head_of
from lmconv.networks.heads.points import first_output
from lmconv.plugins import BACKBONES
from lmconv.sources import checkpoint_file, modules, states, usercode
from lmconv.sources.randomise import randomise
from lmconv.types import Arrays, Source

if TYPE_CHECKING:
    import torch


def network(source: Source, *, say: Callable[[str], object] = lambda note: None) -> torch.nn.Module:
    """Builds the PyTorch network with its weights, in evaluation mode.

    Args:
        source: The network.
        say: Receives a note about a choice among several states of a checkpoint.

    Returns:
        A module whose forward returns (N, L, 2) float32, or heatmaps (N, L, h, w) float32 if the spec has heatmaps, or
        a tuple in the order of the spec's outputs for a detector.

    Raises:
        InputError: The checkpoint is broken, or belongs to another network, which the hint names; or the user's code
            fails.
    """
    spec, theirs = source.spec, usercode.foreign(source)
    module, largest = modules.unwrapped(_build(source)).eval(), None
    if theirs:
        modules.widen(module)
        modules.bind(module, source.constants, theirs)
        largest = _try(modules.trial(module), source, theirs)
    if source.path is None:
        with _guarded(
            theirs, hint="it cannot be filled with random numbers: name its --weights; -v shows its traceback"
        ):
            randomise(module, spec.input_size, source.seed or 0, preprocess=spec.preprocess, largest=largest)
    else:
        contents = states.Contents.of(checkpoint_file.read(source.path))
        try:
            found = states.find(contents, module.state_dict(), source.path, key=source.key)
        except InputError as error:
            raise InputError(error.message, hint=_owner_hint(contents, source) or error.hint) from error
        states.fill(module, found.state, source.path)
        if found.note:
            say(found.note)
    return _wrap(module, source)


def _build(source: Source) -> torch.nn.Module:
    if source.factory:
        return usercode.build(source.factory, source.spec.landmarks)
    backbone = BACKBONES.load(source.spec.backbone)
    with _guarded(usercode.foreign(source)):
        return backbone.module(source.spec.landmarks)


def _guarded(theirs: str, **words: str) -> AbstractContextManager[None]:
    return usercode.theirs(theirs, **words) if theirs else nullcontext()


def _owner_hint(contents: states.Contents, source: Source) -> str:
    """Returns a hint that names the network of these weights; empty if no backbone has such weights."""
    for name, landmarks in identify(contents):
        if name != source.spec.backbone:
            return f"these are the weights of {name}" + (f", {landmarks} points" if landmarks else "")
        if landmarks != source.spec.landmarks:
            return f"this network has {landmarks} points: use --landmarks {landmarks}"
    return ""


def identify(contents: states.Contents) -> list[tuple[str, int]]:
    """Returns the backbones that a checkpoint fits, each with the matching number of landmarks."""
    fitting: list[tuple[str, int]] = []
    for name in BACKBONES.names():
        try:
            backbone = BACKBONES.load(name)
            usual = _without_numbers(name, backbone.spec.landmarks)
        except Exception:  # noqa: S112 (a broken backbone of another package does not matter for this file)
            continue
        for group in states.groups(contents, usual):
            landmarks = _points(group, usual, backbone.spec.landmarks)
            if landmarks is not None and all(
                group.state[key].shape == value.shape
                for key, value in _without_numbers(name, landmarks).items()
                if key in group.state
            ):
                fitting.append((name, landmarks))
                break
    return fitting


@functools.cache
def _without_numbers(name: str, landmarks: int) -> dict[str, torch.Tensor]:
    """Returns the state dict of a backbone on the device `meta`; empty if the backbone is published as an ONNX file."""
    import torch

    backbone = BACKBONES.load(name)
    if backbone.build is None:
        return {}
    with torch.device("meta"):
        return backbone.build(landmarks).state_dict()


def _points(group: states.Group, usual: states.State, landmarks: int) -> int | None:
    """Returns the number of landmarks for which a backbone may have these shapes; None if names differ."""
    if not usual or group.missing or group.unexpected:
        return None
    for key, value in usual.items():
        if key in group.state:
            for side, other in zip(value.shape, group.state[key].shape, strict=False):
                if side != other:
                    return landmarks * other // side if landmarks * other % side == 0 else None
    return landmarks


def _wrap(module: torch.nn.Module, source: Source) -> torch.nn.Module:
    """Returns a module that computes the outputs to export, see `Head.traced`."""
    import torch

    head = head_of(source.spec)

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = module

        def forward(self, x: torch.Tensor) -> Any:
            return modules.as_float32(head.traced(modules.with_batch_axis(self.net(x), x)))

    return Wrapped().eval()


def _try(module: torch.nn.Module, source: Source, theirs: str) -> int | None:
    """Runs a user's network and checks the output.

    Returns:
        1 if the network takes one input at a time; None if it takes several.

    Raises:
        InputError: The output has another type or shape than expected, or differs from run to run.
    """
    import torch

    from lmconv.sources.observing import observed

    head, (height, width) = head_of(source.spec), source.spec.input_size
    two = torch.linspace(0, 1, 6 * height * width).reshape(2, 3, height, width)
    hint = f"it was given (2, 3, {height}, {width}): is --input right? -v shows its traceback"
    with usercode.theirs(theirs, hint=hint), torch.no_grad():
        images = two if _takes(module, two) else two[:1]
        with modules.channels_of_images(theirs), observed(module) as events:
            first = modules.with_batch_axis(first_output(module(images.clone())), images)
        again = modules.with_batch_axis(first_output(module(images.clone())), images)
    if not isinstance(first, torch.Tensor) or not first.is_floating_point():
        kind = first.dtype if isinstance(first, torch.Tensor) else type(first).__name__
        raise InputError(f"{theirs} computes a {kind}, not a float32 tensor", hint="return the points, first of all")
    modules.check_mode(events, theirs)
    if not torch.allclose(first.float(), again.float(), rtol=1e-3, atol=1e-4, equal_nan=True):
        raise modules.random(events, theirs)
    shape, expected = tuple(first.shape), head.expected_shape(tuple(first.shape))
    if not head.fits((2, *shape[1:])):
        message = f"{theirs} computes {shape[1:]} an input, not {expected[1:]}"
        raise InputError(message, hint=head.shape_hint(shape))
    return None if len(images) > 1 else 1


def _takes(module: torch.nn.Module, images: torch.Tensor) -> bool:
    """True if a network computes one row of output for each of several inputs, or fails for one input too.

    An error for several inputs is an error of the network only if one input alone gives an error too.
    """
    try:
        return len(first_output(module(images.clone()))) == len(images)
    except Exception:
        try:
            module(images[:1].clone())
        except Exception:
            return True
        return False


class TorchSource:
    """A `Session` on the PyTorch network, eager, on the CPU.

    Attributes:
        network: The network.
        notes: Choices that were made for the user, in words.
    """

    execution_mismatch = ""

    def __init__(self, source: Source, *, threads: int = 0) -> None:
        self.notes: list[str] = []
        self.network = network(source, say=self.notes.append)
        self._source = source
        self._theirs = usercode.foreign(source)
        self._threads = threads

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See `lmconv.types.Session`."""
        import torch

        if self._threads and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        with _guarded(self._theirs), torch.no_grad():  # in inference mode parametrised weights cannot be counted
            result = self.network(torch.tensor(inputs["input"]))  # a copy: forward may change its input
        tensors = result if isinstance(result, tuple) else (result,)
        return head_of(self._source.spec).from_torch([tensor.numpy() for tensor in tensors])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self.network
