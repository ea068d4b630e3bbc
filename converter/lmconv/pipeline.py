"""From a source network to a checked artefact: `convert` is what `lmconv export` calls."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from lmconv import plugins
from lmconv.building.optimise import Optimised, optimise
from lmconv.building.trial import timed
from lmconv.errors import GateFailed, InputError, MissingRuntime, UsageError
from lmconv.graph.facts import copied, flops, parameters, set_batch
from lmconv.inference import scenes
from lmconv.inference.session import feed, gap, noise, noise_crops, outputs
from lmconv.machine import this_cpu, versions
from lmconv.networks import wrapping
from lmconv.sources import usercode
from lmconv.sources.export import export
from lmconv.sources.onnx_file import standard
from lmconv.sources.resolve import Opened, is_onnx, open_source
from lmconv.store import artifact as artifacts
from lmconv.store import reference as reference_file
from lmconv.store.files import canonical
from lmconv.store.reference import Reference
from lmconv.types import (
    AS_USUAL,
    ONNX,
    Artifact,
    BuildOptions,
    Cpu,
    Float32,
    Float64,
    Io,
    Json,
    Mix,
    ModelSpec,
    OpenOptions,
    Pass,
    PassContext,
    Precision,
    QuantScheme,
    Source,
    Target,
    TensorSpec,
)

if TYPE_CHECKING:
    import torch

PASSES = {Precision.FP16: ("float16",), Precision.INT8: ("int8",)}
"""What brings a plain graph to a precision; bf16 is a hint to OpenVINO, and changes no graph."""

PLAIN = ("simplify",)
"""What makes an exported graph a plain one."""
FIRST = ("compact",)
"""Passes that every graph goes through before those of its target."""

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

MAP_TOLERANCE = TOLERANCE | {Precision.FP32: 1e-4}
"""The same for heatmaps: there OpenVINO's float32 is 1.5e-5 off ONNX Runtime's, on white noise in OpenSeeFace."""
RAW_TOLERANCE = MAP_TOLERANCE | {Precision.FP16: 5e-2}
"""The same for raw outputs of a network for detection, by the range of each; in fp32 as they are.

