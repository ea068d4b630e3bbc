"""Draws landmarks, the lines of their scheme, boxes and text onto pictures; sizes follow the size of the face.

All functions draw in place into a picture, (H, W, 3) uint8, BGR, contiguous and writable. Coordinates are pixels, x
before y, in the convention of the landmarks: no offset is added. Parts outside the picture are clipped. Points that are
not finite are skipped.
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

FRACTION_BITS = 4
"""Bits of a pixel's fraction in the coordinates that OpenCV draws (`shift` in OpenCV)."""
MAX_COORDINATE = 30_000.0
"""Pixels at which coordinates are clipped: OpenCV draws with 32-bit integers of a fraction of a pixel."""
REFERENCE_FACE = 200.0
"""Side of a face whose points have a radius of 1.5 pixels and whose lines are 1 pixel wide; pixels."""


def mark_size(points: Float32 | Float64) -> float:
    """Returns the size of marks on a face: 1 for a face of `REFERENCE_FACE` pixels or less, larger for larger faces.

    Args:
        points: (L, 2) float, pixels: landmarks of the face, or two corners of its box.
    """
    finite = points[np.isfinite(points).all(axis=-1)]
    return max(1.0, float(np.ptp(finite, axis=0).max()) / REFERENCE_FACE) if len(finite) else 1.0


def draw_landmarks(
    picture: Uint8,
    points: Float32 | Float64,
    *,
    groups: Collection[Group] = (),
    colour: Colour = GREEN,
    size: float | None = None,
) -> None:
    """Draws the points of a face as discs, and the lines that join the points of each group.

    Args:
        picture: (H, W, 3) uint8, BGR.
        points: (L, 2) float, pixels.
        groups: Groups of points that are joined by lines: `scheme(L).groups.values()`. A group with a point
            that is not finite is skipped.
        colour: Colour of points and lines.
        size: Size of the marks; None for `mark_size(points)`.
    """
    import cv2

    size = mark_size(points) if size is None else size
    is_finite, coordinates = _to_fixed_point(points)
    for closed in (False, True):
        chains = [list(group.points) for group in groups if group.closed is closed]
        lines = [coordinates[chain] for chain in chains if len(chain) > 1 and is_finite[chain].all()]
        if lines:
            cv2.polylines(picture, lines, closed, colour, max(1, round(size)), cv2.LINE_AA, FRACTION_BITS)
    radius = round(1.5 * size * (1 << FRACTION_BITS))
    for x, y in coordinates[is_finite].tolist():
        cv2.circle(picture, (x, y), radius, colour, cv2.FILLED, cv2.LINE_AA, FRACTION_BITS)


def draw_lines(
    picture: Uint8,
    first: Float32 | Float64,
    second: Float32 | Float64,
    *,
    colour: Colour = YELLOW,
    size: float | None = None,
) -> None:
    """Draws a line from each point to its counterpart, for example from annotated to predicted landmarks.

    Args:
        picture: (H, W, 3) uint8, BGR.
        first: (L, 2) float, pixels.
        second: (L, 2) float, pixels: the counterparts, in the same order.
        colour: Colour of the lines.
        size: Width of the lines, pixels; None for `mark_size(first)`.
    """
    import cv2

    (first_finite, starts), (second_finite, ends) = _to_fixed_point(first), _to_fixed_point(second)
    lines = np.stack([starts, ends], axis=1)[first_finite & second_finite]
    width = max(1, round(mark_size(first) if size is None else size))
    cv2.polylines(picture, list(lines), False, colour, width, cv2.LINE_AA, FRACTION_BITS)


def draw_box(
    picture: Uint8, box: Float32 | Float64, *, label: str = "", colour: Colour = WHITE, size: float | None = None
) -> None:
    """Draws a box, with an optional label above the box.

    Args:
        picture: (H, W, 3) uint8, BGR.
        box: (4,) float: x1, y1, x2, y2, pixels. A box that is not finite is skipped.
        label: Text of the label; empty for no label.
        colour: Colour of box and label.
        size: Width of the lines, pixels; None for the `mark_size` of the box.
    """
    import cv2

    corners = np.asarray(box, np.float64).reshape(2, 2)
    is_finite, coordinates = _to_fixed_point(corners)
    if not is_finite.all():
        return
    size = mark_size(corners) if size is None else size
    top_left, bottom_right = coordinates.tolist()
    cv2.rectangle(picture, top_left, bottom_right, colour, max(1, round(size)), cv2.LINE_AA, FRACTION_BITS)
    if label:
        position = (float(corners[0, 0]), float(corners[0, 1]) - 4 * size)
        draw_text(picture, label, position, colour=colour, size=size)


def draw_text(
    picture: Uint8, text: str, position: tuple[float, float], *, colour: Colour = WHITE, size: float = 1.0
) -> None:
    """Draws one line of text on a dark band, moved into the picture if necessary.

    OpenCV draws ASCII only: other characters become question marks.

    Args:
        picture: (H, W, 3) uint8, BGR.
        text: The text.
        position: x, y of the lower left corner of the text, pixels.
        colour: Colour of the text.
        size: Size of the text; 1 is about 11 pixels high.
    """
    import cv2

    text = text.encode("ascii", "replace").decode("ascii")
    scale, stroke = 0.4 * size, max(1, round(size))
    (width, height), descent = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, stroke)
    picture_height, picture_width = picture.shape[:2]
    x = max(0, min(round(position[0]), picture_width - width))
    y = max(height, min(round(position[1]), picture_height - descent))
    band = picture[max(0, y - height - 2) : y + descent, max(0, x - 2) : x + width + 2]
    band //= 3
    cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, stroke, cv2.LINE_AA)


def _to_fixed_point(points: Float32 | Float64) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Converts points to OpenCV's fixed-point coordinates.

    Args:
        points: (n, 2) float, pixels.

    Returns:
        (n,) bool, True for finite points; (n, 2) int32, pixels times 2 ** `FRACTION_BITS`, 0 for other points.
    """
    is_finite = np.asarray(np.isfinite(points).all(axis=-1), np.bool_)
    clipped = np.clip(np.where(is_finite[:, None], points, 0), -MAX_COORDINATE, MAX_COORDINATE)
    return is_finite, np.rint(clipped * (1 << FRACTION_BITS)).astype(np.int32)
