"""Runs passes over the graph and compares the result of each pass with its input."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lmconv.building.limits import beside
from lmconv.building.recipe import PRECISION_PASSES
from lmconv.console import phase
from lmconv.errors import GateFailed, UsageError, first_line
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import outputs
from lmconv.inference.ties import jumps, ties
from lmconv.networks.compare import largest
from lmconv.networks.heads import head_of
from lmconv.networks.interfaces import interface_of
from lmconv.networks.outputs import Outputs
from lmconv.opsets.versions import opset_of
from lmconv.plugins import PASSES
from lmconv.types import Json, Pass, PassContext, Precision

if TYPE_CHECKING:
    import onnx

SEEDED_INPUTS = 8
"""Number of seeded inputs on which a pass is compared."""
CHECK_CROPS = 32
"""Number of real crops on which a pass is compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimised:
    """A graph after its passes.

    Attributes:
        model: The graph.
        recipe: Decisions of each pass.
        measured: Duration of each pass and times on which its decisions depend. The figures differ from run to run and
            are not part of the recipe.
        warnings: Passes left out, with the reason; warnings of the passes.
        outputs: Outputs of the graph for the inputs on which passes are compared.
    """

    model: onnx.ModelProto
    recipe: list[Json]
    measured: Json
    warnings: list[str]
    outputs: dict[str, Outputs]


def optimise(
    model: onnx.ModelProto,
    passes: Sequence[str],
    context: PassContext,
    before: dict[str, Outputs] | None = None,
) -> Optimised:
    """Applies passes in order. A pass whose result differs by more than its tolerance does not change the graph.

    Args:
        model: The graph; not changed.
        passes: Names of the passes.
        context: Inputs of the passes besides the graph.
        before: `outputs` of the run that returned `model`; computed if None.

    Raises:
        GateFailed: A required pass was refused.
        UsageError: A pass calibrates on faces, and no faces are given.
    """
    recipe: list[Json] = []
    measured: Json = {}
    warnings: list[str] = []
    for name in passes:
        step = PASSES.load(name)
        if step.calibrated and context.crops is None:
            raise UsageError(f"{name} needs faces to calibrate on", hint="give --calibration DIR, annotated faces")
        before = _outputs(model, context) if before is None else before
        start = time.perf_counter()
        with phase(name):
            result, decisions, after, reason = _attempt(step, model, context, before)
        if reason:
            if step.required:
                raise GateFailed(f"pass {name} is refused: {reason}", hint="the graph before it is kept")
            warnings.append(f"pass {name} is left out: {reason}")
        else:
            model, before = result, after
        warnings += decisions.pop("warnings", [])
        measured[name] = {**decisions.pop("measured", {}), "seconds": round(time.perf_counter() - start, 3)}
        recipe.append({"pass": name, "decisions": {} if reason else decisions, "refused": reason})
    return Optimised(model=model, recipe=recipe, measured=measured, warnings=warnings, outputs=before or {})


def _attempt(
    step: Pass, model: onnx.ModelProto, context: PassContext, before: dict[str, Outputs]
) -> tuple[onnx.ModelProto, Json, dict[str, Outputs], str | None]:
    """Applies a pass to a copy of the graph.

    Returns:
        The result, the decisions, the outputs of the result, and the reason of a refusal or None.
    """
    copy = type(model)()
    copy.CopyFrom(model)
    try:
        result, decisions = step.apply(copy, context)
        if result == model:
            return model, decisions, before, None
        after = _outputs(result, context)
    except (GateFailed, UsageError):
        raise
    except Exception as error:  # a pass that fails on a graph must not end the export
        return model, {}, before, f"it failed with {type(error).__name__}: {first_line(error)}"
    judged = [kind for kind in before if not (step.calibrated and kind == "noise")]
    head = head_of(context.spec)
    worst = max(head.mean_change(before[kind], after[kind]) for kind in judged)
    if worst > step.tolerance and head.name == "points" and context.spec.io == "tensor":
        settled = _settled(step, model, context, before, after)
        worst = max(head.mean_change(settled[kind], after[kind]) for kind in judged)
    opset, expected = opset_of(result), step.opset or opset_of(model)
    if opset != expected:
        return model, decisions, before, f"it gives opset {opset}, not {expected}"
    if worst > step.tolerance:
        change, allowed = beside(worst, step.tolerance)
        return model, decisions, before, f"{head.change} by {change} on average, allowed {allowed}"
    return result, decisions, after, None


def _settled(
    step: Pass, model: onnx.ModelProto, context: PassContext, before: dict[str, Outputs], after: dict[str, Outputs]
) -> dict[str, Outputs]:
    """Returns the outputs before a pass, with the points that differ by a tie marked as undecided."""
    precision = next((key for key, names in PRECISION_PASSES.items() if step.name in names), Precision.FP32)
    settled = {}
    with OrtSession(model.SerializeToString()) as session:
        for kind, inputs in _inputs(context).items():
            expected = before[kind]
            allowed = step.tolerance * largest(expected.landmarks)
            if expected.landmarks.shape == after[kind].landmarks.shape:
                mask = ties(after[kind], expected, jumps(session, context.spec, inputs, precision, model), allowed)
                expected = replace(expected, undecided=mask)
            settled[kind] = expected
    return settled


def _inputs(context: PassContext) -> dict[str, Any]:
    """Returns the inputs on which a pass is compared."""
    interface = interface_of(context.spec)
    inputs: dict[str, Any] = {"noise": interface.seeded(SEEDED_INPUTS)[interface.batched]}
    if context.crops is not None:
        inputs["crops"] = context.crops[:: max(1, len(context.crops) // CHECK_CROPS)][:CHECK_CROPS]
    return inputs


def _outputs(model: onnx.ModelProto, context: PassContext) -> dict[str, Outputs]:
    with OrtSession(model.SerializeToString()) as session:
        return {kind: outputs(session, context.spec, images) for kind, images in _inputs(context).items()}
