"""Writes the command that rebuilds an artefact on this machine."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from lmconv.errors import LmconvError
from lmconv.networks.interfaces import interface_of
from lmconv.networks.published import NUMBERS, THREE_DIMENSIONAL
from lmconv.plugins import BACKBONES
from lmconv.sources.usercode import is_factory
from lmconv.store.artifact import bound_px
from lmconv.types import ONNX, Artifact, ChosenOutputs, Json, ModelSpec, Preprocess


def command(artifact: Artifact) -> str:
    """Returns the `lmconv export …` command for an artefact, from its manifest. FACES stands for the user's folder."""
    return shlex.join(["lmconv", "export", *_arguments(artifact)])


def _arguments(artifact: Artifact) -> Iterator[str]:
    spec, source = artifact.spec, artifact.parents["source"]
    name: str = source["file"] if spec.backbone == ONNX else spec.backbone
    yield f"./{name}" if name.startswith("-") else name  # otherwise the name would be read as an option
    if source.get("seed") is not None:
        yield from ("--random-weights", "--seed", str(source["seed"]))
    elif spec.backbone != ONNX:
        yield from ("--weights", source["file"])
    yield from _network(spec, str(source["file"]))
    yield from ("--to", artifact.target, "--precision", str(artifact.precision))
    yield from interface_of(spec).options
    if artifact.recipe.get("faces"):
        yield from ("--calibration", "FACES")
    if (bound := bound_px(artifact)) is not None:
        yield from ("--compact-px", f"{bound:g}")
    yield from engine(artifact.recipe.get("engine") or {}, spec.batch)


def engine(recipe: Json, batch: int | None) -> Iterator[str]:
    """Yields the options of `lmconv export` that define an engine.

    Args:
        recipe: Entry `engine` of an artefact's recipe.
        batch: Fixed batch size; None for a profile.
    """
    if batch is not None:
        yield from ("--batch", str(batch))
    elif "batches" in recipe:
        yield from ("--batch", ":".join(map(str, recipe["batches"])))
    if "workspace" in recipe:
        yield from ("--workspace", _bytes(recipe["workspace"]))
    if "builder_level" in recipe:
        yield from ("--builder-level", str(recipe["builder_level"]))
    for name in ("version_compatible", "hardware_compatible"):
        if recipe.get(name):
            yield f"--{name.replace('_', '-')}"


def _bytes(number: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if number % size == 0:
            return f"{number // size}{unit}"
    return str(number)


def _network(spec: ModelSpec, file: str) -> Iterator[str]:
    """Yields the options for reading the network that differ from the defaults of its name."""
    custom = spec.backbone == ONNX or is_factory(spec.backbone)
    default = None if custom else _backbone_spec(spec.backbone)
    if spec.name != (file.rpartition(".")[0] if spec.backbone == ONNX else spec.backbone):
        yield from ("--name", spec.name)
    if is_factory(spec.backbone) or (default and default.sample and not spec.sample):
        yield from ("--input", "x".join(map(str, (3, *spec.input_size))))
    if spec.backbone != ONNX and spec.landmarks != (default.landmarks if default else None):
        yield from ("--landmarks", str(spec.landmarks))
    if spec.preprocess != (default.preprocess if default else Preprocess()):
        yield from ("--preprocess", _preprocess(spec.preprocess))
    if spec.heatmaps and spec.heatmaps != (default.heatmaps if default else None):
        beta = "" if spec.heatmaps.method == "argmax" or not spec.heatmaps.beta else f":{spec.heatmaps.beta:g}"
        yield from ("--decode", spec.heatmaps.method + beta)
    if spec.chosen:
        yield from _outputs(spec, spec.chosen)
    if spec.output_slice:
        yield from ("--output-slice", ":".join(map(str, spec.output_slice)))


def _outputs(spec: ModelSpec, chosen: ChosenOutputs) -> Iterator[str]:
    """Yields the options for the outputs of a source that lmconv may not choose by itself."""
    if chosen.left_out:
        yield from ("--output", ",".join(chosen.names))
    if spec.backbone == ONNX and not spec.output_slice and spec.landmarks not in NUMBERS:
        yield from ("--landmarks", str(spec.landmarks))
    if chosen.unit_reason == "--unit":
        yield from ("--unit", spec.decode)
    kept = "xyz"[: int(spec.outputs[0].shape[-1])]
    if kept != chosen.axes or (kept == "xyz" and spec.landmarks not in THREE_DIMENSIONAL):
        yield from ("--coordinates", kept)


def _backbone_spec(name: str) -> ModelSpec | None:
    try:
        backbone = BACKBONES.load(name)
    except LmconvError:  # the backbone is part of another package, or PyTorch is missing
        return None
    return backbone.spec


def _preprocess(preprocess: Preprocess) -> str:
    def per_channel(values: tuple[float, float, float]) -> str:
        return repr(values[0]) if len(set(values)) == 1 else ":".join(map(repr, values))

    parts = (preprocess.colour, repr(preprocess.scale), per_channel(preprocess.mean), per_channel(preprocess.std))
    return ",".join(parts)
