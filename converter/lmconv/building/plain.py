"""The plain graph of a source: exported, simplified, compared with the source, and kept for later exports."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from lmconv.building.acceptance import Network, NotReproduced, accept, mark, tied
from lmconv.building.optimise import optimise
from lmconv.building.recipe import PLAIN_PASSES
from lmconv.building.request import Crops
from lmconv.building.target_graph import TargetGraph, content, with_batch
from lmconv.console import phase
from lmconv.errors import InputError
from lmconv.graph.denormals import count
from lmconv.graph.facts import flops, parameters
from lmconv.inference.session import noise, outputs
from lmconv.machine import versions
from lmconv.networks.heads import choice_notes, head_of
from lmconv.opsets.versions import opset_of
from lmconv.plugins import TARGETS
from lmconv.sources import usercode
from lmconv.sources.batches import batch_of
from lmconv.sources.divergence import first_divergence
from lmconv.sources.export import export_session
from lmconv.sources.flushing import supported
from lmconv.sources.onnx_files.batch import settle_batch
from lmconv.sources.onnx_files.reading import load_source
from lmconv.sources.onnx_files.source import OnnxSource
from lmconv.sources.resolve import Opened, open_source
from lmconv.store import artifact as artifacts
from lmconv.store import reference as reference_file
from lmconv.store.files import canonical
from lmconv.store.reference import Reference
from lmconv.types import DEFAULT_BUILD, DEFAULT_TARGET, Artifact, Json, ModelSpec, PassContext, Source, Variant

PLAIN_VARIANT = Variant(target=DEFAULT_TARGET)
"""The plain graph is an artefact of ONNX Runtime in fp32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """The plain graph of a source and the outputs of the source for seeded inputs.

    Attributes:
        artifact: The artefact in `DIR/MODEL/plain/`.
        model: The graph.
        reference: Seeded inputs and the outputs of the source network.
        warnings: Choices made for the user, and passes left out, with the reason.
        source: The source network.
    """

    artifact: Artifact
    model: onnx.ModelProto
    reference: Reference
    warnings: list[str]
    source: Source


def plain_graph(source: Source, out: Path, *, crops: Crops | None = None, batch: int | None = None) -> Plain:
    """Returns the plain graph of a source; makes the graph once and keeps it in `out/MODEL/plain/`.

    Args:
        source: The network to export.
        out: Folder of all artefacts.
        crops: Real faces on which passes are compared.
        batch: Batch size that the user asked for; the plain graph has this batch if the network cannot have a free one.

    Raises:
        InputError: The source is broken, or the folder cannot be written.
        GateFailed: The graph does not compute the outputs of the source; nothing is written.
    """
    folder = out / source.spec.name / artifacts.PLAIN
    kept = _kept(folder, source)
    fits = kept and kept.artifact.spec.batch in (None, batch or source.spec.batch)
    return kept if kept and fits else _made(folder, source, crops, batch)


def _made(folder: Path, source: Source, crops: Crops | None, batch: int | None) -> Plain:
    """Exports, simplifies, compares and writes the plain graph."""
    start = time.perf_counter()
    with open_source(source) as session:
        source, notes = _settled(session, batch)
        with phase("running the network"):
            reference, counts = _reference(session, source)
        with phase("exporting"):
            exported = export_session(source, session, batch)
    spec = _exported(source.spec, exported.model)
    source = replace(source, spec=with_batch(source.spec, spec.batch))
    notes += exported.notes
    simplified = optimise(exported.model, PLAIN_PASSES, PassContext(spec=spec, crops=crops() if crops else None))
    simplified = replace(simplified, warnings=[*notes, *simplified.warnings])
    # An ONNX file computes the same as its plain graph; the operators of the file itself may be too old to count.
    parents = {"source": {**_identity(source), "flops": flops(simplified.model, spec.input_size), **counts}}
    with artifacts.staged(folder) as new:
        target = TARGETS.load(PLAIN_VARIANT.target)
        built = target.build(simplified.model, new, spec, PLAIN_VARIANT.precision, DEFAULT_BUILD)
        (new / "modules.json").write_text(canonical(exported.modules), encoding="utf-8")
        reference_file.write(new, spec, reference)
        graph = TargetGraph(model=simplified.model, spec=spec, network=simplified)
        document = content(graph, PLAIN_VARIANT, parents, start, exporter=exported.exporter)
        artifacts.write(new, document | {"execution": built.execution, "machine": None})
        network = Network(spec=source.spec, open=lambda: open_source(source), graph=simplified.model)
        try:
            undecided = accept(new, target, reference, network)
        except NotReproduced as error:
            raise _explained(error, source, simplified.model, exported.modules) from error
        if undecided is not None:
            reference = mark(new, spec, reference, undecided)
            document["measured"]["warnings"] = [*simplified.warnings, tied(undecided)]
            artifacts.write(new, document | {"execution": built.execution, "machine": None})
    return Plain(
        artifact=artifacts.read(folder),
        model=simplified.model,
        reference=reference,
        warnings=document["measured"]["warnings"],
        source=source,
    )


