"""Functions on sessions, and the seeded inputs that every comparison of networks begins with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lmconv.networks import heatmaps
from lmconv.networks.compare import Difference, difference, map_difference, raw_difference
from lmconv.networks.preprocess import network_input
from lmconv.networks.squares import around, to_crops
from lmconv.types import Arrays, Float32, ModelSpec, Session, Uint8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outputs:
    """What a network says of n inputs.

    Attributes:
        landmarks: (n, L, 2) float32, x before y, fractions of the input; L is 0 of a network for detection.
        heatmaps: (m, L, h, w) float32 of the first m inputs; None where they are not kept, or there are none.
        undecided: (n, L) bool, points whose heatmaps leave them to rounding; None for a network that gives points.
        raw: Of a network for detection all that it gives, (n, …) float32 by name; else empty.
    """

    landmarks: Float32
    heatmaps: Float32 | None = None
    undecided: NDArray[np.bool_] | None = None
    raw: Mapping[str, Float32] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """How far a network is from another.

    Attributes:
        landmarks: Of the points that the other's heatmaps decide, where it has any; of raw outputs, of them all.
        max_map: Largest difference of a heatmap's value, fractions of their range; None without heatmaps. Of raw
            outputs so, by the range of each; its mean is that of the one that is furthest off.
        mean_map: Its mean.
        undecided: How many points are left out.
    """

    landmarks: Difference
    max_map: float | None = None
    mean_map: float | None = None
    undecided: int = 0


def gap(found: Outputs, expected: Outputs, spec: ModelSpec) -> Gap:
    """Compares two networks on the same inputs."""
    if spec.detects:
        parts = [map_difference(found.raw[name], values) for name, values in expected.raw.items()]
        largest, means = zip(*parts, strict=True)
        return Gap(landmarks=raw_difference(found.raw, expected.raw), max_map=max(largest), mean_map=max(means))
    points, near = found.landmarks, expected.undecided
    if near is not None:
        points = np.where(near[..., None], expected.landmarks, points)
    apart = difference(points, expected.landmarks, spec.input_size)
    maps: tuple[float | None, float | None] = (None, None)
    if expected.heatmaps is not None and found.heatmaps is not None:
        maps = map_difference(found.heatmaps[: len(expected.heatmaps)], expected.heatmaps)
    return Gap(landmarks=apart, max_map=maps[0], mean_map=maps[1], undecided=0 if near is None else int(near.sum()))


PIXELS = 64 * 112 * 112
"""How many input pixels a chunk may have, so that memory grows neither with the inputs nor with their size."""


def landmarks(session: Session, spec: ModelSpec, inputs: Float32 | Uint8) -> Float32:
    """Runs a landmark network in chunks.

    Args:
        session: A session with output `landmarks`.
        spec: Its spec; a batch size fixed there is kept to by repeating the last input.
        inputs: (n, 3, H, W) float32 network inputs, or what else the spec's `takes` says.

    Returns:
        (n, L, 2) float32, x before y, fractions of the input's width and height.
    """
    return outputs(session, spec, inputs, maps=0).landmarks


def outputs(
    session: Session,
    spec: ModelSpec,
    inputs: Float32 | Uint8,
    *,
    frame: Uint8 | None = None,
    maps: int | None = None,
) -> Outputs:
    """Runs a network as `landmarks` does, and keeps the heatmaps of the first `maps` inputs, by default of all.

    An artefact that takes a `frame`, (H, W, 3) uint8, gets it with every chunk; `inputs` are then the (n, 4) boxes.
    """
    points, kept, near = [], [], []
    chunks = _chunks(session, spec, inputs, {} if frame is None else {"frame": frame})
    if spec.detects:
        found = [chunk for _, chunk in chunks]
        raw = {tensor.name: np.concatenate([part[tensor.name] for part in found]) for tensor in spec.outputs}
        return Outputs(landmarks=np.empty((len(inputs), 0, 2), np.float32), raw=raw)
    for start, chunk in chunks:
        points.append(chunk["landmarks"])
        if spec.heatmaps:
            near.append(heatmaps.undecided(chunk["heatmaps"], spec.heatmaps))
            kept.append(chunk["heatmaps"][: None if maps is None else max(0, maps - start)])
    return Outputs(
        landmarks=np.concatenate(points),
        heatmaps=np.concatenate(kept) if kept and maps != 0 else None,
        undecided=np.concatenate(near) if near else None,
    )


def joined(parts: Sequence[Outputs]) -> Outputs:
    """What a network said of inputs that it got in parts, at least one; with the heatmaps that were kept."""
    maps = [part.heatmaps for part in parts if part.heatmaps is not None]
    near = [part.undecided for part in parts if part.undecided is not None]
    return Outputs(
        landmarks=np.concatenate([part.landmarks for part in parts]),
        heatmaps=np.concatenate(maps) if maps else None,
        undecided=np.concatenate(near) if near else None,
    )


def _chunks(
    session: Session, spec: ModelSpec, inputs: Float32 | Uint8, beside: Arrays
) -> Iterator[tuple[int, dict[str, Float32]]]:
    height, width = inputs.shape[2:] if spec.detects else spec.input_size
    size = spec.batch or min(64, max(1, PIXELS // (height * width)))
    name = spec.takes[-1].name
    for start in range(0, len(inputs), size):
        chunk = inputs[start : start + size]
        padding = spec.batch - len(chunk) if spec.batch else 0
        padded = np.concatenate([chunk, np.repeat(chunk[-1:], padding, 0)]) if padding else chunk
        found = {key: value[: len(chunk)] for key, value in session.run({**beside, name: padded}).items()}
        yield start, found if spec.detects else found | {"landmarks": _fractions(found["landmarks"], spec, chunk)}


def _fractions(points: Float32, spec: ModelSpec, chunk: Float32 | Uint8) -> Float32:
    """An artefact's points as fractions of the crop, whatever their unit."""
    height, width = spec.input_size
    if spec.unit == "frame pixels":
        return to_crops(points, np.array([around(box, spec.crop) for box in chunk]))
    unit = np.array((width, height) if spec.unit == "crop pixels" else (1, 1), np.float32)
    return (points / unit).astype(np.float32, copy=False)


