"""Measures time, and loss on faces, of the mixes of one network on one target.

Times are processor times of this process on one thread: other load on the machine then has little influence. A target
that builds engines for a GPU is timed in wall time instead.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from lmconv.building import effort
from lmconv.building.effort import Effort
from lmconv.building.recipe import PRECISION_PASSES, precision_hint, resolve
from lmconv.building.request import Conversion
from lmconv.building.steps import steps
from lmconv.building.trial import opened, timed_together
from lmconv.console import phase
from lmconv.graph.index import Graph, attribute
from lmconv.inference.ort import OrtSession
from lmconv.judging import parity
from lmconv.judging.loss import Loss, Losses, loss, losses
from lmconv.plugins import PASSES
from lmconv.quantise.observe import ActivationStatistics, observe
from lmconv.quantise.partial import Partial, prepare
from lmconv.quantise.plan import QuantiserOptions, read
from lmconv.quantise.prepare import prepared
from lmconv.quantise.static import quantise
from lmconv.store.files import canonical
from lmconv.tuning.faces import FOLDS, FoldedFaces
from lmconv.tuning.memo import Memo
from lmconv.types import Artifact, Json, MixedPrecision, ModelSpec, PassContext, Precision, Target, Variant

if TYPE_CHECKING:
    import onnx

MAX_DRIFT_RATIO = 2.0
"""Multiple of the drift budget above which the remaining folds are skipped."""
TIMING_CROPS = 8
"""Number of calibration crops for graphs that are only timed: the values of scales do not change the time."""
SCREENING_ROUNDS = 5
"""Smallest number of rounds of a screening, which has no intervals."""
SCREENING_QUANTILE = 0.25
"""Quantile of the fastest block that screening compares: other work on the machine only makes times longer.

