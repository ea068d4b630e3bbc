"""The PyTorch network with its weights, ready to run."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from numpy.typing import NDArray

from lmconv.errors import InputError
from lmconv.inference.session import noise
from lmconv.networks.candidates import SEEDED, Candidate, Candidates
from lmconv.networks.heads import head_of
from lmconv.networks.structure import tensors
from lmconv.plugins import BACKBONES
from lmconv.sources import checkpoints, usercode
from lmconv.sources.choice import choose
from lmconv.sources.randomise import randomise
from lmconv.types import Arrays, Source

if TYPE_CHECKING:
    import torch


def network(source: Source) -> torch.nn.Module:
    """Builds the PyTorch network with its weights, in evaluation mode.

    Returns:
        A module whose forward returns (N, L, 2 or 3) float32, or heatmaps (N, L, h, w) float32 if the spec has
        heatmaps, or a tuple in the order of the spec's outputs for a detector.

    Raises:
        InputError: The checkpoint is broken, or belongs to another network, which the hint names; or the user's code
            fails, or has no output that can hold landmarks.
        UsageError: The user must name an output.
    """
    module = _filled(source)
    return _wrap(module, _settled(module, source))


def _filled(source: Source) -> torch.nn.Module:
    """Returns the network's own module with its weights, in evaluation mode."""
    spec, theirs = source.spec, usercode.foreign(source)
    module = _build(source).eval()
    if theirs:
        _try(module, source, theirs)
    if source.path is None:
        with _guarded(
            theirs, hint="it cannot be filled with random numbers: name its --weights; -v shows its traceback"
        ):
            randomise(module, spec.input_size, source.seed or 0, preprocess=spec.preprocess)
    else:
        state = checkpoints.load_state_dict(source.path)
        try:
            checkpoints.fill(module, state, source.path)
        except InputError as error:
            raise InputError(error.message, hint=_owner_hint(state, source) or error.hint) from error
    return module


def _settled(module: torch.nn.Module, source: Source) -> Source:
    """Returns the source of a user's network with the outputs that hold the landmarks, chosen on seeded inputs."""
    if not source.factory or source.spec.chosen is not None:
        return source
    import torch

    with _guarded(usercode.foreign(source)), torch.inference_mode():
        outputs = tensors(module(torch.from_numpy(noise(source.spec, SEEDED, 0))))
    options = replace(source.options, landmarks=source.options.landmarks or source.spec.landmarks or None)
    candidates = Candidates(
        source=source.factory,
        outputs=[
            Candidate(name=name, values=_values(tensor), dtype=str(tensor.dtype).removeprefix("torch."))
            for name, tensor in outputs
        ],
    )
    return replace(source, spec=choose(candidates, options, source.spec))


def _values(tensor: torch.Tensor) -> NDArray[Any]:
    """Returns the values of an output for the seeded inputs; no rows for an output without batch axis."""
    import torch

    values = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    rows: NDArray[Any] = values.numpy()
    return rows if tensor.dim() and len(tensor) == SEEDED else rows[:0].reshape(0)


def _build(source: Source) -> torch.nn.Module:
    if source.factory:
        return usercode.build(source.factory, source.spec.landmarks)
    backbone = BACKBONES.load(source.spec.backbone)
    with _guarded(usercode.foreign(source)):
        return backbone.module(source.spec.landmarks)


def _guarded(theirs: str, **words: str) -> AbstractContextManager[None]:
    return usercode.theirs(theirs, **words) if theirs else nullcontext()


def _owner_hint(state: checkpoints.State, source: Source) -> str:
    """Returns a hint that names the network of these weights; empty if no backbone has such weights."""
    for name, landmarks in identify(state):
        if name != source.spec.backbone:
            return f"these are the weights of {name}" + (f", {landmarks} points" if landmarks else "")
        if landmarks != source.spec.landmarks:
            return f"this network has {landmarks} points: use --landmarks {landmarks}"
    return ""


