"""Differences between an artefact and its source network on the same inputs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from lmconv.building.acceptance import Network
from lmconv.console import phase
from lmconv.faces.crops import FaceCrops
from lmconv.inference.scenes import on_scenes
from lmconv.inference.session import chunk_size, noise, outputs
from lmconv.judging.nme import face_sizes, nme
from lmconv.networks import seeded
from lmconv.networks.compare import Difference
from lmconv.networks.heads import head_of
from lmconv.networks.interfaces import interface_of
from lmconv.networks.outputs import Gap, Outputs
from lmconv.networks.preprocess import network_input
from lmconv.networks.squares import to_picture
from lmconv.scheme import BOXES, scheme
from lmconv.store.reference import Reference, answer
from lmconv.types import Artifact, Float64, ModelSpec, Session


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Points:
    """Outputs of one network for the inputs on which networks are compared.

    Attributes:
        random: Outputs for 64 seeded random inputs, with heatmaps.
        faces: Outputs for n faces, without heatmaps; None without faces.
        odd: Outputs for 8 inputs of another size, with odd sides; None for a network with a fixed size.
    """

    random: Outputs
    faces: Outputs | None = None
    odd: Outputs | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Differences between an artefact and its source on the same inputs.

    Attributes:
        against: Source of the expected outputs: the PyTorch network, the ONNX file, or reference.npz.
        max_abs: Largest difference of a coordinate, fractions of the input, over random inputs and faces; for a
            detector largest difference of a raw number.
        mean_abs: Mean of the same.
        max_px: Largest distance of a point, pixels of the network's input; NaN for a detector.
        mean_px: Mean of the same.
        n: Number of inputs.
        max_px_faces: `max_px` on the faces only; None without faces.
        mean_px_faces: Mean of the same.
        max_ion: Largest drift of a face, ION points; None without faces.
        mean_ion: Mean drift, ION points.
        max_map: Largest difference of a heatmap value on random inputs, fractions of the range; None without heatmaps.
            For a detector largest difference of a raw number, fractions of the range of its output.
        mean_map: Mean of the same.
        scale: Largest absolute coordinate of the source, at least 1: limits on coordinates are multiplied by the scale.
        undecided: Number of points left out of all figures because rounding can move them, see
            `lmconv.networks.heatmaps.undecided` and `lmconv.inference.ties`.
        flush_denormal: True if the source is a PyTorch network, which runs with denormal numbers flushed to zero.
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
    scale: float = 1.0
    undecided: int = 0
    flush_denormal: bool = False


Run: TypeAlias = Callable[[Session], Outputs]
"""Function that runs a session on some inputs."""


def points(session: Session, spec: ModelSpec, crops: FaceCrops | None, *, frames: bool = False) -> Points:
    """Runs an artefact on the inputs on which networks are compared; see `runs`."""
    return Points(**{name: run(session) for name, run in runs(spec, crops, frames=frames).items()})


def runs(spec: ModelSpec, crops: FaceCrops | None, *, frames: bool = False, filled: bool = True) -> dict[str, Run]:
    """Returns the runs of a network on the inputs on which networks are compared, by their names in `Points`.

    Args:
        spec: Spec of the artefact or source.
        crops: The faces; None without faces.
        frames: True for boxes in seeded frames as random inputs: for an artefact that takes a frame, and for its
            source, whose crops the host cuts.
        filled: See `on_faces`.
    """
    count, seed = seeded.PARITY_INPUTS, seeded.PARITY_SEED

    def random(session: Session) -> Outputs:
        with phase("seeded inputs"):
            if frames:
                return on_scenes(session, spec, seeded.scenes(count, seed), maps=None)
            return outputs(session, spec, interface_of(spec).feed(seeded.noise_crops(spec, count, seed)))

    wanted: dict[str, Run] = {"random": random}
    if crops is not None:
        wanted["faces"] = functools.partial(on_faces, spec=spec, crops=crops, filled=filled)
    if spec.sample:
        wanted["odd"] = functools.partial(_odd, spec=spec)
    return wanted


def _odd(session: Session, spec: ModelSpec) -> Outputs:
    """Runs a network for pictures of any size on pictures with other sides than those of export and comparison."""
    height, width = spec.input_size
    other = replace(spec, sample=(height // 2 | 1, width // 2 | 1))
    return outputs(session, other, noise(other, 8, seeded.PARITY_SEED))


def on_faces(session: Session, spec: ModelSpec, crops: FaceCrops, *, filled: bool = True) -> Outputs:
    """Runs a network on faces, without keeping heatmaps; memory is that of one chunk.

    Args:
        session: A session on the network.
        spec: Spec of the artefact or source.
        crops: The faces.
        filled: True if the last of several chunks is filled with copies of its last face, for runtimes that compile a
            network anew for every number of inputs.
    """
    interface, count, size = interface_of(spec), len(crops.images), chunk_size(spec, spec.input_size)
    if interface.cuts_crops:
        return on_scenes(session, spec, crops.scenes())
    starts, parts = range(0, count, size), []
    with phase("chunk of faces", len(starts)) as chunk:
        for start in starts:
            chunk()
            faces = crops.images[start : start + size]
            room = size - len(faces) if filled and start else 0
            whole = np.concatenate([faces, faces[-1:].repeat(room, 0)]) if room else faces
            result = outputs(session, spec, interface.feed(whole), maps=0)
            parts.append(head_of(spec).first(result, len(faces)) if room else result)
    return head_of(spec).join(parts)


def errors(faces: Outputs, crops: FaceCrops) -> Float64:
    """Returns the ION of each face against its annotation: (n,) float64, percent."""
    return nme(to_picture(faces.landmarks, crops.squares), crops.truth, crops.normaliser)


def parity(
    actual: Points, expected: Points, crops: FaceCrops | None, spec: ModelSpec, against: Literal["torch", "onnx"]
) -> Parity:
    """Compares the outputs of an artefact with the outputs of its source."""
    head = head_of(spec)
    overall = _overall(head.gap(actual.random, expected.random), against)
    if actual.odd and expected.odd:
        odd = head.gap(actual.odd, expected.odd)
        worst = max(overall.max_map or 0.0, odd.max_map or 0.0)
        overall = dataclasses.replace(_both(overall, odd.landmarks), max_map=worst)
    if crops is None or actual.faces is None or expected.faces is None:
        return overall
    gap = head.gap(actual.faces, expected.faces)
    faces, drifts = gap.landmarks, drift(actual.faces, expected.faces, crops)
    return dataclasses.replace(
        _both(overall, faces),
        undecided=overall.undecided + gap.undecided,
        max_px_faces=faces.max_px,
        mean_px_faces=faces.mean_px,
        max_ion=float(drifts.max()),
        mean_ion=float(drifts.mean()),
    )


def settled(actual: Points, expected: Points, crops: FaceCrops | None, network: Network, artifact: Artifact) -> Points:
    """Returns the outputs of a source with its ties marked as undecided.

    Args:
        actual: Outputs of the artefact.
        expected: Outputs of the source for the same inputs.
        crops: The faces; None without faces.
        network: The source.
        artifact: The artefact.
    """
    rule = network.spec.preprocess
    pictures = seeded.noise_crops(network.spec, seeded.PARITY_INPUTS, seeded.PARITY_SEED)
    faces = expected.faces
    if crops and actual.faces and faces:
        faces = network.settled(artifact, actual.faces, faces, network_input(crops.images, rule))
    random = network.settled(artifact, actual.random, expected.random, network_input(pictures, rule))
    return dataclasses.replace(expected, random=random, faces=faces)


def _both(overall: Parity, other: Difference) -> Parity:
    """Merges the figures of further inputs into the overall figures."""
    n, total = other.n, other.n + overall.n
    return dataclasses.replace(
        overall,
        max_abs=max(overall.max_abs, other.max_abs),
        mean_abs=(overall.mean_abs * overall.n + other.mean_abs * n) / total,
        max_px=max(overall.max_px, other.max_px),
        mean_px=(overall.mean_px * overall.n + other.mean_px * n) / total,
        n=total,
        scale=max(overall.scale, other.scale),
    )


def _overall(gap: Gap, against: Literal["torch", "onnx", "reference"]) -> Parity:
    return Parity(
        against=against,
        max_map=gap.max_map,
        mean_map=gap.mean_map,
        undecided=gap.undecided,
        flush_denormal=against == "torch",
        **dataclasses.asdict(gap.landmarks),
    )


def drift(actual: Outputs, expected: Outputs, crops: FaceCrops) -> Float64:
    """Returns the mean distance of the points of each face: (n,) float64, percent of the normaliser.

    The faces may have another number of points than the outputs. Without a scheme for the number of points of the
    faces, the normaliser is `box-side`.
    """
    moved = to_picture(actual.landmarks, crops.squares) - to_picture(expected.landmarks, crops.squares)
    points = scheme(crops.truth.shape[1])
    sizes = face_sizes(crops.truth, points.normaliser(crops.normaliser) if points else BOXES["box-side"])
    drifts: Float64 = 100.0 * np.linalg.norm(moved, axis=-1).mean(axis=-1) / sizes
    return np.where(np.isfinite(drifts), drifts, np.inf)


def reference_parity(session: Session, spec: ModelSpec, reference: Reference) -> Parity:
    """Compares an artefact with the outputs of its source in reference.npz."""
    return _overall(head_of(spec).gap(answer(session, spec, reference), reference.outputs), "reference")
