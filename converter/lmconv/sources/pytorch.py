"""The PyTorch network with its weights, ready to run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from lmconv.errors import InputError
from lmconv.inference.session import noise
from lmconv.networks.candidates import SEEDED, Candidate, Candidates
from lmconv.networks.heads import head_of
from lmconv.networks.structure import tensors
from lmconv.plugins import BACKBONES
from lmconv.sources import checkpoint_file, modules, states, usercode
from lmconv.sources.choice import choose
from lmconv.sources.flushing import flushed
from lmconv.sources.randomise import randomise
from lmconv.types import Arrays, Float32, Source

if TYPE_CHECKING:
    import torch


def network(source: Source, *, say: Callable[[str], object] = lambda note: None) -> torch.nn.Module:
    """Builds the PyTorch network with its weights, in evaluation mode.

    Args:
        source: The network.
        say: Receives a note about a choice among several states of a checkpoint.

    Returns:
        A module whose forward returns (N, L, 2 or 3) float32, or heatmaps (N, L, h, w) float32 if the spec has
        heatmaps, or a tuple in the order of the spec's outputs for a detector.

    Raises:
        InputError: The checkpoint is broken, or belongs to another network, which the hint names; or the user's code
            fails, or has no output that can hold landmarks.
        UsageError: The user must name an output.
    """
    module = _filled(source, say=say)
    return _wrap(module, _settled(module, source))


def _filled(source: Source, *, say: Callable[[str], object]) -> torch.nn.Module:
    """Returns the network's own module with its weights, in evaluation mode."""
    spec, theirs = source.spec, usercode.foreign(source)
    module, largest = modules.unwrapped(_build(source)).eval(), None
    if theirs:
        modules.check_float(module, theirs)
        if note := modules.widen(module):
            say(note)
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
    return module


def _settled(module: torch.nn.Module, source: Source) -> Source:
    """Returns the source of a user's network with the outputs that hold the landmarks, chosen on seeded inputs."""
    if source.options is None:
        return source
    return replace(source, spec=choose(_candidates(module, source), source.spec, source.options), options=None)


def described(source: Source) -> tuple[Candidates, int]:
    """Returns all outputs of a user's network, with their values for seeded inputs; raises as `network`.

    Returns:
        The outputs, and the number of denormal weights.
    """
    module = _filled(source, say=lambda note: None)
    return _candidates(module, source), modules.denormals(module)


def _candidates(module: torch.nn.Module, source: Source) -> Candidates:
    import torch

    images = torch.from_numpy(noise(source.spec, SEEDED, 0))
    with _guarded(usercode.foreign(source)), torch.no_grad():
        batches = [images] if _takes(module, images) else [images[index : index + 1] for index in range(SEEDED)]
        runs = [dict(tensors(module(batch.clone()))) for batch in batches]
    outputs = [_candidate(name, [run[name] for run in runs if name in run]) for name in runs[0]]
    return Candidates(source=source.factory, outputs=outputs)


def _candidate(name: str, runs: list[torch.Tensor]) -> Candidate:
    """Returns an output from its values for all seeded inputs together, or for each alone."""
    dtype, arrays = str(runs[0].dtype).removeprefix("torch."), [run.float().numpy() for run in runs]
    inputs, shape = SEEDED // len(arrays), arrays[0].shape
    batched = shape[:1] == (inputs,)
    if len({array.shape for array in arrays}) > 1 or not (batched or inputs == 1):
        return Candidate(name=name, values=arrays[0][:0].reshape(0), dtype=dtype)
    rows = (np.concatenate if batched else np.stack)(arrays)
    return Candidate(name=name, values=rows, dtype=dtype, batched=batched)


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
    """Runs a user's network and checks that the outputs are tensors, the same in every run.

    Returns:
        1 if the network takes one input at a time; None if it takes several.

    Raises:
        InputError: There is no tensor, or a layer is in training mode, or the outputs differ from run to run.
    """
    import torch

    from lmconv.sources.observing import observed

    height, width = source.spec.input_size
    two = torch.linspace(0, 1, 6 * height * width).reshape(2, 3, height, width)
    hint = f"it was given (2, 3, {height}, {width}): is --input right? -v shows its traceback"
    with usercode.theirs(theirs, hint=hint), torch.no_grad():
        images = two if _takes(module, two) else two[:1]
        with modules.channels_of_images(theirs), observed(module) as events:
            result = module(images.clone())
        first, again = (dict(tensors(each)) for each in (result, module(images.clone())))
    if not first:
        raise InputError(f"{theirs} computes a {type(result).__name__}, not a tensor", hint="return the points")
    modules.check_mode(events, theirs)
    if not all(
        torch.allclose(tensor.float(), again[name].float(), rtol=1e-3, atol=1e-4, equal_nan=True)
        for name, tensor in first.items()
    ):
        raise modules.random(events, theirs)
    return None if len(images) > 1 else 1


def _takes(module: torch.nn.Module, images: torch.Tensor) -> bool:
    """True if a network computes one row of output for each of several inputs, or fails for one input too.

    An error for several inputs is an error of the network only if one input alone gives an error too.
    """
    try:
        result = tensors(module(images.clone()))
        return any(tensor.dim() and len(tensor) == len(images) for _, tensor in result)
    except Exception:
        try:
            module(images[:1].clone())
        except Exception:
            return True
        return False


class TorchSource:
    """A `Session` on the PyTorch network, eager, on the CPU, with denormal numbers flushed to zero.

    Attributes:
        source: The source, with the outputs that hold the landmarks.
        network: Module that computes the outputs of the spec.
        notes: Choices that were made for the user, in words.
    """

    execution_mismatch = ""

    def __init__(self, source: Source, *, threads: int = 0) -> None:
        self.notes: list[str] = []
        module = _filled(source, say=self.notes.append)
        self.source = _settled(module, source)
        self.network = _wrap(module, self.source)
        self._theirs = usercode.foreign(source)
        self._threads = threads

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See `lmconv.types.Session`."""
        result = flushed(lambda: self._forward(inputs["input"]))
        parts = result if isinstance(result, tuple) else (result,)
        return head_of(self.source.spec).from_torch([tensor.numpy() for tensor in parts])

    @property
    def denormals(self) -> int:
        """Number of denormal weights."""
        return modules.denormals(self.network)

    def flops(self, images: Float32) -> int:
        """Counts the floating-point operations of PyTorch for a batch of inputs, (n, 3, H, W) float32."""
        from torch.utils.flop_counter import FlopCounterMode

        def count() -> int:
            with FlopCounterMode(display=False) as counter:  # a mode of the thread
                self._forward(images)
            return int(counter.get_total_flops())

        return flushed(count)

    def _forward(self, images: Float32) -> Any:
        import torch

        if self._threads and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        with _guarded(self._theirs), torch.no_grad():  # in inference mode parametrised weights cannot be counted
            return self.network(torch.tensor(images))  # a copy: forward may change its input

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self.network
