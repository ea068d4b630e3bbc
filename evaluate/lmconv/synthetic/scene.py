"""Paints the surroundings of a synthetic face: background, body, hair, ears; and occluders in front of the face.

In all functions, `outlines` are the curves of the face, pixels of the picture; `skin` is the colour of the skin, BGR, 0
to 1. The order of the calls of `rng.random` determines the picture.
"""

from __future__ import annotations

import math

import numpy as np

from lmconv.synthetic import head
from lmconv.synthetic.canvas import Canvas, Colour, ellipse, palette_colour
from lmconv.synthetic.head import Curves
from lmconv.synthetic.traits import Traits
from lmconv.types import Float64

HAIR = np.array(
    [
        [0.06, 0.06, 0.08],  # black
        [0.12, 0.17, 0.26],  # dark brown
        [0.18, 0.30, 0.45],  # brown
        [0.38, 0.62, 0.78],  # blond
        [0.60, 0.62, 0.64],  # grey
        [0.12, 0.26, 0.55],  # red
    ]
)
"""Palette of hair: BGR, 0 to 1."""
INK = np.zeros(3)


def paint_background(canvas: Canvas, traits: Traits[float], rng: np.random.Generator) -> None:
    """Paints a gradient of two colours, blots and bars."""
    side = canvas.side
    first, second = _mute(rng.random((2, 3)))
    slope = 2 * rng.random(2) - 1
    rows, columns = np.mgrid[0:side, 0:side] / side - 0.5
    gradient = np.clip(0.5 + slope[0] * columns + slope[1] * rows, 0, 1)[..., None]
    canvas.pixels += (first + gradient * (second - first)).astype(np.float32)
    for _ in range(int(traits.clutter)):
        values = rng.random(10)
        right = values[2] * 0.3 * side * np.array([math.cos(6.28 * values[3]), math.sin(6.28 * values[3])])
        down = (0.2 + values[4]) * right[::-1] * [-1, 1]
        blot = ellipse(values[:2] * side, right, down)
        canvas.fill(blot, _mute(values[5:8]), alpha=0.3 + 0.7 * values[8], soft=0.25 * values[9] ** 2)
    for values in rng.random((int(12 * max(traits.bars, 0.0)), 8)):
        ends = np.array([[values[0] - 0.5, -0.2], [values[0] + values[1] - 0.5, 1.2]]) * side
        canvas.stroke(
            ends if values[2] < 0.6 else ends[:, ::-1], _mute(values[3:6]), 0.4 * values[6], soft=0.03 * values[7]
        )


def _mute(colours: Float64) -> Float64:
    """Halves the saturation of colours, (..., 3) float64, BGR: random colours are brighter than real backgrounds."""
    return np.asarray(0.5 * colours + 0.5 * colours.mean(axis=-1, keepdims=True))


def hair_colour(traits: Traits[float]) -> Colour:
    """Returns the colour of the hair, BGR, 0 to 1; brows and beard derive from this colour."""
    return palette_colour(HAIR, traits.hair)


def paint_body(canvas: Canvas, traits: Traits[float], skin: Colour, rng: np.random.Generator) -> None:
    """Paints everything behind the face: long hair, shoulders, neck, skull and the sides of the head."""
    cloth, collar = _mute(rng.random((2, 3)) * 0.9)
    chin, is_bald = traits.chin, traits.hair_length < -0.3
    if traits.hair_length > 0.2:
        long = _project_symmetric(canvas, traits, (0.95, 0.0, -0.35), (0.9, 0.4 + traits.hair_length, -0.3))
        canvas.fill(long, hair_colour(traits), soft=0.03)
    shoulders = _project_symmetric(canvas, traits, (0.5, chin + 0.25, -0.4), (2.0, chin + 0.8, -0.4), (2.3, 6.0, -0.4))
    canvas.fill(shoulders, cloth, soft=0.01)
    nape, throat = (0.58, 0.5, -0.3), (0.0, chin + 0.75, 0.1)
    neck = _project_symmetric(canvas, traits, nape, (0.52, chin + 0.1, -0.2), (0.7, chin + 0.45, -0.2), throat)
    canvas.fill(neck, skin * 0.72, soft=0.01)
    canvas.stroke(neck[[2, 3, 5]], collar, 0.05, soft=0.01)
    centre, right, up = _project(
        canvas, traits, (0.0, -0.2, -0.3), (1.244 * traits.width, -0.2, -0.3), (0.0, -0.47 - traits.forehead, -0.3)
    )
    skull = ellipse(centre, right - centre, up - centre)
    canvas.fill(skull, skin * 0.9 if is_bald else hair_colour(traits), soft=0.015)
    for sign in (-1.0, 1.0):
        if sign * traits.yaw <= 12:  # not turned away
            _paint_temple(canvas, traits, skin, sign)


def _paint_temple(canvas: Canvas, traits: Traits[float], skin: Colour, sign: float) -> None:
    """Paints one side of the head: the area between jaw line and hair, and the ear.

    Args:
        canvas: The picture.
        traits: Traits of the face.
        skin: Colour of the skin, (3,) float64, BGR, 0 to 1.
        sign: -1 for the left side of the picture, 1 for the right side.
    """
    wide = sign * traits.width
    above, back = (wide, -0.35, 0.2), (1.02 * wide, 0.0, -0.25)
    side = _project(canvas, traits, above, back, (wide, 0.5, -0.2), (0.9 * wide, 0.75, 0.1), (0.8 * wide, 0.2, 0.4))
    canvas.fill(side, skin * 0.88, soft=0.015)
    if traits.hair_length < 0.75:
        tip = (wide + 0.13 * sign, 0.12, -0.3)
        middle, out, down = _project(canvas, traits, (1.04 * wide, 0.16, -0.18), tip, (wide, 0.42, -0.2))
        out, down = out - middle, down - middle
        canvas.fill(ellipse(middle, out, down), skin * 0.86, soft=0.01)
        canvas.stroke(ellipse(middle, 0.6 * out, 0.6 * down)[:30], skin * 0.55, 0.02, soft=0.01)


