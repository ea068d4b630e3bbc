"""What a drawn face is made of: numbers, and the ranges they are drawn from.

`Traits[float]` is one face, `Traits[Range]` is a population of them. Lengths are in units of the distance of the outer
eye corners, angles in degrees. What some faces have and others do not (glasses, a beard, …) is there where its number
is positive, so a range (-3, 1) gives it to every fourth face.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Generic, TypeAlias, TypeVar

import numpy as np

T = TypeVar("T")
Range: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits(Generic[T]):
    """A face, or a population of faces. Right and left are the face's own: its right is on the left of the picture.

    Attributes:
        yaw: Turn towards the right of the picture, degrees.
        pitch: Turn downwards, degrees.
        roll: Turn in the picture, clockwise, degrees.
        size: Height of the face as a share of the picture's side.
        place_x: Where its middle is, share of the picture's side from its centre to the right.
        place_y: The same, downwards.
        jaw: Exponent of the superellipse of the jaw: 2 is round, more is square.
        wink: Share by which the right eye (above 0) or the left one (below 0) is more closed than the other.
        brow_skew: How much higher the right brow is than their mean; `smile_skew` the same of the corners of the mouth.
        nose_bend: How far the ridge is bent, to the right of the picture.
        tone: Place in the palette of skins, 0 (light) to 1 (dark).
        light_x: Where the light comes from: -1 left, 1 right.
        light_y: -1 from above, 1 from below.
        light: How much the side in the shade loses, share.
        blur: Of the lens, share of the picture's side.
        noise: Of the sensor, standard deviation, share of white.
    """

    # Pose and place.
    yaw: T
    pitch: T
    roll: T
    size: T
    place_x: T
    place_y: T
    # Identity.
    width: T
    chin: T
    jaw: T
    taper: T
    forehead: T
    depth: T
    eye_apart: T
    eye_width: T
    eye_tilt: T
    brow_height: T
    brow_arch: T
    brow_thick: T
    nose_length: T
    nose_width: T
    nose_out: T
    nose_bend: T
    mouth_height: T
    mouth_width: T
    lip_upper: T
    lip_lower: T
    # Expression.
    eyes: T
    wink: T
    brows: T
    brow_skew: T
    frown: T
    smile: T
    smile_skew: T
    mouth_open: T
    gaze_x: T
    gaze_y: T
    # Colours.
    tone: T
    warmth: T
    lipstick: T
    hair: T
    hair_length: T
    hair_line: T
    iris: T
    age: T
    # What some have.
    beard: T
    fringe: T
    glasses: T
    shades: T
    hand: T
    # The picture.
    clutter: T
    bars: T
    light_x: T
    light_y: T
    light: T
    exposure: T
    saturation: T
    blur: T
    noise: T


TRAIN: Traits[Range] = Traits(
    yaw=(-40, 40), pitch=(-18, 20), roll=(-25, 25), size=(0.30, 0.80), place_x=(-0.16, 0.16), place_y=(-0.10, 0.14),
    width=(0.74, 0.90), chin=(1.20, 1.46), jaw=(2.0, 2.7), taper=(0.0, 0.12), forehead=(0.55, 0.82),
    depth=(0.66, 0.84), eye_apart=(0.175, 0.235), eye_width=(0.265, 0.325), eye_tilt=(-0.02, 0.04),
    brow_height=(0.16, 0.26), brow_arch=(0.02, 0.10), brow_thick=(0.03, 0.09), nose_length=(0.46, 0.62),
    nose_width=(0.13, 0.20), nose_out=(0.26, 0.42), nose_bend=(-0.02, 0.02), mouth_height=(0.72, 0.86),
    mouth_width=(0.25, 0.36), lip_upper=(0.03, 0.09), lip_lower=(0.05, 0.13),
    eyes=(0.01, 0.14), wink=(-0.5, 0.5), brows=(-0.04, 0.07), brow_skew=(-0.025, 0.025), frown=(-0.04, 0.05),
    smile=(-0.3, 1.0), smile_skew=(-0.25, 0.25), mouth_open=(-0.25, 0.32),
    gaze_x=(-0.8, 0.8), gaze_y=(-0.5, 0.5),
    tone=(0.0, 0.9), warmth=(-0.05, 0.05), lipstick=(0.0, 0.7), hair=(0.0, 0.9), hair_length=(-0.5, 1.5),
    hair_line=(-0.3, 0.25), iris=(0.0, 1.0), age=(0.0, 1.0),
    beard=(-2.0, 1.0), fringe=(-3.0, 1.0), glasses=(-4.0, 1.0), shades=(-12.0, 1.0), hand=(-6.0, 1.0),
    clutter=(2, 14), bars=(-2.0, 1.0), light_x=(-1, 1), light_y=(-1, 0.4), light=(0.05, 0.65),
    exposure=(0.65, 1.25), saturation=(0.5, 1.1), blur=(0.0, 0.006), noise=(0.0, 0.03),
)  # fmt: skip
"""What networks are trained on."""

HELD_OUT = replace(
    TRAIN,
    yaw=(-44, 44), pitch=(-21, 23), roll=(-30, 30), size=(0.26, 0.84), place_x=(-0.20, 0.20), place_y=(-0.14, 0.18),
    width=(0.73, 0.91), chin=(1.18, 1.48), nose_length=(0.45, 0.63), mouth_open=(-0.20, 0.35),
    tone=(0.05, 1.0), warmth=(-0.07, 0.07), lipstick=(0.0, 0.9), hair=(0.1, 1.0), hair_length=(-0.7, 1.8),
    beard=(-1.7, 1.0), fringe=(-2.2, 1.0), glasses=(-2.5, 1.0), shades=(-9.0, 1.0), hand=(-4.0, 1.0),
    clutter=(6, 20), bars=(-0.5, 1.0), light_y=(-1, 0.7), light=(0.1, 0.75), exposure=(0.55, 1.35),
    saturation=(0.35, 1.2), blur=(0.0, 0.007), noise=(0.005, 0.04),
)  # fmt: skip
"""What networks are judged on: half of the ranges reach further than those of `TRAIN`, or lie elsewhere."""


def draw(ranges: Traits[Range], random: np.random.Generator) -> Traits[float]:
    """One face of a population; every number is uniform in its range.

    `Generator.random` is the plainest stream there is: NumPy keeps it the same between releases.
    """
    names = [field.name for field in fields(ranges)]
    drawn: dict[str, float] = {}
    for name, share in zip(names, random.random(len(names)), strict=True):
        low, high = getattr(ranges, name)
        drawn[name] = float(low + share * (high - low))
    return Traits(**drawn)
