"""The graph that a target receives, and the content of a manifest that describes the graph."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import onnx

from lmconv.building.optimise import Optimised
from lmconv.graph.facts import flops, parameters
from lmconv.machine import versions
from lmconv.store import artifact as artifacts
from lmconv.types import Json, ModelSpec, TensorSpec, Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetGraph:
    """The graph that a target receives.

    Attributes:
        model: The whole graph, with pre- and post-processing.
        spec: Spec of the artefact.
        network: The network inside the graph before the passes of `Target.last`, with the decisions of all its passes.
        steps: The plain graph, then the result of each pass.
        last: Result of the passes of `Target.last`; None if the target has none.
        flushed: Number of denormal numbers made by passes after `denormals`; they are zero in `model`.
    """

    model: onnx.ModelProto
    spec: ModelSpec
    network: Optimised
    steps: list[Optimised] = field(default_factory=list)
    last: Optimised | None = None
    flushed: int = 0

    @property
    def recipe(self) -> Json:
        """The part of a manifest's `recipe` that describes the graph."""
        opset = {entry.domain: entry.version for entry in self.model.opset_import}[""]
        last = {"last": self.last.recipe} if self.last and self.last.recipe else {}
        flushed = {"flushed": self.flushed} if self.flushed else {}
        return {"opset": opset, "passes": self.network.recipe, "batch": self.spec.batch, **last, **flushed}

    @property
    def measured(self) -> Json:
        """Figures of the passes that differ from run to run."""
        return self.network.measured | (self.last.measured if self.last else {})


def content(graph: TargetGraph, variant: Variant, parents: Json, start: float, *, exporter: str) -> Json:
    """Returns the content of a manifest, without the parts that the target adds: `execution` and `machine`.

    Args:
        graph: The graph that the target receives.
        variant: The variant that the graph is for.
        parents: The manifest's `parents`.
        start: `time.perf_counter()` at the start of the work, seconds.
        exporter: Name of the exporter, see `lmconv.sources.tracing.Exported`.
    """
    spec = graph.spec
    return {
        "spec": artifacts.spec_to_json(spec),
        "interface": artifacts.interface(spec),
        "target": variant.target,
        "precision": str(variant.precision),
        "parents": parents,
        "recipe": {"exporter": exporter, **graph.recipe},
        "versions": versions(),
        "parameters": parameters(graph.network.model),
        "flops": flops(graph.network.model, spec.input_size),
        "measured": {
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(time.perf_counter() - start, 3),
            "warnings": list(graph.network.warnings),
            "passes": graph.measured,
        },
    }


def with_batch(spec: ModelSpec, batch: int | None) -> ModelSpec:
    """Returns the spec with a fixed batch axis; a free one where `batch` is None."""

    def fixed(tensor: TensorSpec) -> TensorSpec:
        return replace(tensor, shape=(batch or "N", *tensor.shape[1:]))

    return replace(spec, inputs=tuple(map(fixed, spec.inputs)), outputs=tuple(map(fixed, spec.outputs)))