def _project(canvas: Canvas, traits: Traits[float], *corners: tuple[float, float, float]) -> Float64:
    """Projects corners in the head's frame; returns (n, 2) float64, pixels."""
    return head.project(np.array(corners), traits, canvas.side)


def _project_symmetric(canvas: Canvas, traits: Traits[float], *corners: tuple[float, float, float]) -> Float64:
    """Projects a symmetric outline; `corners` are one half, to which the mirrored half is appended in reverse."""
    return _project(canvas, traits, *corners, *((-x, y, z) for x, y, z in corners[::-1]))


def paint_hair(canvas: Canvas, traits: Traits[float], outlines: Curves, rng: np.random.Generator) -> None:
    """Paints the hair line on the forehead, a fringe and strands."""
    colour = hair_colour(traits)
    if traits.hair_length < -0.3:
        return
    forehead = outlines["forehead"]
    height = np.sin(np.linspace(0, math.pi, len(forehead))) ** 2
    depth = 0.10 + 0.10 * traits.hair_line + 0.6 * max(traits.fringe, 0.0)
    ragged = 1 + 0.25 * np.interp(np.arange(len(forehead)), np.arange(0, 97, 8), rng.random(13) - 0.5)
    down = head.project(np.array([[0, 1.0, 0.3], [0, 0, 0.3]]), traits, canvas.side)
    edge = forehead + (down[0] - down[1]) * np.maximum(depth * height * ragged, 0.01)[:, None]
    canvas.fill(np.concatenate([forehead, edge[::-1]]), colour, soft=0.02)
    for values in rng.random((10, 4)):
        root = int(values[0] * 88)
        start, stop = forehead[root], edge[root + int(values[1] * 8)]
        canvas.stroke(np.stack([start, stop]), colour * (0.7 + 0.8 * values[2]), 0.02, alpha=0.4, soft=0.015)


def paint_occluders(
    canvas: Canvas, traits: Traits[float], outlines: Curves, skin: Colour, rng: np.random.Generator
) -> None:
    """Paints glasses or sunglasses, and a hand in front of the face."""
    if traits.glasses > 0 or traits.shades > 0:
        _paint_glasses(canvas, traits, rng)
    if traits.hand > 0:
        _paint_hand(canvas, outlines, skin, rng)


def _paint_glasses(canvas: Canvas, traits: Traits[float], rng: np.random.Generator) -> None:
    """Paints frame, lenses, bridge and the visible temples of glasses or sunglasses."""
    frame = rng.random(3) * (0.3 if rng.random() < 0.7 else 0.9)
    size, width, square = rng.random(3)
    half, high = 0.20 + 0.06 * size, 0.14 + 0.07 * size
    angle = np.linspace(0, 2 * math.pi, 48)
    power = 0.5 + 0.5 * square
    for sign in (-1.0, 1.0):
        x = (
            sign * (traits.eye_inner + traits.eye_width / 2 + 0.02)
            + half * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
        )
        y = 0.03 + high * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
        space = np.stack([x, y, traits.depth + 0.10 - 0.15 * x**2], axis=1)
        glass = head.project(space, traits, canvas.side)
        canvas.fill(glass, frame * 0.5 if traits.shades > 0 else frame + 0.3, alpha=0.92 if traits.shades > 0 else 0.08)
        canvas.stroke(glass, frame, 0.02 + 0.04 * width)
        temple = np.array([[sign * 0.56, 0.0, traits.depth + 0.03], [sign * (traits.width + 0.05), 0.02, -0.1]])
        if sign * traits.yaw < 0 or abs(traits.yaw) < 8:
            canvas.stroke(head.project(temple, traits, canvas.side), frame, 0.03 + 0.02 * width)
    bridge = np.array(
        [[-0.12, 0.0, traits.depth + 0.12], [0, -0.03, traits.depth + 0.16], [0.12, 0.0, traits.depth + 0.12]]
    )
    canvas.stroke(head.project(bridge, traits, canvas.side), frame, 0.02 + 0.03 * width)


def _paint_hand(canvas: Canvas, outlines: Curves, skin: Colour, rng: np.random.Generator) -> None:
    """Paints four fingers and a palm that reach from the contour of the face towards the mouth."""
    jaw = outlines["jaw"]
    start = jaw[int(rng.random() * 96)]
    inwards = outlines["lips_top"][48] - start
    across = inwards[::-1] * [-1, 1] / (np.linalg.norm(inwards) + 1e-9) * canvas.unit
    palm = start - 0.5 * inwards
    tone = skin * (0.8 + 0.2 * rng.random())
    canvas.fill(ellipse(palm, 0.55 * inwards, 0.42 * across), tone * 0.95, soft=0.015)
    for finger in range(4):
        foot = start + (finger - 1.5) * 0.19 * across
        tip = foot + (0.35 + 0.25 * rng.random()) * inwards
        canvas.stroke(np.stack([palm, foot, tip]), tone * 0.7, 0.21, soft=0.01)
        canvas.stroke(np.stack([palm, foot, tip]), tone, 0.18, soft=0.01)
