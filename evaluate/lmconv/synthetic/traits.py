"""Traits of a synthetic face: the numbers that describe one face, and the ranges from which these numbers are drawn.

`Traits[float]` is one face; `Traits[Range]` is a population of faces. Lengths are in units of the distance between the
outer eye corners, angles in degrees. A trait that only some faces have (glasses, a beard, …) is present if its number
is positive: the range (-3, 1) gives the trait to every fourth face.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Generic, TypeAlias, TypeVar

import numpy as np

T = TypeVar("T")
Range: TypeAlias = tuple[float, float]
"""Lowest and highest value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits(Generic[T]):
    """A face, or a population of faces.

    Right and left are the face's own: its right side is on the left of the picture. The frame of the head is described
    in `lmconv.synthetic.head`.

    Attributes:
        yaw: Turn towards the right of the picture, degrees.
        pitch: Turn downwards, degrees.
        roll: Turn in the picture, clockwise, degrees.
        size: Height of the face, fraction of the picture's side.
        place_x: Centre of the face to the right of the picture's centre, fraction of the picture's side.
        place_y: Centre of the face below the picture's centre, fraction of the picture's side.
        width: Half the width of the face.
        chin: Distance of the chin below the eyes.
        jaw: Exponent of the superellipse of the jaw: 2 is round, a larger number is more square.
        taper: Fraction by which the jaw narrows towards the chin.
        forehead: Height of the forehead above the eyes.
        depth: Distance of the front of the face from the axis of the head.
        eye_inner: Distance of an inner eye corner from the middle of the face.
        eye_width: Width of an eye.
        eye_tilt: Height of the outer eye corners above the inner eye corners.
        brow_height: Height of the brows above the eyes.
        brow_arch: Height of the arch of a brow.
        brow_thick: Thickness of a brow.
        nose_length: Distance of the base of the nose below the eyes.
        nose_width: Half the width of the nose.
        nose_out: Distance of the tip of the nose in front of the face.
        nose_bend: Bend of the ridge of the nose to the right of the picture.
        mouth_height: Distance of the mouth below the eyes.
        mouth_width: Half the width of the mouth.
        lip_upper: Thickness of the upper lip.
        lip_lower: Thickness of the lower lip.
        eyes: Opening of the eyes.
        wink: Fraction by which the right eye (above 0) or the left eye (below 0) is more closed than the other.
        brows: Rise of both brows.
        brow_skew: Height of the right brow above the mean of both.
        frown: Descent of the inner ends of the brows.
        smile: Strength of a smile: 1 is a wide smile; below 0 the corners of the mouth hang.
        smile_skew: Smile of the right corner of the mouth above the mean of both.
        mouth_open: Opening of the mouth; closed below 0.
        gaze_x: Direction of the gaze: -1 to the left, 1 to the right of the picture.
        gaze_y: Direction of the gaze: -1 upwards, 1 downwards.
        tone: Position in the palette of skins, 0 (light) to 1 (dark).
        warmth: Red added to and blue taken from the skin.
        lipstick: Strength of lipstick, 0 to 1.
        hair: Position in the palette of hair, 0 to 1.
        hair_length: Length of the hair; bald below -0.3.
        hair_line: Shift of the hair line downwards, tenths of the unit of length.
        iris: Position in the palette of irises, 0 to 1.
        age: Strength of folds, 0 to 1.
        beard: Density of a beard, if positive.
        fringe: Length of a fringe, if positive.
        glasses: Glasses, if positive.
        shades: Sunglasses, if positive.
        hand: A hand in front of the face, if positive.
        clutter: Number of blots behind the face.
        bars: Number of bars behind the face divided by 12, if positive.
        light_x: Direction of the light: -1 from the left, 1 from the right of the picture.
        light_y: Direction of the light: -1 from above, 1 from below.
        light: Fraction of the light that the side in the shade loses.
        exposure: Factor of the brightness of the picture.
        saturation: Factor of the saturation; 0 is grey.
        blur: Blur of the lens, fraction of the picture's side.
        noise: Noise of the sensor, standard deviation, fraction of white.
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
    eye_inner: T
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
    # Present if positive.
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
    depth=(0.66, 0.84), eye_inner=(0.175, 0.235), eye_width=(0.265, 0.325), eye_tilt=(-0.02, 0.04),
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
"""Population of the training faces."""

HELD_OUT = replace(
    TRAIN,
    yaw=(-44, 44), pitch=(-21, 23), roll=(-30, 30), size=(0.26, 0.84), place_x=(-0.20, 0.20), place_y=(-0.14, 0.18),
    width=(0.73, 0.91), chin=(1.18, 1.48), nose_length=(0.45, 0.63), mouth_open=(-0.20, 0.35),
    tone=(0.05, 1.0), warmth=(-0.07, 0.07), lipstick=(0.0, 0.9), hair=(0.1, 1.0), hair_length=(-0.7, 1.8),
    beard=(-1.7, 1.0), fringe=(-2.2, 1.0), glasses=(-2.5, 1.0), shades=(-9.0, 1.0), hand=(-4.0, 1.0),
    clutter=(6, 20), bars=(-0.5, 1.0), light_y=(-1, 0.7), light=(0.1, 0.75), exposure=(0.55, 1.35),
    saturation=(0.35, 1.2), blur=(0.0, 0.007), noise=(0.005, 0.04),
)  # fmt: skip
"""Population of the test faces: half of the ranges are wider than in `TRAIN`, or shifted."""


def sample(ranges: Traits[Range], rng: np.random.Generator) -> Traits[float]:
    """Draws one face of a population; every trait is uniform in its range.

    Only `Generator.random` is called: NumPy keeps this stream the same between releases.
    """
    names = [field.name for field in fields(ranges)]
    values: dict[str, float] = {}
    for name, fraction in zip(names, rng.random(len(names)), strict=True):
        low, high = getattr(ranges, name)
        values[name] = float(low + fraction * (high - low))
    return Traits(**values)
