"""From a source network to a checked artefact: `convert` is what `lmconv export` calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import onnx

from lmconv import artifact as artifacts
from lmconv import plugins
from lmconv.compare import difference
from lmconv.errors import GateFailed, InputError, MissingRuntime, UsageError, first_line
from lmconv.export import export
from lmconv.files import canonical
from lmconv.graph import flops, parameters, set_batch
from lmconv.machine import versions
from lmconv.optimise import Optimised, optimise
from lmconv.session import landmarks, noise
from lmconv.source import ONNX, Source, open_source
from lmconv.types import (
    OPSET,
    Artifact,
    Float32,
    Json,
    ModelSpec,
    OpenOptions,
    PassContext,
    Precision,
    QuantScheme,
    Target,
    TensorSpec,
)

PASSES = {Precision.FP16: ("float16",), Precision.INT8: ("int8",)}
"""What brings a plain graph to a precision; bf16 is a hint to OpenVINO, and changes no graph."""

TOLERANCE = {
    Precision.FP32: 1e-5,
    Precision.FP16: 1e-2,
    Precision.BF16: 5e-2,
    Precision.INT8: 2e-1,
    Precision.MIXED: 2e-1,
}
"""Largest difference of a coordinate, fractions of the input, at which an artefact is written at all.

fp32 is held to parity here; for the others this stops broken artefacts, and `lmconv verify` judges the rest.
"""

REFERENCE_INPUTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """The exported and simplified graph of a source, with what it was compared on.

    Attributes:
        artifact: Its folder, `DIR/MODEL/plain/`.
        model: The graph.
        inputs: (8, 3, H, W) float32, seeded.
        expected: (8, L, 2) float32, the source network's landmarks on them, fractions of the input.
        warnings: What was left out, and why.
        lowered: The graph in other precisions, as far as they were asked for.
    """

    artifact: Artifact
    model: onnx.ModelProto
    inputs: Float32
    expected: Float32
    warnings: list[str]
    lowered: dict[tuple[Precision, tuple[str, bool] | None], Optimised] = field(default_factory=dict)


Crops = Callable[[], Float32]


def convert(
    source: Source,
    target: str,
    precision: Precision,
    *,
    out: Path = Path("build"),
    crops: Crops | None = None,
    batch: int | None = None,
) -> Artifact:
    """Converts one network for one target, in one precision.

    Args:
        source: What to convert, from `lmconv.source.resolve`.
        target: Name of a target: "onnx", "openvino", "tensorrt".
        precision: What it shall compute in.
        out: The artefact goes to `out/MODEL/TARGET-PRECISION/`, its plain graph to `out/MODEL/plain/`.
        crops: Yields network inputs (n, 3, H, W) float32 cut from real faces; int8 calibrates on them, and every pass
            is compared on them.
        batch: A fixed batch size, None for a free one.

    Returns:
        The artefact, compared with the source network before it was put in place.

    Raises:
        UsageError: The target cannot have that precision, or it needs faces and there are none.
        MissingRuntime: The target's runtime is not here.
        InputError: The source is broken, or the folder cannot be written.
        GateFailed: The artefact does not compute the source's landmarks; nothing was written.
    """
    check(target, precision, faces=crops is not None)
    return build(plain(source, out, crops=crops), target, precision, out=out, crops=crops, batch=batch)


def check(target: str, precision: Precision, *, faces: bool) -> Target:
    """Refuses what cannot work, before any work; see `convert` for what it raises."""
    plugin: Target = plugins.load("targets", target)
    if precision not in plugin.precisions:
        known = ", ".join(plugin.precisions)
        raise UsageError(f"target {target} has no precision {precision}", hint=f"it has {known}")
    if calibrated(precision) and not faces:
        hint = "give --calibration DIR, a folder of annotated training faces"
        raise UsageError(f"{precision} is calibrated on real faces, and there are none", hint=hint)
    if missing := plugin.requires():
        raise MissingRuntime(f"target {target} cannot be built here", hint=missing)
    return plugin


def calibrated(precision: Precision) -> bool:
    """Whether this precision is calibrated on real faces."""
    return any(plugins.load("passes", name).calibrated for name in PASSES.get(precision, ()))


def plain(source: Source, out: Path, *, crops: Crops | None = None) -> Plain:
    """The plain graph of a source: exported, simplified, compared; made once and kept in `out/MODEL/plain/`."""
    folder = out / source.spec.name / "plain"
    parents = {"source": {"file": source.path.name, "sha256": source.sha256}}
    kept = _kept(folder, parents, source.spec)
    if kept:
        return kept
    start = time.perf_counter()
    model, modules = export(source)
    spec = with_batch(source.spec, model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or None)
    inputs = noise(spec, REFERENCE_INPUTS, 0)
    with open_source(source) as session:
        expected = landmarks(session, spec, inputs)
    if not np.isfinite(expected).all():
        raise InputError(f"{source.path} computes NaN or infinity", hint="the network is broken before any conversion")
    simplified = optimise(model, ("simplify",), PassContext(spec=spec, crops=crops() if crops else None))
    with artifacts.staged(folder) as new:
        plugin: Target = plugins.load("targets", "onnx")
        built = plugin.build(simplified.model, new, spec, Precision.FP32)
        (new / "modules.json").write_text(canonical(modules), encoding="utf-8")
        _write_reference(new, inputs, expected)
        content = _content(spec, "onnx", Precision.FP32, simplified, parents, start)
        artifacts.write(new, content | {"execution": built.execution, "machine": None})
        _accept(new, plugin, Precision.FP32, inputs, expected)
    return Plain(
        artifact=artifacts.read(folder),
        model=simplified.model,
        inputs=inputs,
        expected=expected,
        warnings=simplified.warnings,
    )


def _kept(folder: Path, parents: Json, spec: ModelSpec) -> Plain | None:
    """The plain graph that is already there, if it is whole, of the same source and made by the same tools."""
    artifacts.repair(folder)
    if not folder.exists():
        return None
    try:
        found = artifacts.read(folder)
    except Exception:  # damaged or of another version: made again
        return None
    same_spec = replace(found.spec, inputs=spec.inputs, outputs=spec.outputs) == spec
    if found.parents != parents or found.versions != versions() or not same_spec:
        return None
    reference = read_reference(found)
    model = onnx.load(artifacts.model_file(found, ".onnx"))
    return Plain(
        artifact=found,
        model=model,
        inputs=reference[0],
        expected=reference[1],
        warnings=found.measured["warnings"],
    )


def build(
    base: Plain, target: str, precision: Precision, *, out: Path, crops: Crops | None = None, batch: int | None = None
) -> Artifact:
    """Brings a plain graph to a precision and a target; see `convert`."""
    start = time.perf_counter()
    plugin: Target = plugins.load("targets", target)
    if base.artifact.spec.batch not in (None, batch or base.artifact.spec.batch):
        fixed, name = base.artifact.spec.batch, base.artifact.spec.name
        raise UsageError(f"{name} takes {fixed} inputs a run, not {batch}", hint=f"use --batch {fixed}")
    lowered = _lower(base, precision, plugin.quantisation, crops)
    spec = with_batch(base.artifact.spec, batch or base.artifact.spec.batch)
    model = onnx.ModelProto()
    model.CopyFrom(lowered.model)
    if batch and batch != base.artifact.spec.batch:
        set_batch(model, batch)
    optimised = replace(lowered, model=model)
    parents = base.artifact.parents | {
        "plain": {"file": "model.onnx", "sha256": base.artifact.files["model.onnx"]},
    }
    path = out / spec.name / f"{target}-{precision}"
    with artifacts.staged(path) as new:
        built = plugin.build(optimised.model, new, spec, precision)
        _write_reference(new, base.inputs, base.expected)
        content = _content(spec, target, precision, optimised, parents, start)
        artifacts.write(new, content | {"execution": built.execution, "machine": built.machine})
        _accept(new, plugin, precision, base.inputs, base.expected)
    return artifacts.read(path)


def _lower(base: Plain, precision: Precision, scheme: QuantScheme, crops: Crops | None) -> Optimised:
    """The graph in a precision; made once for all targets that want it alike."""
    prelu = any(node.op_type == "PRelu" for node in base.model.graph.node)
    alike = (scheme.activations, scheme.quantised_prelu and prelu) if calibrated(precision) else None
    key = (precision, alike)
    if key not in base.lowered:
        context = PassContext(spec=base.artifact.spec, crops=crops() if crops else None, scheme=scheme)
        optimised = optimise(base.model, PASSES.get(precision, ()), context)
        recipe = [*base.artifact.recipe["passes"], *optimised.recipe]
        base.lowered[key] = replace(optimised, recipe=recipe)
    return base.lowered[key]


def with_batch(spec: ModelSpec, batch: int | None) -> ModelSpec:
    """The spec with its batch axis fixed, or free where `batch` is None."""

    def fixed(tensor: TensorSpec) -> TensorSpec:
        return replace(tensor, shape=(batch or "N", *tensor.shape[1:]))

    return replace(spec, inputs=tuple(map(fixed, spec.inputs)), outputs=tuple(map(fixed, spec.outputs)))


def _content(
    spec: ModelSpec, target: str, precision: Precision, optimised: Optimised, parents: Json, start: float
) -> Json:
    recipe: Json = {
        "opset": OPSET,
        "exporter": "onnx file" if spec.backbone == ONNX else "torch.onnx dynamo",
        "passes": optimised.recipe,
        "batch": spec.batch,
    }
    if calibrated(precision):
        recipe["quantisation"] = asdict(plugins.load("targets", target).quantisation)
    return {
        "spec": artifacts.spec_to_json(spec),
        "target": target,
        "precision": str(precision),
        "parents": parents,
        "recipe": recipe,
        "versions": versions(),
        "parameters": parameters(optimised.model),
        "flops": flops(optimised.model),
        "measured": {
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(time.perf_counter() - start, 3),
            "warnings": optimised.warnings,
        },
    }


def _write_reference(folder: Path, inputs: Float32, expected: Float32) -> None:
    np.savez_compressed(folder / artifacts.REFERENCE, input=inputs, landmarks=expected)


def read_reference(artifact: Artifact) -> tuple[Float32, Float32]:
    """The seeded inputs (8, 3, H, W) and the source network's landmarks (8, L, 2) on them, float32."""
    path = artifact.path / artifacts.REFERENCE
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["input"], file["landmarks"]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(f"{path} cannot be read: {first_line(error)}", hint="export again") from error


def _accept(folder: Path, plugin: Target, precision: Precision, inputs: Float32, expected: Float32) -> None:
    """Runs the finished artefact and compares it with the source network; one that is off is not put in place."""
    artifact = artifacts.read(folder)
    with plugin.open(artifact, OpenOptions()) as session:
        found = landmarks(session, artifact.spec, inputs)
    gap = difference(found, expected, artifact.spec.input_size)
    if gap.max_abs > TOLERANCE[precision]:
        allowed = f"allowed {TOLERANCE[precision]:g}"
        raise GateFailed(
            f"{artifact.spec.name} as {artifact.target} {precision} is {gap.max_abs:.2g} off its source, {allowed}",
            hint="it was not written; please report this network",
        )


def summary(artifact: Artifact) -> Json:
    """What `lmconv export --json` says of an artefact."""
    return {
        "path": str(artifact.path),
        "model": artifact.spec.name,
        "target": artifact.target,
        "precision": str(artifact.precision),
        "execution": artifact.execution,
        "bytes": artifacts.size(artifact),
        "parameters": artifact.parameters,
        "flops": artifact.flops,
        "seconds": artifact.measured["seconds"],
    }
