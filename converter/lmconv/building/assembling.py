"""From the plain graph to a finished artefact: passes, pre- and post-processing, the target, and the comparison."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from lmconv.building.acceptance import Network, NotReproduced, accept, mark, tied
from lmconv.building.blamed import blamed
from lmconv.building.feasibility import check_float, check_network
from lmconv.building.optimise import Optimised, optimise
from lmconv.building.recipe import Recipe, depends_on_faces, resolve
from lmconv.building.request import Conversion
from lmconv.building.steps import steps
from lmconv.building.target_graph import TargetGraph, content, with_batch
from lmconv.console import phase
from lmconv.errors import UsageError
from lmconv.graph.denormals import flushed
from lmconv.graph.facts import QUANTISERS, copied, set_batch
from lmconv.graph.naming import operators_of
from lmconv.inference.ort import OrtSession
from lmconv.inference.scenes import on_scene
from lmconv.networks import seeded
from lmconv.networks.interfaces import folder_name, interface_of
from lmconv.plugins import TARGETS
from lmconv.sources.resolve import open_source
from lmconv.store import artifact as artifacts
from lmconv.store import reference as reference_file
from lmconv.store.reference import Reference
from lmconv.types import Artifact, Json, ModelSpec, PassContext, Variant


def build(
    conversion: Conversion, variant: Variant, judge: Callable[[Artifact], Json] = lambda artifact: {}
) -> Artifact:
    """Builds one variant of a network and writes the artefact to `out/MODEL/VARIANT/`.

    If the target computes an operator inexactly, so that the artefact fails, and a pass in `Target.exact` rewrites the
    operator, the artefact is built again with this pass.

    Args:
        conversion: The network and its options.
        variant: The variant to build.
        judge: Receives the finished artefact before the artefact is written under its name. The result is kept as
            `guard` under `measured`. An exception stops the build, and nothing is written.

    Returns:
        The artefact, after a comparison with the source network.

    Raises:
        UsageError: The network cannot be built as this variant, or the recipe is of another artefact.
        GateFailed: The artefact does not compute the landmarks of the source; nothing is written.
        InputError: The folder cannot be written.
    """
    _check_recipe(conversion, variant)
    choices, notes = conversion.choices, list[str]()
    while True:
        try:
            return _build(replace(conversion, choices=choices), variant, judge, notes)
        except NotReproduced as error:
            operator, step = _exact_step(conversion, variant, error)
            if choices.recipe or step in ("", *choices.exact, *choices.without):
                raise
            notes.append(f"{step} rewrites {operator}, because {error.message}")
            choices = replace(choices, exact=(*choices.exact, step))


def _exact_step(conversion: Conversion, variant: Variant, error: NotReproduced) -> tuple[str, str]:
    """Returns an operator and its pass in `Target.exact` for a failed artefact; empty without such a pass.

    The operator that differs first names the pass. In a quantised network a rounding changes every later value, so the
    pass for Q/DQ pairs is tried for every operator.
    """
    exact = TARGETS.load(variant.target).exact
    quantised = sorted(operators_of(conversion.base.model) & {*QUANTISERS})
    return next(
        ((operator, exact[operator]) for operator in (error.operator, *quantised) if operator in exact), ("", "")
    )


def _build(
    conversion: Conversion, variant: Variant, judge: Callable[[Artifact], Json], notes: Sequence[str]
) -> Artifact:
    """Builds one variant with exactly these choices; `notes` are added to the warnings of the artefact."""
    start = time.perf_counter()
    base, choices = conversion.base, conversion.choices
    target = TARGETS.load(variant.target)
    recipe = resolve(variant, target, choices)
    graph = graph_for(conversion, variant)
    parents = base.artifact.parents | {
        "plain": {"file": "model.onnx", "sha256": base.artifact.files["model.onnx"]},
    }
    reference = _reference(conversion, graph.spec)
    path = conversion.out / graph.spec.name / folder_name(variant)
    with artifacts.staged(path) as new:
        cache = choices.engine.cache or conversion.out
        engine = replace(choices.engine, cache=cache, modules=artifacts.modules(base.artifact))
        with phase("building"):
            built = target.build(graph.model, new, graph.spec, recipe.hint, engine)
        reference_file.write(new, graph.spec, reference)
        document = content(graph, variant, parents, start, exporter=base.artifact.recipe["exporter"])
        document |= {"execution": built.execution, "machine": built.machine}
        document["recipe"] |= recipe.to_json() | built.recipe
        if conversion.crops and depends_on_faces(graph.network.recipe, recipe):
            document["recipe"]["faces"] = sorted({*conversion.crops.pictures(), *choices.pictures})
        artifacts.write(new, document)
        try:
            with phase("comparing with the source"):
                undecided = accept(new, target, _expected(reference, graph, recipe), _network(conversion))
        except NotReproduced as error:
            raise blamed(error, new, base.model, path.parent / artifacts.WHY) from error
        document["measured"]["warnings"] += notes
        if undecided is not None:
            mark(new, graph.spec, reference, undecided)
            document["measured"]["warnings"] += [tied(undecided)]
        if notes or undecided is not None:
            artifacts.write(new, document)
        artifact = artifacts.read(new)
        if variant.io == "tensor" and graph.spec.batch == base.artifact.spec.batch:
            conversion.cache.graphs[artifact.target, artifact.precision, artifact.digest] = graph.network.model
        if verdict := judge(artifact):
            document["measured"]["guard"] = verdict
            artifacts.write(new, document)
    return artifacts.read(path)


def graph_for(conversion: Conversion, variant: Variant, last: tuple[str, ...] | None = None) -> TargetGraph:
    """Returns the graph that a target receives.

    The runtime of the target need not be installed; without the runtime, passes decide without measuring.

    Args:
        conversion: The network and its options.
        variant: The variant to build.
        last: Passes that the runtime needs last; by default those of the installed runtime (`Target.last`).

    Raises:
        UsageError: The network cannot be built as this variant.
        GateFailed: A pass without which the variant is impossible was refused.
    """
    target = TARGETS.load(variant.target)
    network, batch = conversion.base.artifact.spec, variant.batch
    if network.batch not in (None, batch or network.batch):
        message = f"{network.name} takes {network.batch} inputs a run, not {batch}"
        raise UsageError(message, hint=f"use --batch {network.batch}")
    check_network(network, target, variant)
    check_float(network.name, conversion.base.model, variant.precision)
    made = list(steps(conversion, target, resolve(variant, target, conversion.choices)))
    model = copied(made[-1].model)
    if batch and batch != network.batch:
        set_batch(model, batch)
    interface = interface_of(with_batch(network, batch or network.batch), variant.io)
    spec, whole = interface.spec, interface.wrap(copied(model))
    finished = optimise(whole, target.last(whole) if last is None else last, PassContext(spec=spec))
    ready, count = flushed(finished.model) if _flushes(made[-1].recipe) else (finished.model, 0)
    return TargetGraph(
        model=ready, spec=spec, network=replace(made[-1], model=model), steps=made, last=finished, flushed=count
    )


def _flushes(passes: Sequence[Json]) -> bool:
    """True if the pass `denormals` ran; denormal numbers that later passes made become zero too."""
    return any(step["pass"] == "denormals" and not step["refused"] for step in passes)


def _check_recipe(conversion: Conversion, variant: Variant) -> None:
    """Refuses a recipe of another network, target or precision."""
    recipe = conversion.choices.recipe
    if recipe is None:
        return
    if recipe.parents["source"]["sha256"] != conversion.base.artifact.parents["source"]["sha256"]:
        raise UsageError(f"{recipe.path} was made from other weights", hint="name an artefact of this network")
    if (recipe.target, recipe.precision) != (variant.target, variant.precision):
        raise UsageError(
            f"{recipe.path} is {recipe.target} {recipe.precision}, not {variant.target} {variant.precision}",
            hint="ask for what it is",
        )


def _expected(reference: Reference, graph: TargetGraph, recipe: Recipe) -> Reference:
    """Returns the outputs that an artefact must reproduce.

    Where a pass replaced channels by constants, the expected outputs are those of the graph after that pass: on faces
    the change is bounded and judged; on noise such channels are not constant.
    """
    if "freeze" not in recipe.passes or interface_of(graph.spec).cuts_crops:
        return reference
    frozen: Optimised = graph.steps[1 + recipe.passes.index("freeze")]
    return replace(reference, outputs=frozen.outputs["noise"])


def _network(conversion: Conversion) -> Network:
    """Returns the plain graph on ONNX Runtime, which computes the outputs of the source."""
    plain = conversion.base
    return Network(
        spec=plain.artifact.spec,
        open=lambda: OrtSession(plain.model.SerializeToString()),
        graph=plain.model,
        memo=conversion.cache.memo,
    )


def _reference(conversion: Conversion, spec: ModelSpec) -> Reference:
    """Returns seeded inputs of the kind that the artefact takes, and the outputs of the source network for them."""
    base, cache, interface = conversion.base, conversion.cache, interface_of(spec)
    if not interface.cuts_crops:
        return replace(base.reference, inputs=interface.seeded(reference_file.INPUTS))
    if cache.frame is None:
        (scene,) = seeded.scenes(reference_file.INPUTS, 0)
        with open_source(base.source) as session:
            result = on_scene(session, base.source.spec, scene, maps=reference_file.MAPS)
        cache.frame = Reference(inputs=interface.seeded(reference_file.INPUTS), outputs=result)
    return cache.frame
