"""Whether an artefact computes the same landmarks as the network it came from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Literal

from lmconv.faces.crops import FaceCrops
from lmconv.inference.scenes import on_scenes
from lmconv.inference.session import noise, outputs
from lmconv.judging.nme import nme
from lmconv.networks import seeded
from lmconv.networks.compare import Difference
from lmconv.networks.heads import head_of
from lmconv.networks.interfaces import interface_of
from lmconv.networks.outputs import Gap, Outputs
from lmconv.networks.squares import to_picture
from lmconv.store.reference import Reference, answer
from lmconv.types import Float64, ModelSpec, Session

SEED = 1
"""Of the random inputs; export checks itself with another."""
RANDOM_INPUTS = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Points:
    """What one network says of the same inputs.

    Attributes:
        random: Landmarks (64, L, 2), and heatmaps where it gives any, on seeded random inputs; for detection all its
            outputs.
        odd: The same of 8 inputs of another size, odd in both directions, of a network that takes any size.
        faces: The landmarks (n, L, 2) on faces, fractions of the crop; None without faces.
    """

    random: Outputs
    faces: Outputs | None = None
    odd: Outputs | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Distance between an artefact and its source on the same inputs.

    Attributes:
        against: The PyTorch network, the ONNX file it came from, or the outputs kept in reference.npz.
        max_abs: Largest difference of a coordinate, fractions of the input, over random inputs and faces; for detection
            of a raw number.
        mean_abs: Its mean.
        max_px: Largest distance of a point, pixels of the network's input; not a number for detection.
        mean_px: Its mean.
        max_px_faces: `max_px` on the faces alone; None without faces.
        mean_px_faces: Its mean.
        max_ion: Largest drift of a face, ION points; None without faces.
        mean_ion: Its mean.
        max_map: Largest difference of a heatmap's value on random inputs, fractions of their range; None without maps.
            For detection that of a raw number, by the range of its output.
        mean_map: Its mean.
        undecided: Points left out of all these, as rounding may move them, see `lmconv.networks.heatmaps.undecided`.
        n: Number of inputs.
    """

    against: Literal["torch", "onnx", "reference"]
    max_abs: float
    mean_abs: float
    max_px: float
    mean_px: float
    n: int
    max_px_faces: float | None = None
    mean_px_faces: float | None = None
    max_ion: float | None = None
    mean_ion: float | None = None
    max_map: float | None = None
    mean_map: float | None = None
    undecided: int = 0


def points(session: Session, spec: ModelSpec, crops: FaceCrops | None, *, frames: bool = False) -> Points:
    """Runs a network on the seeded random inputs and on faces, some at a time.

    With `frames` the random inputs are boxes in frames, for an artefact that takes a frame and for what it is compared
    with, which gets them cut out on the host.
    """
    return Points(
        random=on_scenes(session, spec, seeded.scenes(RANDOM_INPUTS, SEED), maps=None)
        if frames
        else outputs(session, spec, interface_of(spec).feed(seeded.noise_crops(spec, RANDOM_INPUTS, SEED))),
        faces=None if crops is None else on_faces(session, spec, crops),
        odd=_odd(session, spec) if spec.sample else None,
    )


def _odd(session: Session, spec: ModelSpec) -> Outputs:
    """Runs a network that takes pictures of any size on some of another size than it is exported and compared at."""
    height, width = spec.input_size
    other = replace(spec, sample=(height // 2 | 1, width // 2 | 1))
    return outputs(session, other, noise(other, 8, SEED))


def on_faces(session: Session, spec: ModelSpec, crops: FaceCrops, *, chunk: int = 64) -> Outputs:
    """Runs a network on faces; no heatmaps are kept, and memory is that of one chunk."""
    interface = interface_of(spec)
    if interface.cuts_crops:
        return on_scenes(session, spec, crops.scenes())
    parts = (crops.images[start : start + chunk] for start in range(0, len(crops.images), chunk))
    return head_of(spec).join([outputs(session, spec, interface.feed(part), maps=0) for part in parts])


def errors(faces: Outputs, crops: FaceCrops) -> Float64:
    """(n,) float64: ION of each face against its annotation, percent."""
    return nme(to_picture(faces.landmarks, crops.squares), crops.truth, crops.normaliser)


def parity(
    found: Points, expected: Points, crops: FaceCrops | None, spec: ModelSpec, against: Literal["torch", "onnx"]
) -> Parity:
    """Compares an artefact with its source."""
    head = head_of(spec)
    overall = _overall(head.gap(found.random, expected.random), against)
    if found.odd and expected.odd:
        odd = head.gap(found.odd, expected.odd)
        worst = max(overall.max_map or 0.0, odd.max_map or 0.0)
        overall = dataclasses.replace(_both(overall, odd.landmarks), max_map=worst)
    if crops is None or found.faces is None or expected.faces is None:
        return overall
    apart = head.gap(found.faces, expected.faces)
    faces, drifts = apart.landmarks, drift(found.faces, expected.faces, crops)
    return dataclasses.replace(
        _both(overall, faces),
        undecided=overall.undecided + apart.undecided,
        max_px_faces=faces.max_px,
        mean_px_faces=faces.mean_px,
        max_ion=float(drifts.max()),
        mean_ion=float(drifts.mean()),
    )


def _both(overall: Parity, other: Difference) -> Parity:
    """With the figures of other inputs."""
    n, total = other.n, other.n + overall.n
    return dataclasses.replace(
        overall,
        max_abs=max(overall.max_abs, other.max_abs),
        mean_abs=(overall.mean_abs * overall.n + other.mean_abs * n) / total,
        max_px=max(overall.max_px, other.max_px),
        mean_px=(overall.mean_px * overall.n + other.mean_px * n) / total,
        n=total,
    )


def _overall(apart: Gap, against: Literal["torch", "onnx", "reference"]) -> Parity:
    return Parity(
        against=against,
        max_map=apart.max_map,
        mean_map=apart.mean_map,
        undecided=apart.undecided,
        **dataclasses.asdict(apart.landmarks),
    )


def drift(found: Outputs, expected: Outputs, crops: FaceCrops) -> Float64:
    """(n,) float64: mean distance of the points of each face, as a percentage of what its scheme measures by."""
    moved = to_picture(found.landmarks, crops.squares) - to_picture(expected.landmarks, crops.squares)
    return nme(crops.truth + moved, crops.truth, crops.normaliser)


def reference_parity(session: Session, spec: ModelSpec, reference: Reference) -> Parity:
    """Compares an artefact with the outputs of its source that were kept when it was made."""
    return _overall(head_of(spec).gap(answer(session, spec, reference), reference.outputs), "reference")
