"""An ONNX file, unchanged, in ONNX Runtime: finds the image input and its size, and runs images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from lmconv.errors import InputError, UsageError
from lmconv.inference.ort import OrtSession, reason
from lmconv.opsets.training import batchwide
from lmconv.sources.onnx_files.constants import NONE, typed
from lmconv.sources.onnx_files.image import ImageInput, candidates
from lmconv.sources.onnx_files.output import FileOutput, numeric, rows
from lmconv.sources.onnx_files.reading import graph_inputs
from lmconv.types import Arrays, Float32

if TYPE_CHECKING:
    import onnx

SIDES = (112, 224, 256, 128, 192, 96, 64, 160, 48, 120, 80, 60, 40, 56, 32)
"""Sides that are tried for images of an undeclared size, pixels: the usual sizes of landmark networks."""
LARGEST_SIDE = 9999
"""Largest side of an image, pixels; also of `--input`."""
BATCH_TOLERANCE = 3e-5
"""Largest difference between images together and one by one, fractions of the largest output: sums are reordered."""
REPEAT_TOLERANCE = 1e-6
"""Largest difference between two runs on the same images, fractions of the largest output."""


class Original:
    """An ONNX file, unchanged, in ONNX Runtime fp32.

    Attributes:
        image: The image input; its size is None if the file takes images of any size.
        size: (height, width) of the images, pixels; the first usual size if the file takes images of any size.
        varying: Names of the outputs whose shape depends on the size of the images.
    """

    def __init__(
        self,
        path: Path,
        model: onnx.ModelProto,
        *,
        size: tuple[int, int] | None = None,
        outputs: Sequence[str] = (),
        constants: Mapping[str, Any] = NONE,
        threads: int = 0,
    ) -> None:
        """Loads the file, and runs the file to find the layout and the size of its images.

        Args:
            path: The file.
            model: The content of the file.
            size: (height, width) of the images, pixels; None for the size that the file declares or accepts.
            outputs: Names of the outputs; empty for all.
            constants: Values of the inputs that are no image, by name.
            threads: Number of intra-op threads; 0 for the default.

        Raises:
            InputError: ONNX Runtime cannot load or run the file, or the file takes no image.
            UsageError: The file takes none of the usual sizes, or another size than `size`, or a value for a further
                input is missing or wrong.
        """
        self._path, self._outputs = path, tuple(outputs)
        self._several: bool | None = None
        self._batchwide = bool(batchwide(model))
        self._constants = typed(path, model, constants)
        images = _images(path, model, self._constants)
        try:
            self._session = OrtSession(path, threads=threads)
        except Exception as error:  # ONNX Runtime raises types of its compiled module
            raise InputError(f"ONNX Runtime cannot load {path}: {reason(error)}") from error
        self.image, self.size, self.varying = self._found(images, size)

    def run(self, images: Float32) -> dict[str, Float32]:
        """Runs the file on images, in batches that the file takes.

        Args:
            images: (n, 3, H, W) float32: the numbers that the file takes, whatever the type and layout of the file.

        Returns:
            Outputs by name, (n, ...) float32; an output without a batch axis gets one. Outputs that hold no numbers
            are left out.
        """
        size = self.batch or len(images)
        padding = -len(images) % size
        padded = np.concatenate([images, np.repeat(images[-1:], padding, 0)]) if padding else images
        runs = [self._once(self.image, padded[start : start + size]) for start in range(0, len(padded), size)]
        return {name: np.concatenate([run[name] for run in runs])[: len(images)] for name in runs[0]}

    @property
    def batch(self) -> int | None:
        """Number of images of a run; None if the file takes several images, and computes the same as for each alone."""
        if self.image.batch:
            return self.image.batch
        if self._several is None:
            self._several = self._takes_several()
        return None if self._several else 1

    def mixes(self) -> bool:
        """True if the outputs of an image depend on the other images of its batch."""
        pair = None if self.image.batch else self._pair()
        return pair is not None and not self._takes_several() and _alike(*pair)

    def fix(self, batch: int) -> None:
        """Fixes the number of images of a run of a file that takes several."""
        self.image = replace(self.image, batch=batch)

    def probed(self) -> dict[str, Float32]:
        """Returns the outputs for seeded images; see `run`."""
        return self._once(self.image, self._probe(self.image, self.size))

    def each(self, images: Float32) -> list[dict[str, Float32]]:
        """Returns the outputs for each image alone, as `run` of one image; shapes may differ from image to image."""
        size = self.image.batch or 1
        runs = (self._once(self.image, np.repeat(image[None], size, 0)) for image in images)
        return [{name: value[:1] for name, value in run.items()} for run in runs]

    def repeats(self, name: str) -> bool:
        """True if two runs on the same images give the same output `name`."""
        first, second = self.probed(), self.probed()
        return all_close({name: first[name]}, {name: second[name]}, REPEAT_TOLERANCE)

    def outputs(self) -> dict[str, FileOutput]:
        """Returns the description of each output, by name."""
        images = self._probe(self.image, self.size)
        return {name: FileOutput.of(value, len(images)) for name, value in self._raw(self.image, images).items()}

    def agrees(self, session: OrtSession, tolerance: float) -> bool:
        """True if a graph in float32 with the inputs of the file gives the outputs of the file.

        Args:
            session: The graph.
            tolerance: Largest difference, fractions of the largest output.
        """
        images = self._probe(self.image, self.size)
        array = self.image.fed(images)
        found = numeric(session.run({self.image.name: array if self.image.whole else array.astype(np.float32)}))
        expected = self._once(self.image, images)
        return all_close({name: rows(found[name], len(images)) for name in expected}, expected, tolerance)

    @property
    def any_size(self) -> bool:
        """True if the file takes images of any size."""
        return self.image.size == (None, None)

    def _found(
        self, images: Sequence[ImageInput], size: tuple[int, int] | None
    ) -> tuple[ImageInput, tuple[int, int], frozenset[str]]:
        """Returns the first image that the file accepts, with the attributes `size` and `varying`."""
        failure: Exception | None = None
        for image in images:
            accepted = []
            for sides in _sizes(self._path, image, size):
                try:
                    accepted.append((sides, self._once(image, self._probe(image, sides))))
                except Exception as error:  # ONNX Runtime raises types of its compiled module
                    failure = failure or error
            if accepted:
                first, outputs = accepted[0]
                fixed = replace(image, size=first if len(accepted) == 1 else image.size)
                shapes = {name: {other[name].shape for _, other in accepted} for name in outputs}
                return fixed, first, frozenset(name for name, different in shapes.items() if len(different) > 1)
        assert failure
        if size is None and None in images[0].size:
            message = f"{self._path} declares no size of its images, and none of the usual sizes fits"
            raise UsageError(message, hint="name the size, such as --input 3x112x112") from failure
        raise InputError(f"ONNX Runtime cannot run {self._path}: {reason(failure)}") from failure

    def _takes_several(self) -> bool:
        pair = self._pair()
        return pair is not None and not self._batchwide and all_close(*pair, BATCH_TOLERANCE)

    def _pair(self) -> tuple[dict[str, Float32], dict[str, Float32]] | None:
        """Returns the outputs for two images together and one by one; None if the file takes one image."""
        images = np.concatenate([self._probe(self.image, self.size, seed) for seed in (1, 2)])
        try:
            together = self._once(self.image, images)
        except Exception:  # any error means that the file takes one image
            return None
        alone = [self._once(self.image, image[None]) for image in images]
        return together, {name: np.concatenate([run[name] for run in alone]) for name in together}

    def _once(self, image: ImageInput, images: Float32) -> dict[str, Float32]:
        """Runs the file once; see `run`."""
        return {name: rows(value, len(images)) for name, value in self._raw(image, images).items()}

    def _raw(self, image: ImageInput, images: Float32) -> dict[str, NDArray[Any]]:
        """Runs the file once; returns the outputs of numbers as the file gives them."""
        further = {name: constant.repeated(len(images)) for name, constant in self._constants.items()}
        outputs = numeric(self._session.run({image.name: image.fed(images), **further}))
        return {name: value for name, value in outputs.items() if not self._outputs or name in self._outputs}

    def _probe(self, image: ImageInput, size: tuple[int, int], seed: int = 0) -> Float32:
        """Returns seeded images for one run, (n, 3, H, W) float32, by the default pre-processing of the file."""
        pixels = np.random.default_rng(seed).integers(0, 256, (image.batch or 1, 3, *size))
        rule = image.preprocess
        return (pixels * rule.scale - rule.mean[0]).astype(np.float32)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.__exit__(kind, error, trace)


def _images(path: Path, model: onnx.ModelProto, constants: Collection[str]) -> list[ImageInput]:
    """Returns the possible forms of the image input, see `candidates`.

    Args:
        path: The file.
        model: The content of the file.
        constants: Names of the inputs that have a value.

    Raises:
        InputError: The file has no image input.
        UsageError: A further input has no value, or the image has one.
    """
    inputs = [value for value in graph_inputs(model) if value.name not in constants]
    found = [images for value in inputs if (images := candidates(value))]
    if not found:
        if image := next((value.name for value in graph_inputs(model) if candidates(value)), ""):
            raise UsageError(f"--constant {image}: {image} is the image of {path}", hint="leave the option out")
        summary = f"inputs {describe(inputs)}" if inputs else "no input"
        message = f"{path} has {summary}, and none is an image of three channels, (N, 3, H, W) or (N, H, W, 3)"
        raise InputError(message, hint="export it with such an input")
    if len(found) > 1:
        names = ", ".join(images[0].name for images in found)
        hint = f"give the others as --constant {found[-1][0].name}=VALUE"
        raise UsageError(f"{path} has {len(found)} inputs that can be the image: {names}", hint=hint)
    if further := [value for value in inputs if value.name != found[0][0].name]:
        hint = "give " + " ".join(f"--constant {value.name}=VALUE" for value in further)
        raise UsageError(f"{path} needs {describe(further)} beside the image", hint=hint)
    return found[0]


def _sizes(path: Path, image: ImageInput, size: tuple[int, int] | None) -> list[tuple[int, int]]:
    """Returns the sizes to try for an image.

    Raises:
        InputError: The file declares a side above `LARGEST_SIDE`.
        UsageError: The file declares another size than `size`.
    """
    height, width = image.size
    if max(height or 0, width or 0) > LARGEST_SIDE:
        message = f"{path} takes images of {height or '?'}x{width or '?'}, and sides above {LARGEST_SIDE} are refused"
        raise InputError(message, hint="export it with the size of its images")
    if size and (height or size[0], width or size[1]) != size:
        message = f"{path} takes images of 3x{height or 'H'}x{width or 'W'}, not 3x{size[0]}x{size[1]}"
        raise UsageError(message, hint="leave --input out, or name that size")
    if size:
        return [size]
    square = height or width
    return [(height or square, width or square)] if square else [(side, side) for side in SIDES]


def all_close(outputs: Arrays, expected: Arrays, tolerance: float) -> bool:
    """True if all outputs have equal shapes, and differ by at most `tolerance` of the largest finite number."""
    for name, values in expected.items():
        scale = np.abs(values[np.isfinite(values)]).max(initial=0)
        if outputs[name].shape != values.shape:
            return False
        if not np.allclose(outputs[name], values, rtol=0, atol=tolerance * scale, equal_nan=True):
            return False
    return True


def _alike(outputs: Arrays, expected: Arrays) -> bool:
    """True if all outputs have equal shapes."""
    return all(outputs[name].shape == values.shape for name, values in expected.items())


def describe(values: Sequence[onnx.ValueInfoProto]) -> str:
    """Returns names, types and declared shapes of inputs or outputs, in words."""
    from onnx import TensorProto

    kinds = [TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower() for value in values]
    return ", ".join(f"{value.name} {kind} {shape_of(value)}" for value, kind in zip(values, kinds, strict=True))


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    """Returns the declared shape of an input or output; names for free axes, "?" for an axis without a name."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims]
