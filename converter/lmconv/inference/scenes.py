"""Runs sessions on the faces of frames, whether the artefact or the host cuts the crops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from lmconv.inference.session import outputs
from lmconv.networks.heads import head_of
from lmconv.networks.interfaces import interface_of
from lmconv.networks.outputs import Outputs
from lmconv.networks.seeded import Scene
from lmconv.networks.squares import Square, to_picture
from lmconv.types import Float32, Float64, ModelSpec, Session, Uint8


def on_scene(session: Session, spec: ModelSpec, scene: Scene, *, maps: int | None = 0) -> Outputs:
    """Runs a network on the faces of a frame.

    Args:
        session: The session.
        spec: Spec of the artefact.
        scene: The frame and its boxes.
        maps: Number of faces for which heatmaps are kept; None for all.
    """
    interface = interface_of(spec)
    inputs = interface.of_scene(scene)
    return outputs(session, spec, inputs[interface.batched], frame=inputs.get("frame"), maps=maps)


def on_scenes(session: Session, spec: ModelSpec, scenes: Iterable[Scene], *, maps: int | None = 0) -> Outputs:
    """Runs a network on the faces of frames, one frame after the other; `maps` counts the faces of each frame."""
    return head_of(spec).join([on_scene(session, spec, scene, maps=maps) for scene in scenes])


def on_squares(session: Session, spec: ModelSpec, picture: Uint8, squares: Sequence[Square]) -> Float64:
    """Runs a network on the faces in squares of a picture.

    Args:
        session: A session with the output `landmarks`.
        spec: Spec of the artefact.
        picture: (H, W, 3) uint8, BGR.
        squares: Squares around the faces, pixels of the picture.

    Returns:
        (n, L, 2) float64, pixels of the picture, x before y.
    """
    if not squares:
        return np.empty((0, spec.landmarks, 2))
    interface = interface_of(spec)
    inputs, cut_squares = interface.of_squares(picture, squares)
    result = outputs(session, spec, inputs[interface.batched], frame=inputs.get("frame"), maps=0)
    return to_picture(result.landmarks, np.array(cut_squares))


def landmarks_in(session: Session, spec: ModelSpec, scene: Scene) -> Float32 | Float64:
    """Computes landmarks from a frame and boxes, with all work of the host.

    Returns:
        (n, L, 2) float, pixels of the frame, x before y.
    """
    return whole_way(session, spec, scene)()


def whole_way(session: Session, spec: ModelSpec, scene: Scene) -> Callable[[], Float32 | Float64]:
    """Returns a function that computes landmarks from a frame and boxes, ready to be timed.

    An artefact that takes a frame gets the frame in its own order of colours, prepared beforehand.
    """
    interface = interface_of(spec)
    prepared = interface.prepared(scene)
    return lambda: interface.in_picture(session.run(prepared())["landmarks"], scene)