Published ones are 3.5e-3 off in fp16, RetinaFace with random weights 2.6e-2.
"""


ENGINE_TOLERANCE = 1e-4
"""The least for an engine, whose kernels sum in another order."""
FRAME_TOLERANCE, FRAME_MAP_TOLERANCE = 4e-4, 1e-2
"""The least of both where the crop is cut inside: runtimes differ from OpenCV by a grey level here and there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """The exported and simplified graph of a source, with what it was compared on.

    Attributes:
        artifact: Its folder, `DIR/MODEL/plain/`.
        model: The graph.
        reference: What the source network says of seeded inputs.
        warnings: What was left out, and why.
        source: What it was made from.
        optimised: The graph after the passes, as far as they were asked for.
        scenes: What the source says of faces in a seeded frame, where it was asked for.
    """

    artifact: Artifact
    model: onnx.ModelProto
    reference: Reference
    warnings: list[str]
    source: Source
    optimised: dict[tuple[object, ...], Optimised] = field(default_factory=dict)
    scenes: list[Reference] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A graph as a target gets it, see `graph_for`.

    Attributes:
        model: The whole graph, pre- and post-processing included.
        spec: What it is.
        network: The network in it before `Target.last`, with what all passes decided.
        steps: The plain graph, then what each pass made of it.
        last: What the passes of `Target.last` decided.
    """

    model: onnx.ModelProto
    spec: ModelSpec
    network: Optimised
    steps: list[Optimised]
    last: Optimised

    @property
    def recipe(self) -> Json:
        """What a manifest's `recipe` says of the graph."""
        opset = {entry.domain: entry.version for entry in self.model.opset_import}[""]
        last = {"last": self.last.recipe} if self.last.recipe else {}
        return {"opset": opset, "passes": self.network.recipe, "batch": self.spec.batch, **last}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crops:
    """Faces to calibrate on, cut out when they are first needed.

    Attributes:
        cut: Gives network inputs (n, 3, H, W) float32.
        pictures: Gives what tells the picture files they were cut from: the first 16 hex digits of the sha256 of each.
    """

    cut: Callable[[], Float32]
    pictures: Callable[[], Sequence[str]]

    def __call__(self) -> Float32:
        """The network inputs."""
        return self.cut()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the user chose of how a graph is made.

    Attributes:
        without: Names of passes that are left out.
        compact_px: See `PassContext`.
        recipe: An earlier artefact of the same network, target and precision: its passes are run again, and what was
            measured for them is not measured anew.
        mix: What precision "mixed" means.
        pictures: What tells the pictures of the faces that `mix` was chosen on, see `Crops`.
        cpu: The kind of CPU that int8 is for; None is this machine's, or that of `recipe`.
        engine: How an engine is built; without a timing cache of its own it shares one with all others in `out`.
    """

    without: tuple[str, ...] = ()
    compact_px: float | None = None
    recipe: Artifact | None = None
    mix: Mix | None = None
    pictures: tuple[str, ...] = ()
    cpu: Cpu | None = None
    engine: BuildOptions = AS_USUAL

    @property
    def quantised_for(self) -> Cpu:
        """The kind of CPU that int8 is for."""
        told = self.recipe.recipe.get("quantisation", {}) if self.recipe else {}
        return self.cpu or told.get("cpu") or this_cpu()

    def decided(self, name: str) -> Json | None:
        """What a pass decided in `recipe`, or what `mix` says."""
        if self.recipe:
            return artifacts.decided(self.recipe.recipe, name)
        return self.mix.decisions.get(name) if self.mix else None


DEFAULT = Choices()
ROUGH_CROPS = 4
"""How many crops int8 is calibrated on where only its speed matters."""


def convert(
    source: Source,
    target: str,
    precision: Precision,
    *,
    out: Path = Path("build"),
    crops: Crops | None = None,
    batch: int | None = None,
    io: Io = "tensor",
    choices: Choices = DEFAULT,
) -> Artifact:
    """Converts one network for one target, in one precision.

    Args:
        source: What to convert, from `lmconv.sources.resolve.resolve`.
        target: Name of a target: "onnx", "openvino", "tensorrt".
        precision: What it shall compute in.
        out: The artefact goes to `out/MODEL/TARGET-PRECISION/` (and `-image` or `-frame` where it takes one), its
            plain graph to `out/MODEL/plain/`.
        crops: Real faces: int8 calibrates on them, and every pass is compared on them.
        batch: A fixed batch size, None for a free one.
        io: What the artefact takes, see `lmconv.networks.wrapping.wrap`.
        choices: What to leave out, and how far compaction may go.

    Returns:
        The artefact, compared with the source network before it was put in place.

    Raises:
        UsageError: The target cannot have that precision or take that, or it needs faces and there are none.
        MissingRuntime: The target's runtime is not here.
        InputError: The source is broken, or the folder cannot be written.
        GateFailed: The artefact does not compute the source's landmarks; nothing was written.
    """
    check(target, precision, faces=crops is not None, io=io)
    base = plain(source, out, crops=crops)
    return build(base, target, precision, out=out, crops=crops, batch=batch, io=io, choices=choices)


def check(target: str, precision: Precision, *, faces: bool, io: Io = "tensor") -> Target:
    """Refuses what cannot work, before any work; see `convert` for what it raises."""
    plugin: Target = plugins.load("targets", target)
    if precision not in plugin.precisions:
        known = ", ".join(plugin.precisions)
        raise UsageError(f"target {target} has no precision {precision}", hint=f"it has {known}")
    if io not in plugin.ios:
        raise UsageError(f"target {target} has no --io {io}", hint=f"it has {', '.join(plugin.ios)}")
    if calibrated(precision) and not faces:
        hint = "give --calibration DIR, a folder of annotated training faces"
        raise UsageError(f"{precision} is calibrated on real faces, and there are none", hint=hint)
    if missing := plugin.requires():
        raise MissingRuntime(f"target {target} cannot be built here", hint=missing)
    return plugin


def check_network(spec: ModelSpec, target: Target, precision: Precision, io: Io) -> None:
    """Refuses what cannot be made of a network for detection.

    Raises:
        UsageError: It would be calibrated on faces, or take pictures or frames; or an engine for pictures of any size.
    """
    if not spec.detects:
        return
    if calibrated(precision):
        hint = "ask for fp32 or fp16"
        raise UsageError(f"{spec.name} is a detector, and {precision} is calibrated on crops of faces", hint=hint)
    if io != "tensor":
        hint = "leave --io out: `lmconv run` scales pictures for it"
        raise UsageError(f"{spec.name} is a detector, and --io {io} is for crops of faces", hint=hint)
    if spec.sample and target.engines:
        hint = f"fix its size, such as --input 3x{spec.sample[0]}x{spec.sample[1]}"
        raise UsageError(f"{spec.name} takes pictures of any size, and an engine of {target.name} one size", hint=hint)


def calibrated(precision: Precision) -> bool:
    """Whether this precision is calibrated on real faces; what is mixed is chosen on them."""
    if precision == Precision.MIXED:
        return True
    return any(plugins.load("passes", name).calibrated for name in PASSES.get(precision, ()))


def plain(source: Source, out: Path, *, crops: Crops | None = None) -> Plain:
    """The plain graph of a source: exported, simplified, compared; made once and kept in `out/MODEL/plain/`."""
    folder = out / source.spec.name / "plain"
    if kept := _kept(folder, source):
        return kept
    start = time.perf_counter()
    with open_source(source) as session:
        reference, counts = _reference(session, source)
        model, modules = export(source, session)
    spec = _exported(source.spec, model)
    simplified = optimise(model, PLAIN, PassContext(spec=spec, crops=crops() if crops else None))
    # An ONNX file computes what its plain graph does; its own operators may be too old to be counted.
    parents = {"source": {**_identity(source), "flops": flops(simplified.model, spec.input_size), **counts}}
    with artifacts.staged(folder) as new:
        plugin: Target = plugins.load("targets", "onnx")
        built = plugin.build(simplified.model, new, spec, Precision.FP32, AS_USUAL)
        (new / "modules.json").write_text(canonical(modules), encoding="utf-8")
        reference_file.write(new, reference)
        nothing = Optimised(model=simplified.model, recipe=[], measured={}, warnings=[], outputs={})
        ready = Ready(model=simplified.model, spec=spec, network=simplified, steps=[], last=nothing)
        content = _content(ready, "onnx", Precision.FP32, parents, start)
        artifacts.write(new, content | {"execution": built.execution, "machine": None})
        _accept(new, plugin, Precision.FP32, reference)
    made = artifacts.read(folder)
    return Plain(
        artifact=made, model=simplified.model, reference=reference, warnings=simplified.warnings, source=source
    )


def _identity(source: Source) -> Json:
    """What tells a source from another: file and sha256, or the seed of random weights."""
    if source.path is None:
        return {"file": None, "sha256": source.sha256, "seed": source.seed}
    return {"file": source.path.name, "sha256": source.sha256}


def _reference(session: Opened, source: Source) -> tuple[Reference, Json]:
    """Runs the source network; counts its parameters too (unused ones included, shared ones once), of PyTorch FLOPs."""
    inputs = noise(source.spec, reference_file.INPUTS, 0)
    network: torch.nn.Module | None = getattr(session, "network", None)
    if network is None:
        found = outputs(session, source.spec, inputs, maps=reference_file.MAPS)
        counts = {"parameters": parameters(standard(source))}
    else:
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            found = outputs(session, source.spec, inputs, maps=reference_file.MAPS)
        size = sum(parameter.numel() for parameter in network.parameters())
        counts = {"parameters": size, "flops": counter.get_total_flops() // len(inputs)}
    given = (found.landmarks, found.heatmaps, *found.raw.values())
    if not all(np.isfinite(array).all() for array in given if array is not None):
        raise InputError(f"{source.label} computes NaN or infinity", hint="the network is broken before any conversion")
    return Reference(inputs={"input": inputs}, outputs=found), counts


def _exported(spec: ModelSpec, model: onnx.ModelProto) -> ModelSpec:
    """The spec with what only the graph says: whether its batch axis is free, and the size of heatmaps, or of P."""
    sizes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.output}
    outputs = [
        replace(tensor, shape=tuple(size or name for size, name in zip(sizes[tensor.name], tensor.shape, strict=True)))
        for tensor in spec.outputs
    ]
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or None
    return with_batch(replace(spec, outputs=tuple(outputs)), batch)


def _kept(folder: Path, source: Source) -> Plain | None:
    """The plain graph that is already there, if it is whole, of the same source and made by the same tools."""
    artifacts.repair(folder)
    if not folder.exists() or usercode.foreign(source):  # code that is not ours may have changed
        return None
    try:
        found = artifacts.read(folder)
    except Exception:  # damaged or of another version: made again
        return None
    same_spec = replace(found.spec, inputs=source.spec.inputs, outputs=source.spec.outputs) == source.spec
    same_spec &= found.spec.inputs[0].shape[1:] == source.spec.inputs[0].shape[1:]
    same_source = found.parents["source"] | _identity(source) == found.parents["source"]
    if not (same_spec and same_source and found.versions == versions()):
        return None
    model = onnx.load(artifacts.model_file(found, ".onnx"))
    reference, warnings = reference_file.read(found), found.measured["warnings"]
    return Plain(artifact=found, model=model, reference=reference, warnings=warnings, source=source)


def build(
    base: Plain,
    target: str,
    precision: Precision,
    *,
    out: Path,
    crops: Crops | None = None,
    batch: int | None = None,
    io: Io = "tensor",
    choices: Choices = DEFAULT,
    judge: Callable[[Artifact], Json] = lambda finished: {},
) -> Artifact:
    """Brings a plain graph to a precision and a target; see `convert`.

    `judge` gets the finished artefact before it is put in place; what it gives is kept as `guard` under `measured`, and
    when it raises nothing was written.
    """
    start = time.perf_counter()
    plugin: Target = plugins.load("targets", target)
    _check_recipe(base, target, precision, choices)
    ready = graph_for(base, target, precision, crops=crops, batch=batch, io=io, choices=choices)
    spec = ready.spec
    parents = base.artifact.parents | {
        "plain": {"file": "model.onnx", "sha256": base.artifact.files["model.onnx"]},
    }
    reference = _reference_of(base, spec)
    path = out / spec.name / folder(target, precision, io)
    with artifacts.staged(path) as new:
        engine = replace(choices.engine, cache=choices.engine.cache or out, modules=artifacts.modules(base.artifact))
        built = plugin.build(ready.model, new, spec, _told(precision, choices.mix), engine)
        reference_file.write(new, reference)
        content = _content(ready, target, precision, parents, start, choices)
        content |= {"execution": built.execution, "machine": built.machine}
        content["recipe"] |= built.recipe
        if crops and on_faces(ready.network.recipe, precision):
            content["recipe"]["faces"] = sorted({*crops.pictures(), *choices.pictures})
        artifacts.write(new, content)
        _accept(new, plugin, precision, _expected(reference, ready.steps, passes(plugin, precision, choices), io))
        if found := judge(artifacts.read(new)):
            content["measured"]["guard"] = found
            artifacts.write(new, content)
    return artifacts.read(path)


def graph_for(
    base: Plain,
    target: str,
    precision: Precision,
    *,
    crops: Crops | None = None,
    batch: int | None = None,
    io: Io = "tensor",
    choices: Choices = DEFAULT,
    last: tuple[str, ...] | None = None,
) -> Ready:
    """The graph as a target gets it; its runtime need not be here, but then passes decide without measuring.

    For what it raises, see `convert`.

    Args:
        base: The plain graph.
        target: Name of a target.
        precision: What it shall compute in.
        crops: See `convert`.
        batch: See `convert`.
        io: See `convert`.
        choices: See `convert`.
        last: What `Target.last` would say where the graph shall run; by default, what it says here.
    """
    plugin: Target = plugins.load("targets", target)
    network = base.artifact.spec
    if network.batch not in (None, batch or network.batch):
        message = f"{network.name} takes {network.batch} inputs a run, not {batch}"
        raise UsageError(message, hint=f"use --batch {network.batch}")
    check_network(network, plugin, precision, io)
    wrapping.check(network, io, precision)
    made = list(steps(base, plugin, precision, crops, choices))
    model = copied(made[-1].model)
    if batch and batch != network.batch:
        set_batch(model, batch)
    whole, spec = wrapping.wrap(copied(model), with_batch(network, batch or network.batch), io)
    finished = optimise(whole, plugin.last() if last is None else last, PassContext(spec=spec))
    return Ready(model=finished.model, spec=spec, network=replace(made[-1], model=model), steps=made, last=finished)


def _told(precision: Precision, mix: Mix | None) -> Precision:
    """What a runtime is told to compute in."""
    if precision != Precision.MIXED or mix is None:
        return precision
    return Precision.BF16 if mix.floats == Precision.BF16 else mix.precision


def on_faces(recipe: list[Json], precision: Precision) -> bool:
    """Whether what these passes made depends on the faces that they were given."""
    done = (plugins.load("passes", step["pass"]) for step in recipe if not step["refused"])
    return precision == Precision.MIXED or any(step.calibrated for step in done)


def _check_recipe(base: Plain, target: str, precision: Precision, choices: Choices) -> None:
    if (told := choices.recipe) is None:
        return
    if told.parents["source"]["sha256"] != base.artifact.parents["source"]["sha256"]:
        raise UsageError(f"{told.path} was made from other weights", hint="name an artefact of this network")
    if (told.target, told.precision) != (target, precision):
        raise UsageError(
            f"{told.path} is {told.target} {told.precision}, not {target} {precision}", hint="ask for what it is"
        )


def _expected(reference: Reference, made: list[Optimised], names: tuple[str, ...], io: Io) -> Reference:
    """What the artefact is compared with: where channels were taken for constant, the graph in which they are.

    What that does on faces is bounded, and judged there; on noise such channels are not constant.
    """
    if "freeze" not in names or io == "frame":
        return reference
    return replace(reference, outputs=made[1 + names.index("freeze")].outputs["noise"])


def folder(target: str, precision: Precision, io: Io) -> str:
    """What the folder of an artefact is called."""
    return f"{target}-{precision}" + (f"-{io}" if io != "tensor" else "")


def _reference_of(base: Plain, spec: ModelSpec) -> Reference:
    """What the source says of seeded inputs such as the artefact takes."""
    if spec.io == "tensor":
        return base.reference
    if spec.io == "image":
        images = feed(noise_crops(spec, reference_file.INPUTS, 0), spec)
        return replace(base.reference, inputs={"image": images})
    if not base.scenes:
        (scene,) = scenes.seeded(reference_file.INPUTS, 0)
        with open_source(base.source) as session:
            found = scenes.on_scene(session, base.source.spec, scene, maps=reference_file.MAPS)
        base.scenes.append(Reference(inputs=scenes.taken(scene, spec), outputs=found))
    return base.scenes[0]


def passes(target: Target, precision: Precision, choices: Choices = DEFAULT) -> tuple[str, ...]:
    """The passes from a plain graph to a target in a precision, in order."""
    if choices.recipe:
        return tuple(step["pass"] for step in choices.recipe.recipe["passes"] if step["pass"] not in PLAIN)
    bounded = ("freeze",) if choices.compact_px else ()
    rewrites = target.rewrites.get(precision, ())
    if precision == Precision.MIXED and choices.mix:
        rewrites, precision = choices.mix.rewrites, choices.mix.precision
    named = (*bounded, *FIRST, *rewrites, *PASSES.get(precision, ()))
    return tuple(name for name in named if name not in choices.without)


def steps(
    base: Plain, target: Target, precision: Precision, crops: Callable[[], Float32] | None, choices: Choices
) -> Iterator[Optimised]:
    """The plain graph, then what each pass makes of it; run once for all targets and precisions that want the same."""
    found = Optimised(model=base.model, recipe=base.artifact.recipe["passes"], measured={}, warnings=[], outputs={})
    yield found
    key: tuple[object, ...] = (crops is not None,)  # passes are compared on them
    if precision != Precision.MIXED:
        choices = replace(choices, mix=None)
    settings = choices.mix.settings if choices.mix else {}
    scheme = target.scheme(choices.quantised_for)
    names = passes(target, precision, choices)
    here = target.requires() is None
    for index, name in enumerate(names):
        replay = choices.decided(name)
        later = tuple(each for each in names[index + 1 :] if each != "float16" and precision != Precision.MIXED)
        asked = {
            "crops": crops,
            "scheme": scheme,
            "measure": (target.name, later) if here else None,
            "compact_px": choices.compact_px,
            "replay": canonical(replay),
            "settings": canonical(settings),
            "channels": target.channels,
        }
        step: Pass = plugins.load("passes", name)
        key = (*key, name, *(asked[field] for field in step.uses))
        if key not in base.optimised:
            context = PassContext(
                spec=base.artifact.spec,
                crops=crops() if crops else None,
                scheme=scheme,
                measure=functools.partial(_timed_later, base, target, later, scheme, crops) if here else None,
                compact_px=choices.compact_px,
                replay=replay,
                settings=settings,
                channels=target.channels,
            )
            after = optimise(found.model, [name], context, found.outputs or None)
            base.optimised[key] = replace(
                after,
                recipe=[*found.recipe, *after.recipe],
                measured=found.measured | after.measured,
                warnings=[*found.warnings, *after.warnings],
            )
        found = base.optimised[key]
        yield found


def _timed_later(
    base: Plain,
    target: Target,
    later: tuple[str, ...],
    scheme: QuantScheme,
    crops: Callable[[], Float32] | None,
    models: Sequence[onnx.ModelProto],
) -> Float64:
    """Times graphs as the passes that come later will leave them, see `timed`; int8 numbers are rough ones."""
    context = PassContext(
        spec=base.artifact.spec,
        crops=crops() if crops else None,
        scheme=scheme,
        settings={"crops": ROUGH_CROPS, "adaptive_rounding": False},
    )
    lowered = []
    for model in models:
        for name in later:
            with contextlib.suppress(Exception):  # a pass that breaks on a graph will be left out
                model, _ = plugins.load("passes", name).apply(copied(model), context)
        lowered.append(model)
    return timed(base.artifact, target, lowered)


def with_batch(spec: ModelSpec, batch: int | None) -> ModelSpec:
    """The spec with its batch axis fixed, or free where `batch` is None."""

    def fixed(tensor: TensorSpec) -> TensorSpec:
        return replace(tensor, shape=(batch or "N", *tensor.shape[1:]))

    return replace(spec, inputs=tuple(map(fixed, spec.inputs)), outputs=tuple(map(fixed, spec.outputs)))


def _content(
    ready: Ready, target: str, precision: Precision, parents: Json, start: float, choices: Choices = DEFAULT
) -> Json:
    spec = ready.spec
    mix = choices.mix if precision == Precision.MIXED else None
    file = parents["source"]["file"] or ""
    exporter = "onnx file" if spec.backbone == ONNX or is_onnx(file) else "torch.onnx dynamo"
    recipe: Json = {"exporter": exporter, **ready.recipe}
    if mix:
        recipe["mix"] = asdict(mix)
    if calibrated(mix.precision if mix else precision):
        chosen = choices.quantised_for
        recipe["quantisation"] = {"cpu": chosen, **asdict(plugins.load("targets", target).scheme(chosen))}
    return {
        "spec": artifacts.spec_to_json(spec),
        "interface": artifacts.interface(spec),
        "target": target,
        "precision": str(precision),
        "parents": parents,
        "recipe": recipe,
        "versions": versions(),
        "parameters": parameters(ready.network.model),
        "flops": flops(ready.network.model, spec.input_size),
        "measured": {
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(time.perf_counter() - start, 3),
            "warnings": ready.network.warnings,
            "passes": ready.network.measured | ready.last.measured,
        },
    }


def _accept(folder: Path, plugin: Target, precision: Precision, reference: Reference) -> None:
    """Runs the finished artefact and compares it with the source network; one that is off is not put in place.

    Heatmaps are judged as such: below fp32, points of theirs may jump where two cells are next to equal.
    """
    artifact = artifacts.read(folder)
    with plugin.open(artifact, OpenOptions()) as session:
        found = reference_file.answer(session, artifact.spec, reference)
    apart = gap(found, reference.outputs, artifact.spec)
    framed = artifact.spec.io == "frame"
    held = Precision.BF16 if framed and artifacts.bound_px(artifact) else precision
    least = FRAME_TOLERANCE if framed else ENGINE_TOLERANCE if plugin.engines else 0
    gaps = {"landmarks": (apart.landmarks.max_abs, max(TOLERANCE[held], least))}
    if artifact.spec.detects:
        off = apart.landmarks.max_abs if precision == Precision.FP32 else apart.max_map or 0.0
        gaps = {"outputs": (off, RAW_TOLERANCE[held])}
    elif apart.max_map is not None:
        maps = {"heatmaps": (apart.max_map, max(MAP_TOLERANCE[held], FRAME_MAP_TOLERANCE if framed else 0))}
        gaps = gaps | maps if precision == Precision.FP32 and not framed else maps
    for what, (off, allowed) in gaps.items():
        if off > allowed:
            raise GateFailed(
                f"{artifact.spec.name} as {artifact.target} {precision}: {what} are {off:.2g} off, allowed {allowed:g}",
                hint="it was not written; please report this network",
            )
