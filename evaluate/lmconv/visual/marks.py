"""What is drawn on pictures: points and the lines of their scheme, boxes, words. Sizes follow the face.

All draw into the picture they are given, (H, W, 3) uint8 BGR, contiguous and writable. Pixels are counted as landmarks
are, x before y; what lies outside is clipped, and a point that is not finite is left out.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmconv.scheme import Group
from lmconv.types import Float32, Float64, Uint8

Colour: TypeAlias = tuple[int, int, int]
"""Blue, green, red; 0 to 255."""

GREEN: Colour = (96, 220, 64)
RED: Colour = (64, 64, 255)
YELLOW: Colour = (64, 220, 255)
WHITE: Colour = (255, 255, 255)

FINE = 4
"""Bits of a pixel that lines and points are drawn to."""
FAR = 30_000.0
"""Pixels beyond which coordinates are cut off: OpenCV draws in 32-bit integers of a fraction of a pixel."""
FACE = 200.0
"""Side of a face, pixels, whose points have a radius of 1.5 and whose lines are one pixel wide."""


def stroke(points: Float32 | Float64) -> float:
    """How large marks on a face are: 1 for a face of `FACE` pixels, never below.

    Args:
        points: (L, 2) float, pixels: its landmarks, or two corners of its box.
    """
    finite = points[np.isfinite(points).all(axis=-1)]
    return max(1.0, float(np.ptp(finite, axis=0).max()) / FACE) if len(finite) else 1.0


def draw_landmarks(
    picture: Uint8,
    points: Float32 | Float64,
    *,
    groups: Collection[Group] = (),
    colour: Colour = GREEN,
    lines: Colour | None = None,
    size: float | None = None,
) -> None:
    """Draws the points of a face as discs, joined to lines.

    Args:
        picture: (H, W, 3) uint8, BGR.
        points: (L, 2) float, pixels.
        groups: Which points are joined: `scheme(L).groups.values()`, or nothing for points alone.
        colour: Of the points.
        lines: Of the lines; that of the points by default.
        size: By default `stroke(points)`.
    """
    import cv2

    size = stroke(points) if size is None else size
    finite, places = _places(points)
    for closed in (False, True):
        chosen = [list(group.points) for group in groups if group.closed is closed and finite[list(group.points)].all()]
        joined = [places[chain] for chain in chosen if len(chain) > 1]
        if joined:
            cv2.polylines(picture, joined, closed, lines or colour, max(1, round(size)), cv2.LINE_AA, FINE)
    radius = round(1.5 * size * (1 << FINE))
    for x, y in places[finite].tolist():
        cv2.circle(picture, (x, y), radius, colour, cv2.FILLED, cv2.LINE_AA, FINE)


def draw_lines(
    picture: Uint8,
    first: Float32 | Float64,
    second: Float32 | Float64,
    *,
    colour: Colour = YELLOW,
    size: float | None = None,
) -> None:
    """Draws a line from each of the (L, 2) points to its counterpart, such as from annotated to predicted."""
    import cv2

    (here, begins), (there, ends) = _places(first), _places(second)
    pairs = np.stack([begins, ends], axis=1)[here & there]
    width = max(1, round(stroke(first) if size is None else size))
    cv2.polylines(picture, list(pairs), False, colour, width, cv2.LINE_AA, FINE)


def draw_box(
    picture: Uint8, box: Float32 | Float64, *, label: str = "", colour: Colour = WHITE, size: float | None = None
) -> None:
    """Draws a box, (4,) float: x1, y1, x2, y2, with a label above it where there is one."""
    import cv2

    corners = np.asarray(box, np.float64).reshape(2, 2)
    finite, places = _places(corners)
    if not finite.all():
        return
    size = stroke(corners) if size is None else size
    first, second = places.tolist()
    cv2.rectangle(picture, first, second, colour, max(1, round(size)), cv2.LINE_AA, FINE)
    if label:
        text(picture, label, (float(corners[0, 0]), float(corners[0, 1]) - 4 * size), colour=colour, size=size)


def text(picture: Uint8, words: str, place: tuple[float, float], *, colour: Colour = WHITE, size: float = 1.0) -> None:
    """Writes a line of words, its lower left corner at `place`, moved into the picture, on a dark band.

    OpenCV draws ASCII only: other signs become question marks.
    """
    import cv2

    words = words.encode("ascii", "replace").decode("ascii")
    scale, width = 0.4 * size, max(1, round(size))
    (long, tall), below = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, scale, width)
    height, across = picture.shape[:2]
    x = max(0, min(round(place[0]), across - long))
    y = max(tall, min(round(place[1]), height - below))
    band = picture[max(0, y - tall - 2) : y + below, max(0, x - 2) : x + long + 2]
    band //= 3
    cv2.putText(picture, words, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, width, cv2.LINE_AA)


def _places(points: Float32 | Float64) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Which points are finite, and all of them in fractions of a pixel."""
    finite = np.asarray(np.isfinite(points).all(axis=-1), np.bool_)
    near = np.clip(np.where(finite[:, None], points, 0), -FAR, FAR)
    return finite, np.rint(near * (1 << FINE)).astype(np.int32)
