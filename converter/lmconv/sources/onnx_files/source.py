"""An ONNX file as the source network: its spec, and its unchanged computation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from lmconv.errors import InputError, UsageError
from lmconv.inference.session import noise
from lmconv.networks.candidates import SEEDED, Candidate, Candidates
from lmconv.networks.heads import head_of
from lmconv.sources.choice import choose
from lmconv.sources.onnx_files.constants import NONE
from lmconv.sources.onnx_files.original import Original, describe, shape_of
from lmconv.sources.onnx_files.random import require_repeatable
from lmconv.sources.onnx_files.reading import graph_inputs, load_onnx, path_of
from lmconv.types import ONNX, Arrays, ModelSpec, OutputOptions, Preprocess, Source, landmark_spec, with_any_size

if TYPE_CHECKING:
    import onnx

    from lmconv.sources.onnx_files.image import ImageInput


class OnnxSource:
    """A `Session` on the user's ONNX file, unchanged, in ONNX Runtime fp32.

    Attributes:
        source: The source.
        original: The file in ONNX Runtime.
        outputs: Names of the outputs in use, in the order of the spec.
    """

    execution_mismatch = ""

    def __init__(self, source: Source, *, threads: int = 0) -> None:
        self.source = source
        path = path_of(source)
        model = load_onnx(path)
        self._head = head_of(source.spec)
        if self._head.published_outputs:
            _check_published(model, source)
        names = [value.name for value in model.graph.output]
        first = names if self._head.published_outputs else names[:1]
        self.outputs = source.spec.chosen.names if source.spec.chosen else tuple(first)
        if lost := [name for name in self.outputs if name not in names]:
            raise InputError(f"{path} has no output {lost[0]}", hint="this is not the file of the artefact")
        self.original = Original(
            path, model, size=source.spec.input_size, outputs=self.outputs, constants=source.constants, threads=threads
        )
        if source.spec.batch and not self.original.image.batch:
            self.original.fix(source.spec.batch)

    @property
    def notes(self) -> list[str]:
        """Unusual facts about the input, one sentence each."""
        image, spec = self.original.image, self.source.spec
        height, width = spec.input_size
        notes = []
        if spec.sample:
            notes.append(f"it takes images of any size, compared at {height}x{width}; --input fixes another")
        if image.whole:
            kind = f"{image.kind} {image.layout}"
            notes.append(f"its input {image.name} is {kind}; the artefact takes the same numbers as float32 NCHW")
        return notes

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
    options: OutputOptions,
    *,
    size: tuple[int, int] | None = None,
    preprocess: Preprocess | None = None,
    constants: Mapping[str, Any] = NONE,
) -> ModelSpec:
    """Reads the spec of an ONNX file with one image input, and chooses the outputs that hold the landmarks.

    Args:
        path: The file.
        options: User options about the outputs.
        size: (height, width) of the images, pixels, for a file that takes several sizes.
        preprocess: Pre-processing; None for the default of the file's type.
        constants: Values of the inputs that are no image, by name.

    Returns:
        The spec. The input is `input` (N, 3, H, W) float32 whatever the file takes. `sample` is set if the file takes
        images of any size.

    Raises:
        InputError: The file has another input, or random operators, or no output that can hold landmarks.
        UsageError: The user must name an output, an option fits no output, the size of the images is not known, or the
            pre-processing gives fractions to a file that takes integers.
    """
    model = _with_outputs(path)
    with Original(path, model, size=size, constants=constants) as original:
        spec = choose(*_described(path, original, preprocess), options)
        assert spec.chosen
        for name in spec.chosen.names:
            require_repeatable(path, model, [name], repeats=original.repeats(name))
            if name in original.varying:
                hint = "name the size, such as --input 3x112x112"
                raise UsageError(f"{path} takes images of any size, and {name} depends on the size", hint=hint)
    return with_any_size(spec) if original.any_size else spec


def described(
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    preprocess: Preprocess | None = None,
    constants: Mapping[str, Any] = NONE,
) -> tuple[str, Candidates, ModelSpec]:
    """Describes a file before any choice: input in words, all outputs, and the spec of the input; see `onnx_spec`."""
    with Original(path, _with_outputs(path), size=size, constants=constants) as original:
        return original.image.label, *_described(path, original, preprocess)


def _with_outputs(path: Path) -> onnx.ModelProto:
    model = load_onnx(path)
    if not model.graph.output:
        raise InputError(f"{path} has no output", hint="export it with the landmarks as its output")
    return model


def _described(path: Path, original: Original, preprocess: Preprocess | None) -> tuple[Candidates, ModelSpec]:
    """Returns the outputs of a file that hold numbers, with their values for seeded inputs, and the input's spec."""
    spec = landmark_spec(path.stem, ONNX, size=original.size, landmarks=0)
    spec = replace(spec, preprocess=_preprocess(path, original.image, preprocess))
    runs, forms = original.each(noise(spec, SEEDED, 0)), original.outputs()
    outputs = []
    for name, form in forms.items():
        rows = [run[name] for run in runs]
        same = len({row.shape for row in rows}) == 1
        values = np.concatenate(rows) if same else rows[0][:0].reshape(0)
        outputs.append(Candidate(name=name, values=values, dtype=form.kind, batched=form.batched))
    return Candidates(source=str(path), outputs=outputs), spec


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
