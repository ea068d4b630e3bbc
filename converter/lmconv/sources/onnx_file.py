"""An ONNX file as the source network: its spec, and its unchanged computation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from lmconv.errors import InputError, UsageError
from lmconv.networks.heads import head_of
from lmconv.sources.onnx_original import Original, describe, shape_of
from lmconv.sources.onnx_random import require_repeatable
from lmconv.sources.onnx_reading import graph_inputs, load_onnx, path_of
from lmconv.types import ONNX, Arrays, Decode, ModelSpec, Preprocess, Source, landmark_spec, with_any_size

if TYPE_CHECKING:
    import onnx

    from lmconv.sources.onnx_image import ImageInput


class OnnxSource:
    """A `Session` on the user's ONNX file, unchanged, in ONNX Runtime fp32.

    Attributes:
        original: The file in ONNX Runtime.
    """

    execution_mismatch = ""

    def __init__(self, source: Source, *, threads: int = 0) -> None:
        path = path_of(source)
        model = load_onnx(path)
        self._head = head_of(source.spec)
        if self._head.published_outputs:
            _check_published(model, source)
        names = [value.name for value in model.graph.output]
        outputs = names if self._head.published_outputs else names[:1]
        self.original = Original(path, model, size=source.spec.input_size, outputs=outputs, threads=threads)
        if source.spec.batch and not self.original.image.batch:
            self.original.fix(source.spec.batch)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See `lmconv.types.Session`; a file with a fixed batch runs once per batch."""
        return self._head.from_file(self.original.run(inputs["input"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.original.__exit__(kind, error, trace)


def _check_published(model: onnx.ModelProto, source: Source) -> None:
    """Checks that a file has the inputs and outputs of its backbone's spec.

    Raises:
        InputError: An input or output differs.
    """
    spec, inputs = source.spec, graph_inputs(model)
    actual = [shape_of(value)[1:] for value in (*inputs, *model.graph.output)]
    expected = [list(tensor.shape[1:]) for tensor in (*spec.inputs, *spec.outputs)]
    names = [value.name for value in model.graph.output]
    if actual != expected or names != [tensor.name for tensor in spec.outputs]:
        summary = f"{describe(inputs)} and gives {describe(list(model.graph.output))}"
        raise InputError(f"{source.label} takes {summary}", hint=f"this is not {spec.name}; see `lmconv weights list`")


def onnx_spec(
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    output_slice: tuple[int, int] | None = None,
    how: Decode | None = None,
    preprocess: Preprocess | None = None,
) -> ModelSpec:
    """Reads the spec of an ONNX file with one image input, and points or heatmaps in its first output.

    Args:
        path: The file.
        size: (height, width) of the images, pixels, for a file that takes several sizes.
        output_slice: Half-open range of the flat output that holds the points, or of the channels with heatmaps.
        how: Decoding of heatmaps; None for points.
        preprocess: Pre-processing; None for the default of the file's type.

    Returns:
        The spec. The input is `input` (N, 3, H, W) float32 whatever the file takes. `sample` is set if the file takes
        images of any size.

    Raises:
        InputError: The file has another input, or random operators.
        UsageError: The output does not hold such points or heatmaps, the size of the images is not known, or the
            pre-processing gives fractions to a file that takes integers.
    """
    model = load_onnx(path)
    if not model.graph.output:
        raise InputError(f"{path} has no output", hint="export it with the landmarks as its output")
    with Original(path, model, size=size) as original:
        name, values = next(iter(original.probed().items()))
        require_repeatable(path, model, [name], repeats=original.repeats(name))
    if name in original.varying:
        hint = "name the size, such as --input 3x112x112"
        raise UsageError(f"{path} takes images of any size, and {name} depends on the size", hint=hint)
    landmarks = _landmarks(path, list(values.shape[1:]), output_slice, how)
    spec = landmark_spec(
        path.stem, ONNX, size=original.size, landmarks=landmarks, heatmaps=how, output_slice=output_slice
    )
    spec = replace(spec, preprocess=_preprocess(path, original.image, preprocess))
    return with_any_size(spec) if original.any_size else spec


def _preprocess(path: Path, image: ImageInput, preprocess: Preprocess | None) -> Preprocess:
    """Returns the pre-processing of an image.

    Raises:
        UsageError: The file takes integers, and the pre-processing gives fractions.
    """
    if preprocess is None or not image.whole:
        return preprocess or image.preprocess
    whole = preprocess.scale == 1 and preprocess.std == (1, 1, 1) and all(mean.is_integer() for mean in preprocess.mean)
    if not whole:
        hint = f"give --preprocess {preprocess.colour},1: the file normalises the pixels itself"
        raise UsageError(f"{path} takes {image.kind}, and --preprocess gives fractions", hint=hint)
    return preprocess


def _landmarks(path: Path, sizes: list[int], output_slice: tuple[int, int] | None, how: Decode | None) -> int:
    """Returns the number of points in the part `output_slice` of an output; `sizes` are the axes after the first."""
    if how and (len(sizes) != 3 or min(sizes[1:]) < 3):
        raise UsageError(f"{path} gives {tuple(sizes)} an input, no heatmaps", hint="leave --decode out")
    maps = len(sizes) == 3 and sizes[1] == sizes[2] > 2
    if maps and not how:
        hint = "add --decode argmax, and --output-slice START:STOP for a part of them"
        raise UsageError(f"{path} gives {sizes[0]} maps of {sizes[1]}x{sizes[2]}, not points", hint=hint)
    width = sizes[0] if how else int(np.prod(sizes))
    start, stop = output_slice or (0, width)
    if not 0 <= start < stop <= width or (not how and (stop - start) % 2):
        what = "maps" if how else "numbers"
        hint = f"its output has {width} {what}: name the points' with --output-slice START:STOP"
        raise UsageError(
            f"{what} {start}:{stop} of {path} are not points", hint=hint + ("" if how else ", an even count")
        )
    return stop - start if how else (stop - start) // 2