Eight copies of PFLD beside four busy processes for each core: this figure varied by 1 to 4 %, the median of the block
medians by 4 to 8 % (standard deviation).
"""
DRIFT_FACES = 32
"""Largest number of faces for the drift of single layers, which only orders the layers."""
DESCRIPTIONS = ("layers", "whole")
"""Decisions of `compact` that describe its result and are not needed to repeat it."""
TAKEN = ("layers", "merged")
"""Decisions of a pass that has changed, or could have changed, the graph."""


@dataclass(slots=True, kw_only=True)
class Trials:
    """Measurements of one network on one target.

    Attributes:
        conversion: The network and its options.
        target: The target that runs the graphs.
        faces: Faces for calibration and for the loss.
        settings: Options of the quantiser for the target's int8 scheme.
        memo: Store of all measurements.
        effort: Effort of the measurements.
    """

    conversion: Conversion
    target: Target
    faces: FoldedFaces
    settings: QuantiserOptions
    memo: Memo
    effort: Effort = effort.DEFAULT
    _quantisable: dict[tuple[str, bool], Partial] = field(default_factory=dict)
    _statistics: dict[tuple[str, int | None], ActivationStatistics] = field(default_factory=dict)

    @property
    def spec(self) -> ModelSpec:
        """Spec of the network."""
        return self.artifact.spec

    @property
    def artifact(self) -> Artifact:
        """Artefact of the plain graph."""
        return self.conversion.base.artifact

    def uniform(self, precision: Precision) -> MixedPrecision:
        """Returns the mix of one precision, with the number of channels that `compact` chooses for this precision."""
        name = f"decisions {precision}"
        floats = Precision.BF16 if precision == Precision.BF16 else Precision.FP32
        return MixedPrecision(
            precision=precision,
            floats=floats,
            rewrites=self.target.rewrites.get(precision, ()),
            decisions=self.memo.get(name, functools.partial(self._decisions, precision)),
        )

    def _decisions(self, precision: Precision) -> Json:
        """Returns the decisions that passes take by timing for a precision, by pass."""
        with phase(f"passes for {precision}"):
            return self._decided(precision)

    def _decided(self, precision: Precision) -> Json:
        recipe = resolve(Variant(target=self.target.name, precision=precision), self.target, self.conversion.choices)
        timing = {name for name in recipe.passes if "measure" in PASSES.load(name).uses}
        for result in steps(self.conversion, self.target, recipe):
            done = {step["pass"]: step["decisions"] for step in result.recipe if not step["refused"]}
            if timing <= {step["pass"] for step in result.recipe}:
                break
        return {
            name: {key: value for key, value in decided.items() if key not in DESCRIPTIONS}
            for name, decided in done.items()
            if name in timing and any(decided.get(key) for key in TAKEN)
        }

    def float_graph(self, mix: MixedPrecision) -> onnx.ModelProto:
        """Returns the float graph of a mix: the plain graph after all passes except the passes of the precision."""
        choices = replace(self.conversion.choices, mix=_in_float(mix))
        recipe = resolve(Variant(target=self.target.name, precision=Precision.MIXED), self.target, choices)
        *_, last = steps(replace(self.conversion, choices=choices), self.target, recipe)
        return last.model

    def quantisable(self, mix: MixedPrecision, *, timing_only: bool = True) -> Partial:
        """Returns the float graph of a mix with quantisation parameters for any selection of int8 layers.

        Args:
            mix: The mix; only its rewrites and decisions matter.
            timing_only: True for parameters from few crops and without error correction, which are good enough for
                timing.
        """
        cache_key = (key(_in_float(mix)), timing_only)
        if cache_key not in self._quantisable:
            settings, count = self.settings, self.settings.crops
            if timing_only:
                settings, count = replace(settings, adaptive_rounding=False, correct_bias=False), TIMING_CROPS
            crops = self.faces.calibration(None, count)
            self._quantisable[cache_key] = prepare(self.float_graph(mix), crops, settings)
        return self._quantisable[cache_key]

    def layers_by_kind(self, mix: MixedPrecision) -> list[tuple[str, ...]]:
        """Returns the layers that can be int8, by kind: grouped or dense, with a 1x1 or a larger kernel.

        A kind that has all layers is left out.
        """
        network = self.quantisable(mix)
        kinds: dict[tuple[bool, bool], list[str]] = {}
        for node in network.graph.proto.node:
            if node.output[0] in network.parameters.layers:
                shape = network.graph.constants[node.input[1]].shape
                kinds.setdefault((attribute(node, "group", 1) > 1, set(shape[2:]) <= {1}), []).append(node.output[0])
        return [tuple(layers) for layers in kinds.values() if len(layers) < len(network.layers)]

    def timing_graph(self, mix: MixedPrecision) -> onnx.ModelProto:
        """Returns a graph for timing only: the same operators as the graph of the mix, with cheap int8 parameters."""
        if mix.precision != Precision.INT8:
            return self.graph(mix)
        network = self.quantisable(mix)
        return network.graph_of(set(network.layers) - set(mix.settings.get("float_layers", ())))

    def graph(self, mix: MixedPrecision, fold: int | None = None) -> onnx.ModelProto:
        """Returns the graph of a mix; int8 is calibrated without the faces of `fold`, or on all faces for None."""
        model = self.float_graph(mix)
        if mix.precision == Precision.INT8:
            crops, cache_key = self.faces.calibration(fold, self.settings.crops), (key(_in_float(mix)), fold)
            if cache_key not in self._statistics:
                self._statistics[cache_key] = observe(Graph.of(prepared(model)), crops)
            return quantise(model, crops, read(mix.settings, self.settings), self._statistics[cache_key])[0]
        for pass_name in PRECISION_PASSES.get(mix.precision, ()):
            context = PassContext(spec=self.spec)
            copy = type(model)()
            copy.CopyFrom(model)
            model = PASSES.load(pass_name).apply(copy, context)[0]
        return model

    def caveat(self, precision: Precision) -> str:
        """Returns the runtime's caveat if this machine does not compute in a precision; otherwise an empty text."""
        with opened(self.artifact, self.target, self.conversion.base.model, precision) as session:
            return session.execution_mismatch

    def loss(self, mix: MixedPrecision, drift: float | None) -> Loss:
        """Returns the loss of a mix on faces. int8 is cross-fitted: each face is judged without being calibrated on.

        Args:
            mix: The mix.
            drift: Budget of the mean drift, ION points; None for no limit. If the mean drift of the first folds exceeds
                `MAX_DRIFT_RATIO` times the budget, the other folds are skipped.
        """
        if mix.precision != Precision.INT8:
            return loss(self._losses(mix, None))
        ion, drifts = np.empty(0), np.empty(0)
        with phase("judging on faces, fold", FOLDS) as part:
            for fold in range(FOLDS):
                part()
                measured = self._losses(mix, fold)
                ion, drifts = np.append(ion, measured.ion), np.append(drifts, measured.drift)
                if drift is not None and not np.mean(drifts) <= MAX_DRIFT_RATIO * drift:
                    break
        return loss(Losses(ion=ion, drift=drifts))

    def _losses(self, mix: MixedPrecision, fold: int | None) -> Losses:
        """Returns the losses on the faces of a fold, calibrated without this fold; on all faces for None."""

        def measure() -> Json:
            crops, expected = self.faces.of_fold(fold)
            with opened(self.artifact, self.target, self.graph(mix, fold), precision_hint(mix)) as session:
                measured = losses(parity.on_faces(session, self.spec, crops), expected, crops)
            figures = {"ion": measured.ion.tolist(), "drift": measured.drift.tolist()}
            return {name: [x if np.isfinite(x) else None for x in values] for name, values in figures.items()}

        stored = self.memo.get(f"losses {fold} {key(mix)}", measure)
        ion, drift = (np.array([np.inf if x is None else x for x in stored[name]]) for name in ("ion", "drift"))
        return Losses(ion=ion, drift=drift)

    def screening_times(self, mixes: Sequence[MixedPrecision]) -> list[float]:
        """Times mixes in blocks, for about `effort.screening_seconds`.

        Returns:
            A low quantile of the fastest block of each mix, milliseconds. Compare only values of the same call.
        """
        graphs = [self.contestant(mix) for mix in mixes]
        seconds, clock = self.effort.screening_seconds, self.target.clock
        times = timed_together(self.artifact, graphs, seconds, rounds=SCREENING_ROUNDS, clock=clock)
        return [float(np.quantile(each, SCREENING_QUANTILE, axis=1).min()) for each in times]

    def contestant(self, mix: MixedPrecision) -> tuple[Target, onnx.ModelProto, Precision]:
        """Returns target, graph and hint of a mix for timing, see `lmconv.building.trial.timed_together`."""
        return self.target, self.timing_graph(mix), precision_hint(mix)

    def layer_drifts(self, mix: MixedPrecision) -> Iterator[tuple[str, float]]:
        """Yields each layer's name, and the mean drift on faces if only this layer is int8, ION points.

        The drift is that of at most `DRIFT_FACES` faces.
        """
        network = self.quantisable(mix)
        crops, expected = self.faces.first(DRIFT_FACES)

        def measure(layer: str) -> Json:
            complete = self.quantisable(mix, timing_only=False)
            with OrtSession(complete.graph_of([layer]).SerializeToString()) as session:
                outputs = parity.on_faces(session, self.spec, crops)
            return {"drift": float(np.mean(parity.drift(outputs, expected, crops)))}

        with phase("drift of layer", len(network.layers)) as part:
            for layer in network.layers:
                part()
                name = f"alone {layer} {key(_in_float(mix))}"
                yield layer, self.memo.get(name, functools.partial(measure, layer))["drift"]


def _in_float(mix: MixedPrecision) -> MixedPrecision:
    return replace(mix, precision=Precision.FP32, floats=Precision.FP32, settings={})


def int8_layers(trials: Trials, mix: MixedPrecision) -> list[str]:
    """Returns the names of the int8 layers of a mix, in graph order."""
    if mix.precision != Precision.INT8:
        return []
    float_layers = set(mix.settings.get("float_layers", ()))
    return [layer for layer in trials.quantisable(mix).layers if layer not in float_layers]


def key(mix: MixedPrecision) -> str:
    """Returns the canonical JSON of a mix; identifies the mix in the names of measurements."""
    return canonical(asdict(mix))
