"""Frames with faces in them: what an artefact takes that cuts faces out itself, and the same on the host."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from lmconv.inference.session import Outputs, feed, in_colours, joined, outputs
from lmconv.networks.squares import Square, around, cut, to_picture
from lmconv.types import Arrays, Crop, Float32, Float64, ModelSpec, Session, Uint8

SIZE = (480, 640)
"""Height and width of a seeded frame, pixels."""
FACES = 8
"""Boxes in one."""
SIDES = (20.0, 400.0)
"""Smallest and largest side of these boxes, pixels: crops are made larger, smaller, and reach beyond the border."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """One frame and the boxes around its faces.

    Attributes:
        frame: (H, W, 3) uint8, BGR.
        boxes: (n, 4) float32: x1, y1, x2, y2, pixels of the frame; n at least 1.
    """

    frame: Uint8
    boxes: Float32

    def squares(self, crop: Crop) -> list[Square]:
        """The squares around the boxes."""
        return [around(box.tolist(), crop) for box in self.boxes]

    def crops(self, spec: ModelSpec) -> Uint8:
        """(n, h, w, 3) uint8, BGR: the squares, cut out on the host."""
        return np.stack([cut(self.frame, square, spec.input_size) for square in self.squares(spec.crop)])


def seeded(count: int, seed: int) -> Iterator[Scene]:
    """`count` boxes in all, `FACES` in a frame, of random pixels in squares of 2, 4, 8 and 16."""
    for index, start in enumerate(range(0, count, FACES)):
        yield scene(min(FACES, count - start), (seed, index), cell=2 ** (1 + index % 4))


def scene(count: int, seed: int | tuple[int, int], *, cell: int = 4, size: tuple[int, int] = SIZE) -> Scene:
    """One frame of random pixels in squares of `cell`, with `count` boxes of random places and sizes."""
    random = np.random.default_rng(seed)
    height, width = size
    coarse = random.integers(0, 256, (-(-height // cell), -(-width // cell), 3), np.uint8)
    centres = random.random((count, 2)) * (width, height)
    halves = SIDES[0] * (SIDES[1] / SIDES[0]) ** random.random((count, 2)) / 2
    return Scene(
        frame=np.ascontiguousarray(coarse.repeat(cell, 0).repeat(cell, 1)[:height, :width]),
        boxes=np.concatenate([centres - halves, centres + halves], 1).astype(np.float32),
    )


def taken(scene: Scene, spec: ModelSpec) -> Arrays:
    """What an artefact takes of a scene, by name."""
    if spec.io == "frame":
        return {"frame": in_colours(scene.frame, spec), "boxes": scene.boxes}
    return {spec.takes[0].name: feed(scene.crops(spec), spec)}


def on_scene(session: Session, spec: ModelSpec, scene: Scene, *, maps: int | None = 0) -> Outputs:
    """Runs a network on the faces of a frame; where it takes none, they are cut out on the host."""
    inputs = taken(scene, spec)
    return outputs(session, spec, inputs[spec.takes[-1].name], frame=inputs.get("frame"), maps=maps)


def on_scenes(session: Session, spec: ModelSpec, scenes: Iterable[Scene], *, maps: int | None = 0) -> Outputs:
    """Runs a network on the faces of frames, one frame after the other; keeps the first `maps` heatmaps of each."""
    return joined([on_scene(session, spec, scene, maps=maps) for scene in scenes])


def landmarks_in(session: Session, spec: ModelSpec, scene: Scene) -> Float32 | Float64:
    """The whole way from a frame and boxes to landmarks, whatever of it is in the graph and whatever on the host.

    Returns:
        (n, L, 2), pixels of the frame, x before y.
    """
    if spec.io == "frame":
        return run_frame(session, taken(scene, spec))
    points: Float32 = session.run(taken(scene, spec))["landmarks"]
    height, width = spec.input_size
    unit = np.array((width, height) if spec.unit == "crop pixels" else (1, 1), np.float32)
    return to_picture(points / unit, np.array(scene.squares(spec.crop)))


def run_frame(session: Session, inputs: Arrays) -> Float32:
    """Runs an artefact that takes a frame."""
    points: Float32 = session.run(inputs)["landmarks"]
    return points


def whole_way(session: Session, spec: ModelSpec, scene: Scene) -> Callable[[], Float32 | Float64]:
    """`landmarks_in`, ready to be timed: a frame is there in the order of colours that its artefact takes."""
    if spec.io == "frame":
        return functools.partial(run_frame, session, taken(scene, spec))
    return functools.partial(landmarks_in, session, spec, scene)
