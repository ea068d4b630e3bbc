"""Converts pixels to a network's input, as the spec says: the only implementation, for every command."""

from __future__ import annotations

import numpy as np

from lmconv.errors import UsageError
from lmconv.types import Float32, Preprocess, Uint8


def network_input(crops: Uint8, preprocess: Preprocess) -> Float32:
    """Converts crops to a network's input.

    Args:
        crops: (n, h, w, 3) uint8, BGR.
        preprocess: Colour order and normalisation.

    Returns:
        (n, 3, h, w) float32, channels in the order of `preprocess.colour`.
    """
    n, height, width, _ = crops.shape
    result: Float32 = np.empty((n, 3, height, width), np.float32)
    for channel in range(3):
        source = crops[..., channel if preprocess.colour == "BGR" else 2 - channel]
        plane = np.multiply(source, np.float32(preprocess.scale), out=result[:, channel], dtype=np.float32)
        plane -= np.float32(preprocess.mean[channel])
        plane /= np.float32(preprocess.std[channel])
    return result


def in_colours(pictures: Uint8, preprocess: Preprocess) -> Uint8:
    """Reorders the channels of pictures.

    Args:
        pictures: (..., 3) uint8, BGR.
        preprocess: Colour order of the result.

    Returns:
        (..., 3) uint8; the same array if the order is BGR.
    """
    return pictures if preprocess.colour == "BGR" else np.ascontiguousarray(pictures[..., ::-1])


def parse(text: str) -> Preprocess:
    """Reads `COLOUR[,SCALE[,MEAN,STD]]`, such as `BGR,1/255` or `RGB,1/255,0.485:0.456:0.406,0.229:0.224:0.225`.

    Raises:
        UsageError: The text has another form.
    """
    colour, *numbers = text.split(",")
    try:
        values = [_numbers(part) for part in numbers]
        scale, mean, std = values + DEFAULTS[len(values) :]
        if colour not in ("BGR", "RGB") or len(scale) != 1 or min(*scale, *std) < SMALLEST:
            raise ValueError(text)
        return Preprocess(colour=colour, scale=scale[0], mean=_three(mean), std=_three(std))  # type: ignore[arg-type]
    except (ValueError, ZeroDivisionError) as error:
        hint = "COLOUR[,SCALE[,MEAN,STD]], such as BGR,1/255 or RGB,1/255,0.485:0.456:0.406,0.229:0.224:0.225"
        raise UsageError(f"--preprocess {text!r} cannot be read", hint=hint) from error


SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""Smallest normal and largest number of float32, in which a network's input is computed."""
DEFAULTS: list[tuple[float, ...]] = [(1 / 255,), (0.0,), (1.0,)]
"""Default scale, mean and standard deviation."""


def _numbers(part: str) -> tuple[float, ...]:
    return tuple(map(_number, part.split(":")))


def _number(text: str) -> float:
    above, slash, below = text.partition("/")
    number = float(above) / float(below) if slash else float(above)
    if not abs(number) <= LARGEST:
        raise ValueError(text)
    return number


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    first, second, third = values
    return first, second, third
