"""Describes an ONNX file or a user's own network before any conversion: input, outputs, and the choice among these."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from lmconv.errors import LmconvError, UsageError
from lmconv.graph.denormals import count
from lmconv.networks.candidates import Candidates
from lmconv.sources import usercode
from lmconv.sources.choice import choose
from lmconv.sources.resolve import NetworkOptions, is_onnx, name_of, output_options
from lmconv.types import ModelSpec, Preprocess, Source, landmark_spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Description of a source.

    Attributes:
        takes: Name, dtype, shape and layout of the input, in words.
        outputs: All outputs, with their values for seeded inputs.
        denormals: Number of denormal weights.
        spec: Spec with the chosen outputs; None if the choice is refused.
        refusal: The error of `lmconv export`, if the choice is refused.
    """

    takes: str
    outputs: Candidates
    denormals: int
    spec: ModelSpec | None
    refusal: LmconvError | None = None


def is_described(model: str) -> bool:
    """True for the name of an ONNX file or of a user's own network."""
    return is_onnx(model) or usercode.is_factory(model)


def describe(model: str, **options: Unpack[NetworkOptions]) -> Description:
    """Runs a source on seeded inputs, and describes the source. A network without weights gets seeded random weights.

    Raises:
        UsageError: A network of the user needs a size or a number of points.
        InputError: The source is broken.
    """
    description, spec = (_file if is_onnx(model) else _network)(model, options)
    try:
        return replace(description, spec=choose(description.outputs, spec, output_options(options)))
    except LmconvError as error:
        return replace(description, refusal=error)


def _file(model: str, options: NetworkOptions) -> tuple[Description, ModelSpec]:
    """Returns the description of an ONNX file before the choice of its outputs, and the spec with what is known."""
    from lmconv.sources.onnx_files.reading import load_onnx
    from lmconv.sources.onnx_files.source import described

    path, preprocess, constants = Path(model), options.get("preprocess"), options.get("constants") or {}
    takes, outputs, spec = described(path, size=options.get("size"), preprocess=preprocess, constants=constants)
    return Description(takes=takes, outputs=outputs, denormals=count(load_onnx(path)), spec=None), spec


def _network(model: str, options: NetworkOptions) -> tuple[Description, ModelSpec]:
    """Returns the same as `_file` for a user's own network."""
    from lmconv.sources.pytorch import described

    size, landmarks = options.get("size"), options.get("landmarks")
    if not size:
        raise UsageError(f"{model} needs --input", hint="such as --input 3x112x112")
    if not landmarks and usercode.takes_landmarks(model):
        raise UsageError(f"{model} needs --landmarks", hint="such as --landmarks 68")
    spec = landmark_spec(name_of(model), model, size=size, landmarks=landmarks or 0)
    spec = replace(spec, preprocess=options.get("preprocess") or Preprocess())
    weights, key = options.get("weights"), options.get("key") or ""
    source = Source(
        spec=spec,
        path=weights,
        sha256="",
        seed=None if weights else 0,
        factory=model,
        key=key,
        constants=options.get("constants") or {},
    )
    takes, (outputs, denormals) = f"input float32 (N, 3, {size[0]}, {size[1]}) NCHW", described(source)
    return Description(takes=takes, outputs=outputs, denormals=denormals, spec=None), spec
