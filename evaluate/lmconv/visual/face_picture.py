"""Pictures of one annotated face with the predicted landmarks, and a contact sheet of several pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lmconv.networks.squares import around, cut
from lmconv.scheme import scheme
from lmconv.types import Crop, Float64, Uint8
from lmconv.visual import overlay

SIDE = 480
"""Side of the picture of a face, pixels."""
MARGIN = Crop(side="max", scale=1.5)
"""Square around the annotated landmarks that the picture shows."""
COLUMNS, TILE = 6, 240
"""Largest number of columns of a contact sheet, and the side of each picture in the sheet, pixels."""


def face_picture(picture: Uint8, annotated: Float64, predicted: Float64 | None, name: str, ion: str = "") -> Uint8:
    """Draws one face: annotated points green, predicted points red, and a yellow line from each to its counterpart.

    Args:
        picture: (H, W, 3) uint8, BGR.
        annotated: (L, 2) float64, pixels, x before y.
        predicted: (L, 2) float64, pixels, x before y; None to draw the annotated points alone.
        name: Text at the bottom.
        ion: Text at the top, large enough to read in the contact sheet.

    Returns:
        (SIDE, SIDE, 3) uint8, BGR.
    """
    left, top, side = around((*annotated.min(axis=0), *annotated.max(axis=0)), MARGIN)
    drawn = cut(picture, (left, top, side), (SIDE, SIDE))
    points_scheme = scheme(len(annotated))
    groups = tuple(points_scheme.groups.values()) if points_scheme else ()
    annotated_here = (annotated - (left, top)) * (SIDE / side)
    if predicted is None:
        overlay.draw_landmarks(drawn, annotated_here, groups=groups)
    else:
        predicted_here = (predicted - (left, top)) * (SIDE / side)
        overlay.draw_lines(drawn, annotated_here, predicted_here)
        overlay.draw_landmarks(drawn, predicted_here, groups=groups, colour=overlay.RED)
        overlay.draw_landmarks(drawn, annotated_here)
    overlay.draw_text(drawn, name, (6, SIDE - 8), size=1.2)
    if ion:
        overlay.draw_text(drawn, ion, (6, 24), size=2)
    return drawn


def contact_sheet(pictures: Sequence[Uint8]) -> Uint8:
    """Returns pictures of faces beside each other, row by row.

    Args:
        pictures: At least one picture, (SIDE, SIDE, 3) uint8, BGR.

    Returns:
        (rows * TILE, columns * TILE, 3) uint8, BGR.
    """
    import cv2

    columns = min(COLUMNS, len(pictures))
    sheet = np.zeros((math.ceil(len(pictures) / columns) * TILE, columns * TILE, 3), np.uint8)
    for index, picture in enumerate(pictures):
        y, x = index // columns * TILE, index % columns * TILE
        sheet[y : y + TILE, x : x + TILE] = cv2.resize(picture, (TILE, TILE), interpolation=cv2.INTER_AREA)
    return sheet