def feed(crops: Uint8, spec: ModelSpec) -> Float32 | Uint8:
    """From crops to what an artefact takes that takes crops, or the network's own input.

    Args:
        crops: (n, H, W, 3) uint8, BGR.
        spec: That of the artefact.

    Returns:
        (n, 3, H, W) float32; where the artefact takes images, (n, H, W, 3) uint8 in its order of colours.
    """
    if spec.io == "image":
        return in_colours(crops, spec)
    return network_input(crops, spec.preprocess)


def in_colours(pictures: Uint8, spec: ModelSpec) -> Uint8:
    """(..., 3) uint8 BGR in the order of colours that an artefact takes."""
    return pictures if spec.preprocess.colour == "BGR" else np.ascontiguousarray(pictures[..., ::-1])


def noise(spec: ModelSpec, count: int, seed: int) -> Float32:
    """Seeded network inputs: those of `noise_crops`, pre-processed.

    Returns:
        (count, 3, H, W) float32.
    """
    return network_input(noise_crops(spec, count, seed), spec.preprocess)


def noise_crops(spec: ModelSpec, count: int, seed: int) -> Uint8:
    """Seeded crops: random pixels in squares of 1, 2, 4 and 8.

    Returns:
        (count, H, W, 3) uint8, BGR.
    """
    height, width = spec.input_size
    random = np.random.default_rng(seed)
    images = np.empty((count, height, width, 3), np.uint8)
    for index in range(count):
        cell = 2 ** (index % 4)
        coarse = random.integers(0, 256, (-(-height // cell), -(-width // cell), 3), np.uint8)
        images[index] = coarse.repeat(cell, 0).repeat(cell, 1)[:height, :width]
    return images
