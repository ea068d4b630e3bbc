"""Paints a synthetic face: skin, eyes, brows, nose, mouth and beard.

Every edge follows the curves of `lmconv.synthetic.head`. In all functions, `outlines` are the curves of the face,
pixels of the picture; `skin` is the colour of the skin, BGR, 0 to 1; `face_mask` is (side, side) float32, 1 inside the
face.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from lmconv.synthetic import head
from lmconv.synthetic.canvas import Canvas, Colour, ellipse, palette_colour
from lmconv.synthetic.head import Curves
from lmconv.synthetic.scene import INK, hair_colour
from lmconv.synthetic.traits import Traits
from lmconv.types import Float32, Float64

SKIN = np.array(
    [
        [0.76, 0.84, 0.96],  # light
        [0.64, 0.75, 0.92],
        [0.50, 0.64, 0.84],
        [0.36, 0.50, 0.72],
        [0.22, 0.33, 0.52],
        [0.13, 0.20, 0.34],  # dark
    ]
)
"""Palette of skins: BGR, 0 to 1."""
IRIS = np.array([[0.08, 0.14, 0.24], [0.15, 0.28, 0.42], [0.25, 0.40, 0.35], [0.60, 0.48, 0.30], [0.55, 0.52, 0.48]])
"""Palette of irises: dark brown, brown, green, blue, grey; BGR, 0 to 1."""
WHITE = np.array([0.88, 0.90, 0.92])


def skin_colour(traits: Traits[float]) -> Colour:
    """Returns the colour of the skin: from the palette, made warmer or colder."""
    return np.asarray(np.clip(palette_colour(SKIN, traits.tone) + traits.warmth * np.array([-1.0, 0.0, 1.0]), 0, 1))


def contour(outlines: Curves) -> Float64:
    """Returns the outline of the face, (n, 2) float64, pixels: along the jaw and back over the forehead."""
    return np.concatenate([outlines["jaw"], outlines["forehead"][1:-1]])


def paint_face(canvas: Canvas, traits: Traits[float], outlines: Curves, skin: Colour, rng: np.random.Generator) -> None:
    """Paints the whole face, from the skin to the beard."""
    edge = contour(outlines)
    canvas.fill(edge, skin)
    face_mask = canvas.mask(edge)
    _paint_relief(canvas, traits, outlines, skin, face_mask)
    _paint_nose(canvas, traits, outlines, skin, face_mask)
    _paint_mouth(canvas, traits, outlines, skin)
    for side in ("right", "left"):
        _paint_eye(canvas, traits, outlines, skin, side)
        _paint_brow(canvas, traits, outlines, side, rng)
    if traits.beard > 0:
        _paint_beard(canvas, traits, outlines, face_mask)
    _paint_light(canvas, traits, face_mask, edge)


def _project(canvas: Canvas, traits: Traits[float], *points: tuple[float, float]) -> Float64:
    """Projects points of the front view, lifted to the surface of the face; returns (n, 2) float64, pixels."""
    return head.project(head.lift(np.array(points), traits), traits, canvas.side)


def _ellipse_at(canvas: Canvas, traits: Traits[float], x: float, y: float, width: float, height: float) -> Float64:
    """Returns the outline of an ellipse on the face; centre and half axes are given in the front view."""
    centre, right, down = _project(canvas, traits, (x, y), (x + width, y), (x, y + height))
    return ellipse(centre, right - centre, down - centre)


def _paint_relief(canvas: Canvas, traits: Traits[float], outlines: Curves, skin: Colour, face_mask: Float32) -> None:
    """Paints the relief under light from above: dark sockets and folds, bright forehead and cheeks."""
    blood = skin * np.array([0.80, 0.84, 1.04])
    for sign in (-1.0, 1.0):
        eye = sign * (traits.eye_inner + traits.eye_width / 2)
        canvas.fill(
            _ellipse_at(canvas, traits, eye, -0.04, 0.24, 0.15), skin * 0.66, alpha=0.55, soft=0.07, mask=face_mask
        )
        canvas.fill(
            _ellipse_at(canvas, traits, sign * 0.45, 0.42, 0.18, 0.15), blood, alpha=0.6, soft=0.10, mask=face_mask
        )
        canvas.fill(
            _ellipse_at(canvas, traits, sign * 0.42, 0.30, 0.16, 0.08),
            np.minimum(skin * 1.15, 1),
            alpha=0.5,
            soft=0.07,
            mask=face_mask,
        )
        corner = sign * (traits.mouth_width + 0.10)
        fold = _project(
            canvas,
            traits,
            (sign * traits.nose_width * 1.1, traits.nose_length - 0.06),
            (corner * 0.88, traits.mouth_height - 0.16),
            (corner, traits.mouth_height),
        )
        strength = 0.15 + 0.3 * traits.age + 0.3 * max(traits.smile, 0.0)
        canvas.stroke(fold, skin * 0.62, 0.03, alpha=strength, soft=0.025, mask=face_mask)
        bag = (
            outlines[f"lid_low_{'right' if sign < 0 else 'left'}"]
            + (outlines["bridge"][96] - outlines["bridge"][0]) * 0.16
        )
        canvas.stroke(bag, skin * 0.7, 0.02, alpha=0.15 + 0.4 * traits.age, soft=0.02, mask=face_mask)
    canvas.fill(
        _ellipse_at(canvas, traits, 0, -0.42, 0.35, 0.14),
        np.minimum(skin * 1.15, 1),
        alpha=0.5,
        soft=0.12,
        mask=face_mask,
    )
    lip = outlines["lips_low"][48]
    chin = outlines["jaw"][48]
    middle = lip + 0.22 * (chin - lip)
    across = outlines["lips_low"][0] - outlines["lips_low"][96]
    canvas.fill(ellipse(middle, 0.22 * across, 0.12 * (chin - lip)), skin * 0.68, alpha=0.5, soft=0.04, mask=face_mask)


def _paint_light(canvas: Canvas, traits: Traits[float], face_mask: Float32, edge: Float64) -> None:
    """Shades the face as a round head under light from one side; the face darkens towards its contour."""
    centre = edge.mean(axis=0)
    rows, columns = np.mgrid[0 : canvas.side, 0 : canvas.side].astype(np.float32)
    ramp = ((columns - centre[0]) * traits.light_x + (rows - centre[1]) * traits.light_y) / (0.8 * canvas.unit)
    factor = 1 + traits.light * np.clip(0.6 * ramp - 0.25, -1, 0.3)
    inner = np.asarray(cv2.GaussianBlur(face_mask, (0, 0), max(0.14 * canvas.unit, 0.3)), np.float32)
    falloff = 1 - (0.25 + 0.5 * traits.light) * face_mask * np.clip(1.6 - 1.7 * inner, 0, 1)
    canvas.shade((factor * falloff).astype(np.float32))


def _paint_nose(canvas: Canvas, traits: Traits[float], outlines: Curves, skin: Colour, face_mask: Float32) -> None:
    """Paints the side of the nose in the shade, its bright ridge, its wings and nostrils."""
    bridge, base = outlines["bridge"], outlines["nostrils"]
    tip, low = bridge[96], base[48]
    for side, wing in ((-1.0, base[0]), (1.0, base[96])):
        shaded = 0.25 + 0.6 * traits.light * max(-side * traits.light_x, 0.0) - (0.2 if side * traits.yaw > 10 else 0.0)
        flank = [bridge[0], bridge[60], tip, base[48 + int(side * 20)], wing, 0.75 * wing + 0.25 * bridge[0]]
        canvas.fill(np.stack(flank), skin * 0.6, alpha=max(shaded, 0.1), soft=0.03, mask=face_mask)
        round_ = 0.5 * wing + 0.5 * tip
        arc = np.stack(
            [0.3 * tip + 0.7 * wing + 0.35 * (tip - low), wing + 0.45 * (tip - low), wing, 0.8 * wing + 0.2 * low]
        )
        canvas.stroke(arc, skin * 0.5, 0.028, alpha=0.75, soft=0.012)
        hole = 0.52 * base[48 + int(side * 24)] + 0.3 * low + 0.18 * wing + 0.12 * (tip - low)
        canvas.fill(ellipse(hole, 0.28 * (wing - low), 0.16 * (low - round_)), skin * 0.22, alpha=0.85, soft=0.012)
    canvas.stroke(bridge[8:], np.minimum(skin * 1.22, 1), 0.06, alpha=0.55, soft=0.025)
    canvas.fill(
        ellipse(tip, 0.25 * (base[96] - base[0]), 0.4 * (low - tip)), np.minimum(skin * 1.15, 1), alpha=0.5, soft=0.04
    )
    canvas.stroke(base[12:85], skin * 0.45, 0.025, alpha=0.7, soft=0.015)
    shadow = base + 0.35 * (low - tip)
    canvas.stroke(shadow[16:81], skin * 0.62, 0.06, alpha=0.4, soft=0.03)


def _paint_mouth(canvas: Canvas, traits: Traits[float], outlines: Curves, skin: Colour) -> None:
    """Paints the lips between the outer and the inner contour; inside the inner contour, teeth and tongue on dark."""
    red = skin * (1 - traits.lipstick) + np.array([0.30, 0.28, 0.72]) * traits.lipstick
    lips = 0.35 * skin + 0.65 * red * np.array([0.74, 0.70, 0.92])
    top, low = outlines["lips_top"], outlines["lips_low"]
    canvas.fill(np.concatenate([top, low]), lips, soft=0.006)
    inner_top, inner_low = outlines["mouth_top"], outlines["mouth_low"]
    canvas.fill(np.concatenate([top, inner_top[::-1]]), lips * 0.82, soft=0.006)
    canvas.stroke(0.5 * (low + inner_low)[30:67], np.minimum(lips * 1.35, 1), 0.04, alpha=0.35, soft=0.025)
    mouth = np.concatenate([inner_top, inner_low])
    canvas.fill(mouth, np.array([0.08, 0.06, 0.16]))
    if traits.mouth_open > 0.03:
        inside = canvas.mask(mouth)
        drop = np.clip(0.45 - 0.5 * traits.mouth_open, 0.2, 0.45)
        teeth = np.concatenate([inner_top, inner_top[::-1] + drop * (inner_low - inner_top[::-1])])
        canvas.fill(teeth, WHITE * 0.93, alpha=0.95, soft=0.01, mask=inside)
        tongue = np.concatenate([inner_low, inner_low[::-1] + 0.3 * (inner_top - inner_low[::-1])])
        canvas.fill(tongue, np.array([0.30, 0.28, 0.62]), alpha=0.7, soft=0.02, mask=inside)
    canvas.stroke(inner_top, lips * 0.35, 0.022, alpha=0.8, soft=0.008)


def _paint_eye(canvas: Canvas, traits: Traits[float], outlines: Curves, skin: Colour, side: str) -> None:
    """Paints white, iris and pupil between the lids, and lashes and fold of the upper lid."""
    top, low = outlines[f"lid_top_{side}"], outlines[f"lid_low_{side}"]
    pupil = outlines[f"pupil_{side}"][0]
    slit = np.concatenate([top, low])
    inside = canvas.mask(slit)
    canvas.fill(slit, WHITE * (0.75 + 0.2 * skin))
    across = (top[96] - top[0]) / 2
    length = float(np.linalg.norm(across))
    iris = 0.42 * across if length > 0 else np.array([1.0, 0.0])
    upright = 0.42 * traits.eye_width / 2 * canvas.unit * _down_vector(traits)
    canvas.fill(ellipse(pupil, iris, upright), palette_colour(IRIS, traits.iris), mask=inside)
    canvas.stroke(ellipse(pupil, iris, upright), palette_colour(IRIS, traits.iris) * 0.4, 0.012, mask=inside)
    canvas.fill(ellipse(pupil, 0.45 * iris, 0.45 * upright), INK + 0.03, mask=inside)
    canvas.fill(
        ellipse(pupil + 0.35 * (iris * np.sign(traits.light_x or 1) - upright), 0.2 * iris, 0.2 * upright),
        WHITE + 0.1,
        mask=inside,
    )
    canvas.stroke(top, skin * 0.2, 0.03, alpha=0.9, soft=0.006)
    canvas.stroke(low, skin * 0.45, 0.016, alpha=0.7, soft=0.006)
    lifted = top - 0.06 * canvas.unit * _down_vector(traits)
    canvas.stroke(lifted[6:90], skin * 0.5, 0.02, alpha=0.6, soft=0.012)


def _down_vector(traits: Traits[float]) -> Float64:
    """Returns the unit vector from forehead to chin in the picture, (2,) float64: roll only."""
    roll = math.radians(traits.roll)
    return np.array([-math.sin(roll), math.cos(roll)])


def _paint_brow(canvas: Canvas, traits: Traits[float], outlines: Curves, side: str, rng: np.random.Generator) -> None:
    """Paints a brow and some hairs across the brow."""
    top, low = outlines[f"brow_top_{side}"], outlines[f"brow_low_{side}"]
    colour = hair_colour(traits) * 0.8
    canvas.fill(np.concatenate([top, low]), colour, alpha=0.75, soft=0.012)
    for values in rng.random((8, 3)):
        root, end = low[int(96 * values[0])], top[95 - int(80 * values[0])]
        canvas.stroke(np.stack([root, end]), colour * (0.5 + values[1]), 0.015, alpha=0.6, soft=0.006)


def _paint_beard(canvas: Canvas, traits: Traits[float], outlines: Curves, face_mask: Float32) -> None:
    """Paints a beard around the mouth, from stubble to a full beard, and a moustache."""
    colour = hair_colour(traits)
    jaw, lips = outlines["jaw"], np.concatenate([outlines["lips_top"], outlines["lips_low"]])
    free = face_mask * (1 - canvas.mask(lips))
    alpha = float(np.clip(0.15 + 0.9 * traits.beard, 0, 0.92))
    middle = outlines["lips_top"][48]
    cheeks = jaw[16:81] + 0.42 * (middle - jaw[16:81])
    if traits.age < 0.75:
        canvas.fill(np.concatenate([jaw[12:85], cheeks[::-1]]), colour, alpha=alpha, soft=0.05, mask=free)
    top, base = outlines["lips_top"], outlines["nostrils"]
    above = np.stack(
        [
            top[0],
            0.6 * base[0] + 0.4 * top[16],
            0.75 * base[48] + 0.25 * top[48],
            0.6 * base[96] + 0.4 * top[80],
            top[96],
        ]
    )
    canvas.fill(np.concatenate([above, top[::-1]]), colour, alpha=alpha, soft=0.025, mask=free)