def identify(state: checkpoints.State) -> list[tuple[str, int]]:
    """Returns the backbones whose state dict has these names and shapes, each with the matching number of landmarks."""
    fitting = []
    shapes = {key: tuple(value.shape) for key, value in _counted(state).items()}
    for name in BACKBONES.names():
        try:
            backbone = BACKBONES.load(name)
            usual = _shapes(name, backbone.spec.landmarks)
        except Exception:  # noqa: S112 (a broken backbone of another package does not matter for this file)
            continue
        for landmarks in _points(state, usual, backbone.spec.landmarks):
            if _shapes(name, landmarks) == shapes:
                fitting.append((name, landmarks))  # noqa: PERF401 (three conditions are easier to read one by one)
    return fitting


Shapes = dict[str, tuple[int, ...]]


@functools.cache
def _shapes(name: str, landmarks: int) -> Shapes:
    import torch

    backbone = BACKBONES.load(name)
    if backbone.build is None:
        return {}
    with torch.device("meta"):
        state = backbone.build(landmarks).state_dict()
    return {key: tuple(value.shape) for key, value in _counted(state).items()}


def _counted(state: checkpoints.State) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if not key.endswith(checkpoints.COUNTER)}


def _points(state: checkpoints.State, usual: Shapes, landmarks: int) -> list[int]:
    """Returns the number of landmarks for which a backbone may have these shapes: one at most, none if names differ."""
    tensors = _counted(state)
    if tensors.keys() != usual.keys():
        return []
    for key, shape in usual.items():
        for side, other in zip(shape, tensors[key].shape, strict=False):
            if side != other:
                return [landmarks * other // side] if landmarks * other % side == 0 else []
    return [landmarks]


def _wrap(module: torch.nn.Module, source: Source) -> torch.nn.Module:
    """Returns a module that computes the outputs to export, see `Head.traced`."""
    import torch

    head = head_of(source.spec)

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = module

        def forward(self, x: torch.Tensor) -> Any:
            return head.traced(self.net(x))

    return Wrapped().eval()


def _try(module: torch.nn.Module, source: Source, theirs: str) -> None:
    """Runs a user's network and checks that the outputs are tensors with a batch axis, the same in every run.

    Raises:
        InputError: There is no tensor, or no batch axis, or the outputs differ from run to run.
    """
    import torch

    height, width = source.spec.input_size
    two = torch.linspace(0, 1, 6 * height * width).reshape(2, 3, height, width)
    hint = f"it was given (2, 3, {height}, {width}): is --input right, and any batch size taken? -v shows its traceback"
    with usercode.theirs(theirs, hint=hint), torch.inference_mode():
        result = module(two.clone())
        first, again = dict(tensors(result)), dict(tensors(module(two.clone())))
    if not first:
        raise InputError(f"{theirs} computes a {type(result).__name__}, not a tensor", hint="return the points")
    if not any(tensor.dim() and len(tensor) == 2 for tensor in first.values()):
        hint = "let it take any number of inputs, such as by x.flatten(1) in place of x.view(1, -1)"
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in first.values())
        raise InputError(f"{theirs} makes {shapes} of two inputs, not (2, ...)", hint=hint)
    same = all(
        torch.allclose(tensor, again[name], rtol=1e-3, atol=1e-4, equal_nan=True) for name, tensor in first.items()
    )
    if not same:
        hint = "let forward draw no random numbers, and dropout rest in eval()"
        raise InputError(f"{theirs} computes something else each time", hint=hint)


class TorchSource:
    """A `Session` on the PyTorch network, eager, on the CPU.

    Attributes:
        source: The source, with the outputs that hold the landmarks.
        network: Module that computes the outputs of the spec.
    """

    execution_mismatch = ""

    def __init__(self, source: Source, *, threads: int = 0) -> None:
        module = _filled(source)
        self.source = _settled(module, source)
        self.network = _wrap(module, self.source)
        self._theirs = usercode.foreign(source)
        self._threads = threads

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See `lmconv.types.Session`."""
        import torch

        if self._threads and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        with _guarded(self._theirs), torch.inference_mode():
            result = self.network(torch.tensor(inputs["input"]))  # a copy: forward may change its input
        parts = result if isinstance(result, tuple) else (result,)
        return head_of(self.source.spec).from_torch([tensor.numpy() for tensor in parts])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self.network
