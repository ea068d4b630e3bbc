"""Geometry of a synthetic face: curves in space, rotated and projected; and the landmarks on these curves.

Frame of the head: x to the right of the picture, y down, z towards the viewer. The origin lies between the eyes on the
axis of the neck. The unit is the distance between the outer eye corners.

A curve becomes 97 points of the picture, joined by 96 steps. The same points are painted and marked as landmarks: 96 is
divisible by the number of steps of every scheme, so every landmark is a corner of the painted outline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from lmconv.synthetic.traits import Traits
from lmconv.types import Float64

STEPS = 96
"""Number of steps along a curve."""
PERSPECTIVE = 7.0
"""Distance of the camera from the axis of the head, units of the head."""
MIDDLE = 0.4
"""Distance of the middle of the face below the eyes, units of the head."""
HEIGHT = 2.0
"""Approximate height of a face from hair line to chin, units of the head."""

Curves: TypeAlias = Mapping[str, Float64]
"""Curves of a face by name, (97, 2) float64, pixels of the picture, x before y; see `curves`."""


def spline(knots: Float64) -> Float64:
    """Returns (97, 3) float64 points of the Catmull-Rom curve through k knots, (k, 3) float64."""
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    along = np.linspace(0, len(knots) - 1, STEPS + 1)
    first = np.minimum(along.astype(int), len(knots) - 2)
    t = (along - first)[:, None]
    a, b, c, d = (padded[first + shift] for shift in range(4))
    return np.asarray(b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))))


def resample(line: Float64) -> Float64:
    """Returns (97, 2) float64 points at equal distances along a line of n points, (n, 2) float64."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    along = np.linspace(0, length[-1], STEPS + 1)
    return np.stack([np.interp(along, length, line[:, axis]) for axis in (0, 1)], axis=1)


def project(points: Float64, traits: Traits[float], side: int) -> Float64:
    """Rotates points of the head and projects the points in perspective.

    Args:
        points: (n, 3) float64, frame of the head.
        traits: Traits of the face.
        side: Side of the picture, pixels.

    Returns:
        (n, 2) float64, pixels, x before y; the centre of the first pixel is (0, 0).
    """
    yaw, pitch, roll = (math.radians(angle) for angle in (traits.yaw, traits.pitch, traits.roll))
    x, y, z = points.T
    x, z = x * math.cos(yaw) + z * math.sin(yaw), z * math.cos(yaw) - x * math.sin(yaw)
    y = y - MIDDLE
    y, z = y * math.cos(pitch) + z * math.sin(pitch), z * math.cos(pitch) - y * math.sin(pitch)
    scale = PERSPECTIVE / (PERSPECTIVE - z)
    x, y = x * scale, y * scale
    rotated = np.stack([x * math.cos(roll) - y * math.sin(roll), x * math.sin(roll) + y * math.cos(roll)], axis=1)
    centre = (np.array([traits.place_x, traits.place_y]) + 0.5) * side - 0.5
    return np.asarray(rotated * unit(traits, side) + centre)


def unit(traits: Traits[float], side: int) -> float:
    """Returns the pixels per unit of the head, for a picture of `side` x `side` pixels."""
    return traits.size * side / HEIGHT


def lift(flat: Float64, traits: Traits[float], out: float | Float64 = 0.0) -> Float64:
    """Lifts points of the front view to the surface of the face.

    Args:
        flat: (n, 2) float64, x and y in the frame of the head.
        traits: Traits of the face.
        out: Distance in front of the surface; a number or (n,) float64.

    Returns:
        (n, 3) float64, frame of the head.
    """
    x, y = flat.T
    round_x = np.sqrt(np.maximum(1 - (x / (traits.width + 0.03)) ** 2, 0))
    return np.stack([x, y, traits.depth * round_x - 0.12 * (y - 0.3) ** 2 + out], axis=1)


def curves(traits: Traits[float], side: int) -> dict[str, Float64]:
    """Returns every curve of a face by name, (97, 2) float64, pixels of the picture, x before y."""
    spaces = {
        "bridge": _bridge(traits),
        "nostrils": _nostrils(traits),
        **_mouth(traits),
        **_brow_and_eye(traits, -1.0, "right"),
        **_brow_and_eye(traits, 1.0, "left"),
    }
    flat = {name: project(spline(knots), traits, side) for name, knots in spaces.items()}
    for name, space in (("jaw", _jaw(traits)), ("forehead", _forehead(traits))):
        flat[name] = resample(project(_visible_contour(space, traits), traits, side))
    return flat


