"""Options that several commands share: description of a network, and trust in engines."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from lmconv.errors import UsageError
from lmconv.types import Json

F = TypeVar("F", bound=Callable[..., Any])

TRUST = "Load engines that you have not built here: they are code, run as you; noted, so that once is enough."

SOURCE = (
    click.option("--landmarks", type=click.IntRange(1), help="How many points, such as 98; default: the network's."),
    click.option(
        "--input", "shape", help="CxHxW of a network of your own, or of one that takes any size; such as 3x112x112."
    ),
    click.option("--preprocess", help="COLOUR[,SCALE[,MEAN,STD]], such as BGR,1/255; default: the backbone's."),
    click.option("--decode", help="Heatmaps to points: argmax (with a quarter-cell shift), or soft-argmax[:BETA]."),
    click.option("--output-slice", help="START:STOP of an ONNX file's output that holds the points or heatmaps."),
    click.option("--name", help="What the model and its folder are called; default: its own name."),
)


def source_options(command: F) -> F:
    """Adds the options that describe a network, except its name and weights."""
    for option in reversed(SOURCE):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """Base class of command requests: values of `source_options` and of `--weights`.

    Attributes:
        weights: Checkpoint of the network, or a folder to search first.
        landmarks: Number of points.
        shape: Input shape, as typed in `--input`.
        preprocess: Preprocessing, as typed.
        decode: Decoding of heatmaps, as typed.
        output_slice: Range of an ONNX file's output, as typed.
        name: Name of the model and its folder.
    """

    weights: Path | None
    landmarks: int | None
    shape: str | None
    preprocess: str | None
    decode: str | None
    output_slice: str | None
    name: str | None

    def source_arguments(self, seed: int | None = None) -> Json:
        """Returns the arguments of `lmconv.sources.resolve.resolve`, without the model.

        Args:
            seed: Seed for random weights where no checkpoint exists; None if random weights are not allowed.

        Raises:
            UsageError: An option cannot be parsed.
        """
        from lmconv.networks import heatmaps
        from lmconv.networks import preprocess as preprocessing

        return {
            "weights": self.weights,
            "seed": seed,
            "landmarks": self.landmarks,
            "size": _size(self.shape),
            "preprocess": preprocessing.parse(self.preprocess) if self.preprocess is not None else None,
            "decode": heatmaps.parse(self.decode) if self.decode is not None else None,
            "output_slice": _slice(self.output_slice),
            "name": self.name,
        }


def _slice(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    start, colon, stop = text.partition(":")
    if not (colon and start.isdecimal() and stop.isdecimal()):
        raise UsageError(f"--output-slice {text!r} is not START:STOP", hint="such as --output-slice 0:136")
    return int(start), int(stop)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 3 or sides[0] != "3" or not all(re.fullmatch("[1-9][0-9]{0,3}", side) for side in sides):
        raise UsageError(f"--input {text!r} is not 3xHEIGHTxWIDTH, below 10000", hint="such as --input 3x112x112")
    return int(sides[1]), int(sides[2])
