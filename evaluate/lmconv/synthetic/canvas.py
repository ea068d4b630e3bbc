"""A picture painted in layers: filled outlines and lines, anti-aliased, opaque or transparent, sharp or soft."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np

from lmconv.types import Float32, Float64, Uint8

Colour: TypeAlias = Float64
"""(3,) float64, BGR, 0 to 1."""
Layer: TypeAlias = tuple[tuple[slice, slice], Float32]
"""Rows and columns of the picture, and the coverage of each pixel there, (h, w) float32, 0 to 1."""

FRACTION_BITS = 4
"""Bits of a pixel's fraction in the coordinates that OpenCV draws (`shift` in OpenCV)."""


class Canvas:
    """A square picture to paint on.

    Attributes:
        pixels: (side, side, 3) float32, BGR, 0 to 1.
        side: Side of the picture, pixels.
        unit: Pixels per unit of the head. Widths and blur radii of the methods are in units of the head.
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
        mask: Float32 | None = None,
    ) -> None:
        """Fills an outline.

        Args:
            outline: (n, 2) float64, pixels, x before y.
            colour: (3,) float64, BGR, 0 to 1.
            alpha: Opacity, 0 to 1.
            soft: Sigma of the Gaussian blur of the edge, units of the head.
            mask: (side, side) float32, 0 to 1, factor of the opacity of each pixel; None for 1.
        """
        self._blend(self._layer(outline, None, soft), colour, alpha, mask)

    def stroke(
        self,
        line: Float64,
        colour: Colour,
        width: float,
        *,
        alpha: float = 1.0,
        soft: float = 0.0,
        mask: Float32 | None = None,
    ) -> None:
        """Draws a line. A line thinner than a pixel is drawn one pixel wide with less opacity.

        Args:
            line: (n, 2) float64, pixels, x before y.
            colour: (3,) float64, BGR, 0 to 1.
            width: Width of the line, units of the head.
            alpha: Opacity, 0 to 1.
            soft: Sigma of the Gaussian blur of the line, units of the head.
            mask: (side, side) float32, 0 to 1, factor of the opacity of each pixel; None for 1.
        """
        pixels = width * self.unit
        self._blend(self._layer(line, max(1, round(pixels)), soft), colour, alpha * min(1.0, pixels), mask)

    def mask(self, outline: Float64, soft: float = 0.0) -> Float32:
        """Returns (side, side) float32: 1 inside an outline, 0 outside.

        Args:
            outline: (n, 2) float64, pixels, x before y.
            soft: Sigma of the Gaussian blur of the edge, units of the head.
        """
        mask = np.zeros((self.side, self.side), np.float32)
        area, coverage = self._layer(outline, None, soft)
        mask[area] = coverage
        return mask

    def shade(self, factor: Float32) -> None:
        """Multiplies the pixels by a factor, (side, side) float32."""
        self.pixels *= factor[..., None]

    def _layer(self, points: Float64, width: int | None, soft: float) -> Layer:
        """Returns the coverage of a filled outline (`width` None) or of a line `width` pixels wide."""
        sigma = soft * self.unit
        margin = int(3 * sigma) + (width or 0) + 2
        low = np.clip(np.floor(points.min(axis=0)) - margin, 0, self.side).astype(int)
        high = np.clip(np.ceil(points.max(axis=0)) + margin + 1, 0, self.side).astype(int)
        area = (slice(low[1], high[1]), slice(low[0], high[0]))
        if not (high > low).all():
            return area, np.zeros((max(high[1] - low[1], 0), max(high[0] - low[0], 0)), np.float32)
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        corners = [np.rint((points - low) * (1 << FRACTION_BITS)).astype(np.int32)]
        if width is None:
            cv2.fillPoly(mask, corners, (255,), cv2.LINE_AA, FRACTION_BITS)
        else:
            cv2.polylines(mask, corners, False, (255,), width, cv2.LINE_AA, FRACTION_BITS)
        sharp = mask.astype(np.float32) / 255
        return area, np.asarray(cv2.GaussianBlur(sharp, (0, 0), sigma) if sigma > 0.3 else sharp, np.float32)

    def _blend(self, layer: Layer, colour: Colour, alpha: float, mask: Float32 | None) -> None:
        """Blends a colour into the pixels of a layer."""
        area, coverage = layer
        if not coverage.size:
            return
        opacity = coverage * np.float32(alpha) if mask is None else coverage * mask[area] * np.float32(alpha)
        pixels = self.pixels[area]
        pixels += opacity[..., None] * (colour.astype(np.float32) - pixels)

    def render(self, noise: Float64, blur: float) -> Uint8:
        """Returns the picture with the blur of a lens and the noise of a sensor.

        Args:
            noise: (side, side, 3) float64, added to the pixels, 1 is white.
            blur: Sigma of the Gaussian blur, pixels.

        Returns:
            (side, side, 3) uint8, BGR.
        """
        pixels = cv2.GaussianBlur(self.pixels, (0, 0), blur) if blur > 0.25 else self.pixels
        return np.asarray(np.clip(np.rint((pixels + noise) * 255), 0, 255), np.uint8)


def ellipse(centre: Float64, right: Float64, down: Float64) -> Float64:
    """Returns the outline of an ellipse, (48, 2) float64, pixels, x before y.

    Args:
        centre: (2,) float64, pixels.
        right: (2,) float64, first half axis, pixels.
        down: (2,) float64, second half axis, pixels.
    """
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)[:, None]
    return np.asarray(centre + np.cos(angle) * right + np.sin(angle) * down)


def palette_colour(palette: Float64, position: float) -> Colour:
    """Returns the colour at a position of a palette, interpolated linearly.

    Args:
        palette: (n, 3) float64, BGR, 0 to 1.
        position: 0 for the first colour, 1 for the last.
    """
    index = np.clip(position, 0, 1) * (len(palette) - 1)
    return np.array([np.interp(index, np.arange(len(palette)), palette[:, channel]) for channel in range(3)])
