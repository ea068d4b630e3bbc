"""The finished artefact against the source network, before the artefact is written under its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmconv.building import limits
from lmconv.errors import GateFailed, LmconvError, first_line
from lmconv.inference.session import outputs
from lmconv.inference.ties import jumps, ties
from lmconv.networks.heads import head_of
from lmconv.networks.interfaces import interface_of
from lmconv.networks.outputs import Gap, Outputs
from lmconv.networks.preprocess import in_colours, network_input
from lmconv.networks.seeded import PARITY_INPUTS, PARITY_SEED, noise_crops
from lmconv.plugins import TARGETS
from lmconv.store import artifact as artifacts
from lmconv.store import reference as reference_file
from lmconv.store.reference import Reference
from lmconv.types import Artifact, Float32, Float64, ModelSpec, OpenOptions, Precision, Session, Target

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

BATCHES = (1, 2)
"""Batch sizes at which an artefact with a free batch is compared, besides all inputs of reference.npz at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The network that an artefact must reproduce.

    Attributes:
        spec: Spec of the network, which takes a tensor.
        open: Opens a session on the network.
        graph: Graph that computes the same as the network.
        memo: Receives results that other artefacts of the network can use.
    """

    spec: ModelSpec
    open: Callable[[], Session]
    graph: onnx.ModelProto | None = None
    memo: dict[tuple[object, ...], Any] = field(default_factory=dict)

    def settled(self, artifact: Artifact, result: Outputs, expected: Outputs, inputs: Float32) -> Outputs:
        """Returns the expected outputs, with ties marked as undecided if the network computes points.

        Args:
            artifact: An artefact that takes a tensor or images.
            result: Outputs of the artefact.
            expected: Outputs of the network for the same inputs.
            inputs: (n, 3, H, W) float32 network inputs.
        """
        head = head_of(artifact.spec)
        if head.name != "points" or expected.landmarks.shape != result.landmarks.shape:
            return expected
        jumped = self.jumps(inputs, artifact.precision)
        target = TARGETS.load(artifact.target)
        allowed = limits.coordinate(target, artifact.precision, artifact.spec.input_size)
        scale = head.gap(result, expected).landmarks.scale
        return replace(expected, undecided=ties(result, expected, jumped, allowed * scale))

    def jumps(self, inputs: Float32, precision: Precision) -> Float64:
        """Returns the movements of the points under rounding, see `lmconv.inference.ties.jumps`."""
        with self.open() as session:
            return jumps(session, self.spec, inputs, precision, self.graph)

    def on_parity_noise(self, spec: ModelSpec) -> Reference:
        """Returns the seeded inputs of `lmconv verify` for an artefact, and the outputs of the network for them."""
        crops = noise_crops(spec, PARITY_INPUTS, PARITY_SEED)
        if (place := ("parity noise", self.spec.input_size)) not in self.memo:
            with self.open() as session:
                self.memo[place] = outputs(session, self.spec, network_input(crops, self.spec.preprocess), maps=0)
        expected: Outputs = self.memo[place]
        return Reference(inputs={interface_of(spec).batched: interface_of(spec).feed(crops)}, outputs=expected)


class NotReproduced(GateFailed):
    """A finished artefact does not compute the outputs of its source network.

    Attributes:
        inputs: Number of inputs of the run that differs, the first inputs of reference.npz.
        operator: Operator of the node at which the artefact differs first; empty if unknown.
    """

    def __init__(self, message: str, *, inputs: int, hint: str = "it was not written", operator: str = "") -> None:
        super().__init__(message, hint=hint)
        self.inputs = inputs
        self.operator = operator


def accept(folder: Path, target: Target, reference: Reference, network: Network) -> NDArray[np.bool_] | None:
    """Runs a finished artefact on seeded inputs and compares the outputs with the source network.

    Heatmaps are compared themselves: below fp32 a point may jump where two cells are almost equal. An artefact with a
    free batch runs at the batch sizes 1, 2 and all. Points in fp16 are compared on the inputs of `lmconv verify` too.

    Args:
        folder: Folder of the artefact.
        target: Target of the artefact.
        reference: Seeded inputs and the expected outputs.
        network: The network itself.

    Returns:
        (n, L) bool, the points of the reference at which the artefact and the source differ by a tie; None without
        ties.

    Raises:
        NotReproduced: The outputs differ by more than the precision allows.
    """
    artifact, undecided = artifacts.read(folder), None
    with target.open(artifact, OpenOptions()) as session:
        for expected in _references(artifact, target, reference, network):
            result = _answer(session, artifact, expected)
            if not (reason := _reason(artifact, target, result, expected.outputs)):
                continue
            settled = _settled(artifact, result, expected, network)
            if reason := _reason(artifact, target, result, settled):
                batch = len(expected.outputs.landmarks)
                where = f" at batch {batch}" if batch in BATCHES and artifact.spec.batch is None else ""
                message = f"{artifact.spec.name} as {artifact.target} {artifact.precision}: {reason}{where}"
                raise NotReproduced(message, inputs=min(batch, reference_file.INPUTS))
            undecided = settled.undecided if expected is reference else undecided
    return undecided


def _answer(session: Session, artifact: Artifact, expected: Reference) -> Outputs:
    """Returns the outputs for the inputs of `expected`; an error of the runtime refuses the artefact."""
    try:
        return reference_file.answer(session, artifact.spec, expected)
    except LmconvError:
        raise
    except Exception as error:  # runtimes raise types of their compiled modules
        batch = len(expected.outputs.landmarks)
        message = f"{artifact.target} cannot run its {artifact.precision} at batch {batch}: {first_line(error)}"
        raise GateFailed(message, hint="use another target or precision, or --batch N") from error


def disagreement(artifact: Artifact, target: Target) -> str:
    """Returns the differences beyond the limits of export on reference.npz, in words; empty if there are none."""
    reference = reference_file.read(artifact)
    with target.open(artifact, OpenOptions()) as session:
        return _reason(artifact, target, reference_file.answer(session, artifact.spec, reference), reference.outputs)


def mark(folder: Path, spec: ModelSpec, reference: Reference, undecided: NDArray[np.bool_]) -> Reference:
    """Writes reference.npz again with undecided points; returns the new reference."""
    marked = replace(reference, outputs=replace(reference.outputs, undecided=undecided))
    reference_file.write(folder, spec, marked)
    return marked


def tied(undecided: NDArray[np.bool_]) -> str:
    """Returns the note about ties."""
    count, total = int(undecided.sum()), undecided.size
    return f"{count} of {total} points on noise are ties: the network itself jumps there when its input is rounded"


def _references(artifact: Artifact, target: Target, reference: Reference, network: Network) -> Iterator[Reference]:
    """Yields the inputs of each run and the expected outputs; all inputs of reference.npz come first."""
    spec, head = artifact.spec, head_of(artifact.spec)
    yield reference
    if spec.batch is None and not target.engines:  # an engine serves the batches of its profile
        name = interface_of(spec).batched
        for batch in BATCHES:
            inputs = {**reference.inputs, name: reference.inputs[name][:batch]}
            yield Reference(inputs=inputs, outputs=head.first(reference.outputs, batch))
    if _shares_noise(artifact):
        yield network.on_parity_noise(spec)


def _shares_noise(artifact: Artifact) -> bool:
    """True if `lmconv verify` judges an artefact on noise by a stricter limit than export."""
    points = head_of(artifact.spec).name == "points" and not interface_of(artifact.spec).cuts_crops
    return points and artifact.precision == Precision.FP16 and artifacts.bound_px(artifact) is None


def _settled(artifact: Artifact, result: Outputs, expected: Reference, network: Network) -> Outputs:
    """Returns the expected outputs of a run, with ties marked as undecided; unchanged for a frame."""
    inputs, rule = expected.inputs, network.spec.preprocess
    if "frame" in inputs:
        return expected.outputs
    tensor = network_input(in_colours(inputs["image"], rule), rule) if "image" in inputs else inputs["input"]
    return network.settled(artifact, result, expected.outputs, tensor)


def _reason(artifact: Artifact, target: Target, result: Outputs, expected: Outputs) -> str:
    """Returns the differences beyond the limits, in words; empty if the artefact is accepted."""
    spec, head, precision = artifact.spec, head_of(artifact.spec), artifact.precision
    cut_inside = interface_of(spec).cuts_crops
    gap = head.gap(result, expected)
    loose = cut_inside and artifacts.bound_px(artifact)
    allowed = limits.acceptance(target, Precision.BF16 if loose else precision, spec.io)
    scales = {"landmarks": gap.landmarks.scale}
    gaps = head.accepted_gaps(gap, exact=precision == Precision.FP32 and not cut_inside)
    if precision in (Precision.INT8, Precision.MIXED) and "landmarks" in gaps:
        gaps["landmarks"] = gap.landmarks.mean_abs / gap.landmarks.scale
    beyond = {what: off for what, off in gaps.items() if not off <= allowed[what]}
    reasons = [_words(what, off, allowed[what], scales.get(what, 1.0)) for what, off in beyond.items()]
    return ", ".join(reasons or _distance(artifact, target, gap))


def _distance(artifact: Artifact, target: Target, gap: Gap) -> list[str]:
    """Returns the distance of points in fp16 beyond the limit of `lmconv verify`, in words."""
    if not _shares_noise(artifact):
        return []
    gates = limits.gates(target, artifact.precision, head="points", side=max(artifact.spec.input_size))
    off, limit = gap.landmarks.max_px / gap.landmarks.scale, gates["max_px"]
    return [] if off <= limit else [_words("points", off, limit, gap.landmarks.scale, unit=" px")]


def _words(what: str, off: float, allowed: float, scale: float, unit: str = "") -> str:
    figure, limit = limits.beside(off * scale, allowed * scale)
    why = f" ({allowed:.3g}{unit} x {scale:.4g}, the largest coordinate)" if scale > 1 else ""
    return f"{what} are {figure}{unit} off, allowed {limit}{unit}{why}"
