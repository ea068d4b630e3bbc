"""A picture that is painted in layers: filled outlines and strokes, anti-aliased, opaque or not, sharp or soft."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np

from lmconv.types import Float32, Float64, Uint8

Colour: TypeAlias = Float64
"""(3,) float64, BGR, 0 to 1."""

FINE = 4
"""Bits of a pixel that outlines are painted to."""


class Canvas:
    """A picture in the making.

    Attributes:
        pixels: (side, side, 3) float32, BGR, 0 to 1.
        unit: Pixels in one unit of the head; `soft` and `width` are in such units.
    """

    def __init__(self, side: int, unit: float) -> None:
        self.pixels: Float32 = np.zeros((side, side, 3), np.float32)
        self.side = side
        self.unit = unit

    def fill(
        self,
        outline: Float64,
        colour: Colour,
        *,
        alpha: float = 1.0,
        soft: float = 0.0,
        within: Float32 | None = None,
    ) -> None:
        """Fills an outline, (n, 2) pixels; only where `within`, (side, side) from 0 to 1, lets it."""
        self._lay(self._mask(outline, None, soft), colour, alpha, within)

    def stroke(
        self,
        line: Float64,
        colour: Colour,
        width: float,
        *,
        alpha: float = 1.0,
        soft: float = 0.0,
        within: Float32 | None = None,
    ) -> None:
        """Draws a line, (n, 2) pixels; one thinner than a pixel is one pixel wide and fainter."""
        thick = width * self.unit
        self._lay(self._mask(line, max(1, round(thick)), soft), colour, alpha * min(1.0, thick), within)

    def mask(self, outline: Float64, soft: float = 0.0) -> Float32:
        """(side, side) float32, 1 inside an outline, 0 outside."""
        whole = np.zeros((self.side, self.side), np.float32)
        place, mask = self._mask(outline, None, soft)
        whole[place] = mask
        return whole

    def shade(self, factor: Float32) -> None:
        """Makes the picture lighter and darker by a (side, side) float32 factor."""
        self.pixels *= factor[..., None]

    def _mask(self, points: Float64, width: int | None, soft: float) -> tuple[tuple[slice, slice], Float32]:
        """Where an outline or a line is, and how much of it each pixel there holds."""
        sigma = soft * self.unit
        margin = int(3 * sigma) + (width or 0) + 2
        low = np.clip(np.floor(points.min(axis=0)) - margin, 0, self.side).astype(int)
        high = np.clip(np.ceil(points.max(axis=0)) + margin + 1, 0, self.side).astype(int)
        place = (slice(low[1], high[1]), slice(low[0], high[0]))
        if not (high > low).all():
            return place, np.zeros((max(high[1] - low[1], 0), max(high[0] - low[0], 0)), np.float32)
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        corners = [np.rint((points - low) * (1 << FINE)).astype(np.int32)]
        if width is None:
            cv2.fillPoly(mask, corners, (255,), cv2.LINE_AA, FINE)
        else:
            cv2.polylines(mask, corners, False, (255,), width, cv2.LINE_AA, FINE)
        cover = mask.astype(np.float32) / 255
        return place, np.asarray(cv2.GaussianBlur(cover, (0, 0), sigma) if sigma > 0.3 else cover, np.float32)

    def _lay(
        self, layer: tuple[tuple[slice, slice], Float32], colour: Colour, alpha: float, within: Float32 | None
    ) -> None:
        place, mask = layer
        if not mask.size:
            return
        cover = mask * np.float32(alpha) if within is None else mask * within[place] * np.float32(alpha)
        part = self.pixels[place]
        part += cover[..., None] * (colour.astype(np.float32) - part)

    def finished(self, noise: Float64, blur: float) -> Uint8:
        """(side, side, 3) uint8, BGR: the picture through a lens (`blur`, pixels) with noise of the same shape."""
        pixels = cv2.GaussianBlur(self.pixels, (0, 0), blur) if blur > 0.25 else self.pixels
        return np.asarray(np.clip(np.rint((pixels + noise) * 255), 0, 255), np.uint8)


def ellipse(centre: Float64, right: Float64, down: Float64) -> Float64:
    """(48, 2) outline of an ellipse from its centre and two half axes, (2,) each, pixels."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)[:, None]
    return np.asarray(centre + np.cos(angle) * right + np.sin(angle) * down)


def between(palette: Float64, place: float) -> Colour:
    """The colour at a place, 0 to 1, of an (n, 3) palette."""
    along = np.clip(place, 0, 1) * (len(palette) - 1)
    return np.array([np.interp(along, np.arange(len(palette)), palette[:, channel]) for channel in range(3)])