def _explained(error: NotReproduced, source: Source, model: onnx.ModelProto, modules: dict[str, str]) -> NotReproduced:
    """Returns the error with the layer of the source at which the plain graph differs first."""
    with open_source(source) as session:
        part = first_divergence(model, modules, session, noise(source.spec, source.spec.batch or 2, 0))
    where = f": {part} differs first" if part else ""
    hint = "it was not written; float32 may not reach this, for example where large numbers nearly cancel"
    return NotReproduced(f"{error.message}{where}", inputs=error.inputs, hint=hint)


def _settled(session: Opened, batch: int | None) -> tuple[Source, list[str]]:
    """Returns the opened source, with a fixed batch if the network needs one, and notes about choices for the user."""
    source = session.source
    notes = [*choice_notes(source.spec), *getattr(session, "notes", [])]
    if isinstance(session, OnnxSource):
        settle_batch(source, session, batch)
        return source, notes
    decided = batch_of(source, session, batch)
    fixed = replace(source, spec=with_batch(source.spec, decided.fixed)) if decided.fixed else source
    return fixed, notes + [decided.note] * bool(decided.note)


def _identity(source: Source) -> Json:
    """Identity of a source: file name and sha256, or the seed of random weights."""
    given = {"key": source.key} | {"constants": source.constants}
    chosen = {name: value for name, value in given.items() if value}
    if source.path is None:
        return {"file": None, "sha256": source.sha256, "seed": source.seed} | chosen
    return {"file": source.path.name, "sha256": source.sha256} | chosen


def _reference(session: Opened, source: Source) -> tuple[Reference, Json]:
    """Runs the source network on seeded inputs, and counts its parameters and its denormal numbers.

    Unused parameters count, shared parameters count once. For PyTorch the FLOPs of one input are counted too.
    """
    inputs = noise(source.spec, reference_file.INPUTS, 0)
    result = outputs(session, source.spec, inputs, maps=reference_file.MAPS)
    if isinstance(session, OnnxSource):
        file = load_source(source)
        counts = {"parameters": parameters(file), "opset": opset_of(file), "denormals": count(file)}
    else:
        few = inputs[: source.spec.batch or 1]
        size = sum(parameter.numel() for parameter in session.network.parameters())
        counts = {"parameters": size, "flops": session.flops(few) // len(few), "denormals": session.denormals}
        counts["flush_denormal"] = supported()
    if not all(np.isfinite(array).all() for array in head_of(source.spec).to_arrays(result).values()):
        raise InputError(f"{source.label} computes NaN or infinity", hint="the network is broken before any conversion")
    return Reference(inputs={"input": inputs}, outputs=result), counts


def _exported(spec: ModelSpec, model: onnx.ModelProto) -> ModelSpec:
    """Returns the spec with all sizes that only the graph shows: a fixed batch, and the free axes of outputs."""
    sizes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.output}
    tensors = [
        replace(tensor, shape=tuple(size or name for size, name in zip(sizes[tensor.name], tensor.shape, strict=True)))
        for tensor in spec.outputs
    ]
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or None
    return with_batch(replace(spec, outputs=tuple(tensors)), batch)


def _kept(folder: Path, source: Source) -> Plain | None:
    """Returns the plain graph on disk, if the files are whole, of the same source and made by the same tools."""
    artifacts.repair(folder)
    if not folder.exists() or usercode.foreign(source):  # the code of a user may have changed
        return None
    try:
        artifact = artifacts.read(folder)
    except Exception:  # a damaged or newer artefact is made again
        return None
    same_spec = replace(artifact.spec, inputs=source.spec.inputs, outputs=source.spec.outputs) == source.spec
    same_spec &= artifact.spec.inputs[0].shape[1:] == source.spec.inputs[0].shape[1:]
    parent = {"key": "", **artifact.parents["source"]}
    same_source = parent | {"key": "", **_identity(source)} == parent
    if not (same_spec and same_source and artifact.versions == versions()):
        return None
    model = onnx.load(artifacts.model_file(artifact, ".onnx"))
    reference, warnings = reference_file.read(artifact), artifact.measured["warnings"]
    return Plain(artifact=artifact, model=model, reference=reference, warnings=warnings, source=source)
