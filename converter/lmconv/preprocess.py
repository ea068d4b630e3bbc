"""From pixels to a network's input, as the spec says; one place for every command."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from lmconv.errors import UsageError
from lmconv.types import Float32, Preprocess, Uint8


def normalise(planes: Uint8, preprocess: Preprocess) -> Float32:
    """Applies `(pixel * scale - mean) / std` per channel.

    Args:
        planes: (n, 3, H, W) uint8, channels in the network's colour order.
        preprocess: The constants.

    Returns:
        (n, 3, H, W) float32.
    """
    mean = np.float32(preprocess.mean).reshape(3, 1, 1)
    std = np.float32(preprocess.std).reshape(3, 1, 1)
    scaled = planes.astype(np.float32) * np.float32(preprocess.scale)
    return scaled if not mean.any() and (std == 1).all() else (scaled - mean) / std


def network_input(crops: Uint8, preprocess: Preprocess) -> Float32:
    """Turns crops into a network's input.

    Args:
        crops: (n, H, W, 3) uint8, BGR.
        preprocess: Colour order and constants.

    Returns:
        (n, 3, H, W) float32, contiguous.
    """
    ordered = crops if preprocess.colour == "BGR" else crops[..., ::-1]
    return normalise(np.ascontiguousarray(ordered.transpose(0, 3, 1, 2)), preprocess)


def parse(text: str) -> Preprocess:
    """Reads `COLOUR[,SCALE[,MEAN,STD]]`, such as `BGR,1/255` or `RGB,1/255,0.485:0.456:0.406,0.229:0.224:0.225`.

    Raises:
        UsageError: It is not of that form.
    """
    colour, *numbers = text.split(",")
    try:
        scale, mean, std = [*[_numbers(part) for part in numbers], *[(1 / 255,), (0.0,), (1.0,)][len(numbers) :]]
        if colour not in ("BGR", "RGB") or len(scale) != 1 or 0 in std:
            raise ValueError(text)
        return Preprocess(colour=colour, scale=scale[0], mean=_three(mean), std=_three(std))  # type: ignore[arg-type]
    except (ValueError, ZeroDivisionError) as error:
        hint = "COLOUR[,SCALE[,MEAN,STD]], such as BGR,1/255 or RGB,1/255,0.485:0.456:0.406,0.229:0.224:0.225"
        raise UsageError(f"--preprocess {text!r} cannot be read", hint=hint) from error


def _numbers(part: str) -> tuple[float, ...]:
    return tuple(float(Fraction(number)) for number in part.split(":"))


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    one, two, three = values * 3 if len(values) == 1 else values
    return one, two, three