def _jaw(traits: Traits[float]) -> Float64:
    """Returns the jaw line from ear to ear along the chin, (193, 3) float64: a superellipse, as wide as the face."""
    angle = np.linspace(-math.pi / 2, math.pi / 2, 2 * STEPS + 1)
    down = np.abs(np.cos(angle)) ** (2 / traits.jaw)
    x = traits.width * np.sign(angle) * np.abs(np.sin(angle)) ** (2 / traits.jaw) * (1 - traits.taper * down**2)
    y = (traits.chin + 0.55 * max(traits.mouth_open, 0.0)) * down
    return np.stack([x, y, 0.85 * traits.depth * np.sqrt(np.maximum(1 - (x / traits.width) ** 2, 0))], axis=1)


def _forehead(traits: Traits[float]) -> Float64:
    """Returns the outline of the forehead, (193, 3) float64, from the last point of the jaw to the first."""
    angle = np.linspace(0, math.pi, 2 * STEPS + 1)
    x, y = traits.width * np.cos(angle), -traits.forehead * np.sin(angle) ** 0.8
    return np.stack([x, y, 0.75 * traits.depth * np.sin(angle)], axis=1)


def _visible_contour(outline: Float64, traits: Traits[float]) -> Float64:
    """Moves hidden points of an outline forward over the cheek, at the same height, until the points are visible.

    Annotators do the same: points of the far side are placed on the visible contour. At each height the face is half
    an ellipse; the visible contour is where the line of sight touches this ellipse.

    Args:
        outline: (n, 3) float64, frame of the head.
        traits: Traits of the face.

    Returns:
        (n, 3) float64, frame of the head.
    """
    yaw = math.radians(traits.yaw)
    x, y, z = outline.T
    depth = np.maximum(lift(np.stack([0 * y, y], axis=1), traits)[:, 2] - z, 0)
    touch = np.arctan2(np.abs(x) * math.cos(yaw), depth * abs(math.sin(yaw)) + 1e-9)
    visible = np.stack([x * np.sin(touch), y, z + depth * np.cos(touch)], axis=1)
    return np.where((x * math.sin(yaw) > 0)[:, None], visible, outline)


def _bridge(traits: Traits[float]) -> Float64:
    """Returns the knots of the ridge of the nose, (4, 3) float64, from between the eyes to the tip."""
    along = np.linspace(0, 1, 4)
    x = traits.nose_bend * np.sin(math.pi * along)
    flat = np.stack([x, -0.03 + (traits.nose_length - 0.10) * along], axis=1)
    return lift(flat, traits, traits.nose_out * np.array([0.15, 0.4, 0.72, 1.0]))


def _nostrils(traits: Traits[float]) -> Float64:
    """Returns the knots of the base of the nose, (5, 3) float64, from left to right in the picture."""
    x = traits.nose_width * np.array([-1, -0.52, 0, 0.52, 1])
    y = traits.nose_length + np.array([-0.05, -0.015, 0.01, -0.015, -0.05])
    return lift(np.stack([x, y], axis=1), traits, traits.nose_out * np.array([0.25, 0.5, 0.62, 0.5, 0.25]))


def _mouth(traits: Traits[float]) -> dict[str, Float64]:
    """Returns the knots of the outer and the inner contour of the lips, by name.

    The upper half of each contour runs from left to right in the picture, the lower half back. An open mouth lowers the
    lower lip.
    """
    opened = max(traits.mouth_open, 0.0)
    smiles = traits.smile + traits.smile_skew * np.array([1, -1])
    reach = traits.mouth_width * (1 - 0.35 * opened) + 0.07 * smiles
    corner_heights = traits.mouth_height - 0.07 * smiles + 0.35 * opened
    line = traits.mouth_height

    def lip(fractions: list[float], rows: list[float], inner: float = 0.0) -> Float64:
        """Returns knots at fractions of the mouth's half width and at heights; the ends are the corners."""
        fraction = np.array(fractions)
        x = fraction * np.where(fraction < 0, reach[0] - inner, reach[1] - inner)
        corner = corner_heights[(fraction > 0).astype(int)]
        pull = np.abs(fraction) ** 2
        y = np.array(rows) * (1 - pull) + corner * pull
        return lift(np.stack([x, y], axis=1), traits, 0.09 * (1 - fraction**2))

    top = line - 0.05 * opened
    low = line + opened
    upper, lower = top - traits.lip_upper * np.array([1.2, 1.05, 0.8]), low + traits.lip_lower
    wing, peak, bow = upper.tolist()
    return {
        "lips_top": lip([-1, -0.64, -0.26, 0, 0.26, 0.64, 1], [line, wing, peak, bow, peak, wing, line]),
        "lips_low": lip([1, 0.66, 0.3, 0, -0.3, -0.66, -1], [line, *[lower] * 5, line]),
        "mouth_top": lip([-1, -0.3, 0, 0.3, 1], [line, top, top + 0.008, top, line], 0.03),
        "mouth_low": lip([1, 0.3, 0, -0.3, -1], [line, low + 0.008, low + 0.012, low + 0.008, line], 0.03),
    }


