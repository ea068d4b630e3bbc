"""Options that several commands share: description of a network, and trust in engines."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from lmconv.errors import UsageError
from lmconv.types import Axes, PointUnit

if TYPE_CHECKING:
    from lmconv.types import Json

F = TypeVar("F", bound=Callable[..., Any])

TRUST = "Load engines that you have not built. Engines are code and run with your rights; lmconv remembers your trust."
"""Help of `--trust`."""
WEIGHTS = "Checkpoint of the network, or a folder to search first."
"""Help of `--weights` of commands that convert."""
SOURCE_WEIGHTS = "Checkpoint of the source network, or a folder to search first."
"""Help of `--weights` of commands that compare artefacts with the source network."""
OWN_MODEL = "Builder FILE.py:NAME of your own network; lmconv runs its code only if you name it here."
"""Help of `--model`."""
TO = "Target, such as openvino; may be repeated."
"""Help of `--to`."""
OUT = "Folder for artefacts."
"""Help of `--out`."""
SPLIT = "Part of the data set to use."
"""Help of `--split`."""

SOURCE = (
    click.option(
        "--key",
        help="Dotted name in the checkpoint below which the weights lie, such as model.ema.  [default: what fits]",
    ),
    click.option(
        "--landmarks", type=click.IntRange(1), help="Number of points, such as 98.  [default: the network's number]"
    ),
    click.option(
        "--input",
        "shape",
        help="Shape CxHxW of the input, such as 3x112x112; for your own network, or for a network that takes any size.",
    ),
    click.option(
        "--preprocess",
        help="Preprocessing COLOUR[,SCALE[,MEAN,STD]], such as BGR,1/255.  [default: the backbone's]",
    ),
    click.option(
        "--output",
        "output",
        metavar="NAME|INDEX",
        help="Output of your own network or ONNX file that holds the points.  [default: the only one that can]",
    ),
    click.option(
        "--unit",
        type=click.Choice(get_args(PointUnit)),
        help="Unit of the points: fraction or pixels of the input, or -1 to 1.  [default: as the values show]",
    ),
    click.option(
        "--coordinates",
        type=click.Choice(get_args(Axes)),
        help="Coordinates to keep of points with three coordinates.  [default: xyz]",
    ),
    click.option(
        "--decode",
        help="Decoding of heatmaps: argmax (moved by a quarter cell), soft-argmax[:BETA], or simcc[:CELLS_PER_PIXEL].",
    ),
    click.option("--output-slice", help="Range START:STOP of the output that holds the points or the heatmaps."),
    click.option(
        "--constant",
        "constants",
        multiple=True,
        help="Further argument NAME=VALUE of your own network's forward(), or further input of an ONNX file, such as "
        "scale=2; may be repeated.",
    ),
    click.option("--name", help="Name of the model and of its folder.  [default: the network's own name]"),
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
        key: Dotted name in the checkpoint below which the weights lie.
        landmarks: Number of points.
        shape: Input shape, as typed in `--input`.
        preprocess: Preprocessing, as typed.
        output: Output that holds the points, as typed.
        unit: Unit of the points.
        coordinates: Coordinates to keep.
        decode: Decoding of heatmaps, as typed.
        output_slice: Range of the output, as typed.
        constants: Values of further arguments of forward(), or of further inputs of an ONNX file, as typed.
        name: Name of the model and its folder.
    """

    weights: Path | None
    key: str | None
    landmarks: int | None
    shape: str | None
    preprocess: str | None
    output: str | None
    unit: PointUnit | None
    coordinates: Axes | None
    decode: str | None
    output_slice: str | None
    constants: tuple[str, ...]
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
            "key": self.key,
            "seed": seed,
            "landmarks": self.landmarks,
            "size": _size(self.shape),
            "preprocess": preprocessing.parse(self.preprocess) if self.preprocess is not None else None,
            "output": self.output,
            "unit": self.unit,
            "coordinates": self.coordinates,
            "decode": heatmaps.parse(self.decode) if self.decode is not None else None,
            "output_slice": _slice(self.output_slice),
            "constants": dict(_constant(text) for text in self.constants) or None,
            "name": self.name,
        }


def _slice(text: str | None) -> tuple[int, int] | None:
    """Parses `--output-slice`; returns the half-open range."""
    if text is None:
        return None
    start, colon, stop = text.partition(":")
    if not (colon and start.isdecimal() and stop.isdecimal()):
        raise UsageError(f"--output-slice {text!r} is not START:STOP", hint="give a range such as --output-slice 0:136")
    return int(start), int(stop)


def _constant(text: str) -> tuple[str, Any]:
    """Parses a value of `--constant`; returns the name, and a number, bool, None, text or list."""
    name, equals, value = text.partition("=")
    hint = "give a number, a list such as [1,2], True, False, None, or a text in quotes: --constant scale=2"
    if not (equals and name.strip()):
        raise UsageError(f"--constant {text!r} is not NAME=VALUE", hint=hint)
    try:
        parsed = ast.literal_eval(value.strip())
    except (ValueError, SyntaxError) as error:
        raise UsageError(f"--constant {text!r}: {value!r} is not a value", hint=hint) from error
    return name.strip(), list(parsed) if isinstance(parsed, tuple) else parsed


def _size(text: str | None) -> tuple[int, int] | None:
    """Parses `--input`; returns (height, width), pixels."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 3 or sides[0] != "3" or not all(re.fullmatch("[1-9][0-9]{0,3}", side) for side in sides):
        message = f"--input {text!r} is not 3xHEIGHTxWIDTH with sides below 10000"
        raise UsageError(message, hint="give a shape such as --input 3x112x112")
    return int(sides[1]), int(sides[2])
