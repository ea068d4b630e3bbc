"""A drawn face: the picture and its points."""

from __future__ import annotations

import cv2
import numpy as np

from lmconv.synthetic import features, head, scene
from lmconv.synthetic.canvas import Canvas
from lmconv.synthetic.traits import HELD_OUT, TRAIN, Range, Traits, draw
from lmconv.types import Float64, Uint8

SIDE = 256
SPLITS: dict[str, Traits[Range]] = {"trainset": TRAIN, "testset": HELD_OUT}


def stream(seed: int, split: str, number: int) -> np.random.Generator:
    """The random numbers of one face of `"trainset"` or `"testset"`; they do not depend on how many are drawn."""
    return np.random.default_rng([seed, list(SPLITS).index(split), number])


def face(
    ranges: Traits[Range], random: np.random.Generator, *, points: int = 68, side: int = SIDE
) -> tuple[Uint8, Float64]:
    """Draws one face of a population: the same stream gives the same numbers.

    Args:
        ranges: `TRAIN`, `HELD_OUT` or others.
        random: Only its `random` is called.
        points: 68 (iBUG) or 98 (WFLW).
        side: Of the picture, pixels.

    Returns:
        (side, side, 3) uint8, BGR; (points, 2) float64, pixels, x before y, as 300-W stores them: the centre of the
        first pixel is (1, 1).
    """
    traits = draw(ranges, random)
    outlines = head.curves(traits, side)
    return paint(traits, outlines, random, side), head.landmarks(outlines, points) + 1


def paint(traits: Traits[float], outlines: head.Curves, random: np.random.Generator, side: int = SIDE) -> Uint8:
    """(side, side, 3) uint8, BGR: a face along its outlines, with all that is behind and before it."""
    canvas = Canvas(side, head.unit(traits, side))
    skin = features.colour_of_skin(traits)
    scene.background(canvas, traits, random)
    scene.body(canvas, traits, skin, random)
    features.face(canvas, traits, outlines, skin, random)
    scene.hair(canvas, traits, outlines, random)
    scene.hidden(canvas, traits, outlines, skin, random)
    _develop(canvas, traits, random)
    noise = traits.noise * 1.73 * (2 * random.random((side, side, 3)) - 1)
    return canvas.finished(noise, traits.blur * side)


def _develop(canvas: Canvas, traits: Traits[float], random: np.random.Generator) -> None:
    """Uneven skin and cloth, exposure, colour or the lack of it."""
    coarse = (random.random((12, 12)) - 0.5).astype(np.float32)
    uneven = cv2.resize(coarse, (canvas.side, canvas.side), interpolation=cv2.INTER_CUBIC)
    canvas.shade(np.asarray(traits.exposure * (1 + 0.15 * uneven), np.float32))
    grey = canvas.pixels @ np.array([0.114, 0.587, 0.299], np.float32)
    canvas.pixels = grey[..., None] + np.float32(traits.saturation) * (canvas.pixels - grey[..., None])
