"""Measures the speed-up of each pass on the target, and of each pass that was left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmconv.building.optimise import Optimised, optimise
from lmconv.building.recipe import PLAIN_PASSES, resolve
from lmconv.building.request import Conversion
from lmconv.building.steps import steps
from lmconv.building.trial import timed
from lmconv.graph.facts import flops, parameters
from lmconv.inference.latency import faster
from lmconv.machine import this_cpu
from lmconv.passes.denormals import summary
from lmconv.plugins import PASSES, TARGETS
from lmconv.store.artifact import variant_of
from lmconv.types import Artifact, Json, PassContext, Precision, Target

if TYPE_CHECKING:
    import onnx


def explain(conversion: Conversion, artifact: Artifact) -> Json:
    """Times the graph after each pass alternately with the graph before, one thread, batch 1 or the fixed batch.

    Args:
        conversion: The network and its options.
        artifact: An artefact of the network.

    Returns:
        `passes`: for each pass the parameters, FLOPs and nodes before and after, and the speed-up on the target (None
            if the graph is unchanged). `note` has the numbers that `denormals` set to zero, in words.
        `total`: the same for all passes together, against the plain graph on the same target.
        `left_out`: for each pass that did not run, the reason, and the speed-up of the graph from which the precision
            starts.
    """
    base, choices = conversion.base, conversion.choices
    target, precision = TARGETS.load(artifact.target), artifact.precision
    recipe = resolve(variant_of(artifact), target, choices)
    names = recipe.passes
    made = list(steps(conversion, target, recipe))
    float32 = made[len([name for name in names if not _lowers(name)])]
    others = {name: _tried(name, float32, conversion, target) for name in _others(names)}
    distinct: dict[int, onnx.ModelProto] = {id(step.model): step.model for step in (*made, *others.values())}
    hint = precision if precision == Precision.BF16 else Precision.FP32
    times = dict(zip(distinct, timed(base.artifact, target, list(distinct.values()), hint), strict=True))

    def gain(before: Optimised, after: Optimised) -> Json | None:
        if after.model is before.model:  # a pass without effect returns the same object
            return None
        return faster(times[id(before.model)], times[id(after.model)]).to_json()

    return {
        "passes": [
            {
                "pass": name,
                **_sizes(before.model, after.model, base.artifact.spec.input_size),
                "faster": gain(before, after),
                "refused": after.recipe[-1]["refused"],
                "note": _note(name, after.recipe[-1]["decisions"]),
            }
            for name, before, after in zip(names, made, made[1:], strict=False)
        ],
        "total": {
            **_sizes(made[0].model, made[-1].model, base.artifact.spec.input_size),
            "faster": gain(made[0], made[-1]),
        },
        "left_out": [
            {"pass": name, "why": _why(name, result, choices.without, artifact), "faster": gain(float32, result)}
            for name, result in others.items()
        ],
    }


def _note(name: str, decisions: Json) -> str:
    return f"{summary(decisions)} set to zero" if name == "denormals" and decisions else ""


def _lowers(name: str) -> bool:
    step = PASSES.load(name)
    return step.required


def _others(names: tuple[str, ...]) -> list[str]:
    """Returns the passes that apply to a float graph and are not in the recipe."""
    passes = PASSES.load_all()
    return [
        name
        for name, step in passes.items()
        if name not in (*names, *PLAIN_PASSES) and not (step.required or step.calibrated)
    ]


def _tried(name: str, before: Optimised, conversion: Conversion, target: Target) -> Optimised:
    scheme, crops = target.scheme(this_cpu()), conversion.crops
    context = PassContext(spec=conversion.base.artifact.spec, crops=crops() if crops else None, scheme=scheme)
    return optimise(before.model, [name], context, before.outputs or None)


def _why(name: str, result: Optimised, without: tuple[str, ...], artifact: Artifact) -> str:
    if refused := result.recipe[-1]["refused"]:
        return str(refused)
    if name in without:
        return f"switched off (--no-{name})"
    return f"no default for {artifact.target} in {artifact.precision} (docs/passes.md)"


def _sizes(before: onnx.ModelProto, after: onnx.ModelProto, size: tuple[int, int]) -> Json:
    return {
        "parameters": [parameters(before), parameters(after)],
        "flops": [flops(before, size), flops(after, size)],
        "nodes": [len(before.graph.node), len(after.graph.node)],
    }
