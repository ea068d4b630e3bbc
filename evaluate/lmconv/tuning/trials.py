"""Measures mixes of one network on one target: how long they take, and what they lose on faces.

Times are those of the process on one thread: what else the machine does then counts for little.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from lmconv.building.optimise import Optimised
from lmconv.building.recipe import PRECISION_PASSES, resolve
from lmconv.building.request import Choices, Conversion
from lmconv.building.steps import steps
from lmconv.building.trial import opened, timed
from lmconv.graph.index import Graph, attribute
from lmconv.inference.ort import OrtSession
from lmconv.judging import parity
from lmconv.judging.loss import Loss, Losses, loss, losses
from lmconv.plugins import PASSES
from lmconv.quantise.observe import ActivationStatistics, observe
from lmconv.quantise.partial import Partial, prepare
from lmconv.quantise.plan import QuantiserOptions, read
from lmconv.quantise.static import quantise
from lmconv.store.files import canonical, finite
from lmconv.tuning.faces import FOLDS, Faces
from lmconv.tuning.memo import Memo
from lmconv.types import Artifact, Float64, Json, MixedPrecision, ModelSpec, PassContext, Precision, Target, Variant

if TYPE_CHECKING:
    import onnx

HOPELESS = 2.0
"""A drift of so many times the budget on the first folds is not measured on the others."""
SLOW_S = 20.0
"""How long slow graphs are timed, seconds, where it matters."""
ROUGH = 8
"""How many crops are enough for numbers that only time shall be measured with."""
LOW = 0.25
"""Which quantile of times is compared where many graphs are screened: what others do on a machine only adds to it."""


@dataclass(slots=True, kw_only=True)
class Trials:
    """One network on one target.

    Attributes:
        conversion: The network and its options.
        target: The target that runs the graphs.
        faces: What losses are measured on.
        settings: The quantiser's, as the target wants them.
        memo: What has been measured already.
    """

    conversion: Conversion
    target: Target
    faces: Faces
    settings: QuantiserOptions
    memo: Memo
    _partials: dict[tuple[str, bool], Partial] = field(default_factory=dict)
    _seen: dict[tuple[str, int | None], ActivationStatistics] = field(default_factory=dict)

    @property
    def spec(self) -> ModelSpec:
        """The network's."""
        return self.artifact.spec

    @property
    def artifact(self) -> Artifact:
        """The plain graph's artefact."""
        return self.conversion.base.artifact

    def float_graph(self, mix: MixedPrecision) -> onnx.ModelProto:
        """What the passes of a mix make of the plain graph, before those of its precision."""
        return self._optimised(Precision.MIXED, replace(self.conversion.choices, mix=_in_float(mix))).model

    def _optimised(self, precision: Precision, choices: Choices) -> Optimised:
        """Result of the passes of a precision."""
        recipe = resolve(Variant(target=self.target.name, precision=precision), self.target, choices)
        *_, last = steps(replace(self.conversion, choices=choices), self.target, recipe)
        return last

    def partial(self, mix: MixedPrecision, *, rough: bool = True) -> Partial:
        """The same, ready to have any of its layers in int8; rough numbers are good for timing it only."""
        name = (key(_in_float(mix)), rough)
        if name not in self._partials:
            crops, settings = self.faces.calibration(None), self.settings
            if rough:
                crops, settings = crops[:ROUGH], replace(settings, adaptive_rounding=False, correct_bias=False)
            self._partials[name] = prepare(self.float_graph(mix), crops, settings)
        return self._partials[name]

    def widths(self) -> list[Json]:
        """What `compact` can decide: first what it does for this target in fp32, then other numbers of channels."""

        def measure() -> Json:
            made = self._optimised(Precision.FP32, self.conversion.choices)
            decided = {step["pass"]: step["decisions"] for step in made.recipe}.get("compact") or {}
            others = made.measured.get("compact", {}).get("faster than multiple 1", {})
            chosen = decided.get("multiple")
            multiples = [chosen, *(width for width in map(int, others) if width != chosen)] if chosen else []
            return {"multiples": multiples}

        found = self.memo.get("widths", measure)["multiples"]
        return [{"compact": {"multiple": width}} for width in found] or [{}]

    def kinds(self, mix: MixedPrecision) -> list[tuple[str, ...]]:
        """The layers that are alike: depthwise convolutions, 1x1 convolutions, and the rest."""
        partial = self.partial(mix)
        kinds: dict[tuple[bool, bool], list[str]] = {}
        for node in partial.graph.proto.node:
            if node.output[0] in partial.parameters.layers:
                shape = partial.graph.constants[node.input[1]].shape
                kinds.setdefault((attribute(node, "group", 1) > 1, set(shape[2:]) <= {1}), []).append(node.output[0])
        return [tuple(layers) for layers in kinds.values() if len(layers) < len(partial.layers)]

    def quick(self, mix: MixedPrecision) -> onnx.ModelProto:
        """A graph that takes the time that the one of this mix will; int8 numbers are those of each layer alone."""
        if mix.precision != Precision.INT8:
            return self.graph(mix)
        partial = self.partial(mix)
        return partial.graph_of(set(partial.layers) - set(mix.settings.get("float_layers", ())))

    def graph(self, mix: MixedPrecision, fold: int | None = None) -> onnx.ModelProto:
        """The graph of a mix, calibrated without a fold."""
        model = self.float_graph(mix)
        if mix.precision == Precision.INT8:
            crops, place = self.faces.calibration(fold), (key(_in_float(mix)), fold)
            if place not in self._seen:
                self._seen[place] = observe(Graph.of(model), crops)
            return quantise(model, crops, read(mix.settings, self.settings), self._seen[place])[0]
        for name in PRECISION_PASSES.get(mix.precision, ()):
            context = PassContext(spec=self.spec)
            copy = type(model)()
            copy.CopyFrom(model)
            model = PASSES.load(name).apply(copy, context)[0]
        return model

    def caveat(self, mix: MixedPrecision) -> str:
        """What this machine does instead of what a mix says; else empty."""
        with opened(self.artifact, self.target, self.quick(mix), told(mix)) as session:
            return session.execution_mismatch

    def loss(self, mix: MixedPrecision, drift: float | None) -> Loss:
        """What a mix loses on faces; int8 is cross-fitted: each face is judged by numbers that were found without it.

        One whose drift is hopeless beside `drift` is not measured on all.
        """
        if mix.precision != Precision.INT8:
            return loss(self._losses(mix, None))
        ion, drifts = np.empty(0), np.empty(0)
        for fold in range(FOLDS):
            found = self._losses(mix, fold)
            ion, drifts = np.append(ion, found.ion), np.append(drifts, found.drift)
            if drift is not None and not np.mean(drifts) <= HOPELESS * drift:
                break
        return loss(Losses(ion=ion, drift=drifts))

    def _losses(self, mix: MixedPrecision, fold: int | None) -> Losses:
        """Of the faces of a fold, calibrated without them; or of all."""

        def measure() -> Json:
            crops, expected = self.faces.part(fold)
            with opened(self.artifact, self.target, self.graph(mix, fold), told(mix)) as session:
                found = losses(parity.on_faces(session, self.spec, crops), expected, crops)
            figures: Json = finite({"ion": found.ion.tolist(), "drift": found.drift.tolist()})
            return figures

        found = self.memo.get(f"losses {fold} {key(mix)}", measure)
        ion, drift = (np.array([np.inf if x is None else x for x in found[name]]) for name in ("ion", "drift"))
        return Losses(ion=ion, drift=drift)

    def rough(self, mixes: Sequence[MixedPrecision], seconds: float) -> list[float]:
        """About how long each takes, milliseconds, timed in turn: good for comparing them with each other only."""
        times = self._timed(mixes, seconds)
        return [float(value) for value in np.quantile(times, LOW, axis=1)]

    def drifts(self, mix: MixedPrecision) -> Iterator[tuple[str, float]]:
        """What the quantisation of each layer alone adds: its name and the mean drift on faces, ION points."""
        partial = self.partial(mix, rough=False)

        def measure(layer: str) -> Json:
            with OrtSession(partial.graph_of([layer]).SerializeToString()) as session:
                found = parity.on_faces(session, self.spec, self.faces.crops)
            drift = parity.drift(found, self.faces.expected, self.faces.crops)
            return {"drift": float(np.mean(drift))}

        for layer in partial.layers:
            name = f"alone {layer} {key(_in_float(mix))}"
            yield layer, self.memo.get(name, functools.partial(measure, layer))["drift"]

    def timed(self, mixes: Sequence[MixedPrecision]) -> Float64:
        """Times mixes in turn: (mixes, samples) float64, milliseconds, one thread; 300 samples unless that is slow."""
        return self._timed(mixes, SLOW_S)

    def _timed(self, mixes: Sequence[MixedPrecision], seconds: float) -> Float64:
        models = [self.quick(mix) for mix in mixes]
        return timed(self.artifact, self.target, models, [told(mix) for mix in mixes], seconds, self.target.clock)


def told(mix: MixedPrecision) -> Precision:
    """What the runtime is told for a mix."""
    return Precision.BF16 if mix.floats == Precision.BF16 else mix.precision


def _in_float(mix: MixedPrecision) -> MixedPrecision:
    return replace(mix, precision=Precision.FP32, floats=Precision.FP32, settings={})


def key(mix: MixedPrecision) -> str:
    """Tells a mix from others."""
    return canonical(asdict(mix))