def _brow_and_eye(traits: Traits[float], sign: float, name: str) -> dict[str, Float64]:
    """Returns the knots of brow, lids and pupil of one side, by name.

    Upper edges run from the temple to the nose, lower edges back.

    Args:
        traits: Traits of the face.
        sign: -1 for the left side of the picture, 1 for the right side.
        name: The face's own side, "right" or "left".
    """
    inner, outer = traits.eye_inner, traits.eye_inner + traits.eye_width
    opening = traits.eyes * (1 - max(-sign * traits.wink, 0.0))
    fraction = np.linspace(0, 1, 5)
    bow = np.sin(math.pi * fraction) ** 0.75
    x = outer + fraction * (inner - outer)
    base = 0.01 - traits.eye_tilt * (1 - fraction)
    top = base - 0.68 * opening * bow * (1.06 - 0.12 * fraction)
    low = base + 0.32 * opening * bow
    gaze = np.array([sign * traits.gaze_x * 0.25 * traits.eye_width, 0.35 * traits.gaze_y * opening])
    pupil = np.array([(inner + outer) / 2, 0.0]) + gaze + [0.0, float(base[2]) - 0.18 * opening]

    spread = np.linspace(0.18, -0.06, 5) * traits.eye_width / 0.3
    brow_x = x + spread
    rise = (
        traits.brow_height
        + traits.brows
        - sign * traits.brow_skew
        + traits.brow_arch * np.array([-0.6, 0.55, 1.0, 0.75, 0.2])
    )
    rise = rise - traits.frown * fraction
    thick = traits.brow_thick * np.array([1.0, 1.0, 0.9, 0.65])
    below = np.interp([0.97, 0.7, 0.42, 0.14], fraction, rise) - thick

    def knots(x: Float64, y: Float64, out: float) -> Float64:
        return lift(np.stack([sign * x, y], axis=1), traits, out)

    return {
        f"lid_top_{name}": knots(x, top, -0.03),
        f"lid_low_{name}": knots(x[::-1], low[::-1], -0.03),
        f"pupil_{name}": knots(np.repeat(pupil[0], 2), np.repeat(pupil[1], 2), -0.03),
        f"brow_top_{name}": knots(brow_x, -rise, 0.04),
        f"brow_low_{name}": knots(np.interp([0.97, 0.7, 0.42, 0.14], fraction, brow_x), -below, 0.04),
    }


def _marks(curve: str, fractions: list[float]) -> tuple[str, list[int]]:
    """Returns the name of a curve, and indices of its points at fractions of its length."""
    return curve, [round(fraction * STEPS) for fraction in fractions]


def _fractions(start: float, stop: float, count: int) -> list[float]:
    """Returns `count` evenly spaced numbers from `start` to `stop`."""
    return [start + (stop - start) * index / (count - 1) for index in range(count)]


def _scheme(points: int) -> tuple[tuple[str, list[int]], ...]:
    """Returns the landmarks of a scheme, in its order, as curves and indices of their points."""
    dense = points == 98
    lid = _fractions(0, 1, 5 if dense else 4)
    under = _fractions(0, 1, 4) if dense else []
    return (
        _marks("jaw", _fractions(0, 1, 33 if dense else 17)),
        _marks("brow_top_right", _fractions(0, 1, 5)),
        _marks("brow_low_right", under),
        _marks("brow_top_left", _fractions(1, 0, 5)),
        _marks("brow_low_left", under[::-1]),
        _marks("bridge", _fractions(0, 1, 4)),
        _marks("nostrils", _fractions(0, 1, 5)),
        _marks("lid_top_right", lid),
        _marks("lid_low_right", lid[1:-1]),
        _marks("lid_top_left", lid[::-1]),
        _marks("lid_low_left", lid[-2:0:-1]),
        _marks("lips_top", _fractions(0, 1, 7)),
        _marks("lips_low", _fractions(0, 1, 7)[1:-1]),
        _marks("mouth_top", _fractions(0, 1, 5)),
        _marks("mouth_low", _fractions(0, 1, 5)[1:-1]),
        _marks("pupil_right", [0] if dense else []),
        _marks("pupil_left", [0] if dense else []),
    )


SCHEMES = {points: _scheme(points) for points in (68, 98)}
"""Curves and indices of the landmarks of each scheme, in its order: 68 of iBUG (300-W), 98 of WFLW."""


def landmarks(outlines: Curves, points: int) -> Float64:
    """Returns the landmarks of a scheme.

    Args:
        outlines: Curves of the face, see `curves`.
        points: Number of landmarks: 68 (iBUG) or 98 (WFLW).

    Returns:
        (points, 2) float64, pixels of the picture, x before y; the centre of the first pixel is (0, 0).
    """
    return np.concatenate([outlines[curve][steps] for curve, steps in SCHEMES[points]])
