"""Draws one synthetic face: the picture and its landmarks."""

from __future__ import annotations

import cv2
import numpy as np

from lmconv.synthetic import features, head, scene
from lmconv.synthetic.canvas import Canvas
from lmconv.synthetic.traits import HELD_OUT, TRAIN, Range, Traits, sample
from lmconv.types import Float64, Uint8

SIDE = 256
"""Default side of a picture, pixels."""
SPLITS: dict[str, Traits[Range]] = {"trainset": TRAIN, "testset": HELD_OUT}
"""Ranges of the traits of each split."""


def stream(seed: int, split: str, number: int) -> np.random.Generator:
    """Returns the random generator of one face, which does not depend on the number of faces drawn.

    Args:
        seed: Seed of all faces, at least 0.
        split: "trainset" or "testset".
        number: Index of the face within the split.
    """
    return np.random.default_rng([seed, list(SPLITS).index(split), number])


def face(
    ranges: Traits[Range], rng: np.random.Generator, *, points: int = 68, side: int = SIDE
) -> tuple[Uint8, Float64]:
    """Draws one face of a population; the same generator state gives the same face.

    Args:
        ranges: Ranges of the traits: `TRAIN`, `HELD_OUT` or others.
        rng: Random generator; only its method `random` is called.
        points: Number of landmarks: 68 (iBUG) or 98 (WFLW).
        side: Side of the picture, pixels.

    Returns:
        (side, side, 3) uint8, BGR; and (points, 2) float64, pixels, x before y, in the convention of 300-W: the centre
        of the first pixel is (1, 1).
    """
    traits = sample(ranges, rng)
    outlines = head.curves(traits, side)
    return paint(traits, outlines, rng, side), head.landmarks(outlines, points) + 1


def paint(traits: Traits[float], outlines: head.Curves, rng: np.random.Generator, side: int = SIDE) -> Uint8:
    """Paints a face along its outlines, with background, body, hair and occluders.

    Args:
        traits: Traits of the face.
        outlines: Curves of the face, see `head.curves`.
        rng: Random generator.
        side: Side of the picture, pixels.

    Returns:
        (side, side, 3) uint8, BGR.
    """
    canvas = Canvas(side, head.unit(traits, side))
    skin = features.skin_colour(traits)
    scene.paint_background(canvas, traits, rng)
    scene.paint_body(canvas, traits, skin, rng)
    features.paint_face(canvas, traits, outlines, skin, rng)
    scene.paint_hair(canvas, traits, outlines, rng)
    scene.paint_occluders(canvas, traits, outlines, skin, rng)
    _apply_exposure(canvas, traits, rng)
    noise = traits.noise * 1.73 * (2 * rng.random((side, side, 3)) - 1)  # 1.73: sqrt(3), for uniform noise
    return canvas.render(noise, traits.blur * side)


def _apply_exposure(canvas: Canvas, traits: Traits[float], rng: np.random.Generator) -> None:
    """Makes skin and cloth uneven, and applies exposure and saturation."""
    coarse = (rng.random((12, 12)) - 0.5).astype(np.float32)
    uneven = cv2.resize(coarse, (canvas.side, canvas.side), interpolation=cv2.INTER_CUBIC)
    canvas.shade(np.asarray(traits.exposure * (1 + 0.15 * uneven), np.float32))
    grey = canvas.pixels @ np.array([0.114, 0.587, 0.299], np.float32)
    canvas.pixels = grey[..., None] + np.float32(traits.saturation) * (canvas.pixels - grey[..., None])
