"""Search for the fastest mixes of precisions on a target within a budget of accuracy.

Time comes first. The time of a graph depends on the selection of int8 layers, not on the values of weights and scales.

1. Every uniform precision is timed.
2. The search starts from the faster of float and int8 and flips segments of layers to the other precision: layers of a
   kind, halves of the network, quarters and eighths, then the halves of every segment whose flip costs no time. A flip
   is kept if the graph becomes faster.
3. The fastest graph is judged on faces. If the loss is outside the budget, layers return to float: first the layers
   with the largest drift for the time that int8 saves.

The finalists then run in one race (`lmconv.tuning.race`), together with those of other targets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from lmconv.console import phase
from lmconv.judging.loss import Budget
from lmconv.store.files import canonical
from lmconv.tuning.race import Entrant
from lmconv.tuning.trials import Trials, int8_layers, key
from lmconv.types import MixedPrecision, Precision

SEGMENTS_PER_SCREENING = 8
"""Number of flipped graphs that are timed interleaved with the graph from which they differ."""
ALWAYS_HALVED = 2
"""Number of times that the halves of the network are halved whatever their flips cost."""
MIN_CHANGE = 0.015
"""Smallest relative change of time that screening does not treat as noise."""
MAX_FLIPS = 4
"""Largest number of promising flips that are tried, in sequence."""
MAX_PROBES = 3
"""Largest number of bisection steps for the number of layers that return to float."""
SCREENING_SHARE = 0.5
"""Share of the search time after which screening ends ..."""
LEAST_SCREENING_SHARE = 0.2
"""... but screening has at least this share of the search time for itself."""

FLOATS = (Precision.FP32, Precision.BF16)
"""Float precisions of a search. fp16 is for size and for GPUs."""

Segment: TypeAlias = tuple[str, ...]
"""Names of layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipCosts:
    """Times of flipped segments of layers, compared with the graph in which nothing is flipped.

    Attributes:
        relative: For each timed segment, the extra time of a run with the segment in float instead of int8, as a
            fraction of the time of a run.
        base_ms: Time of a run with nothing flipped, milliseconds; 0 if nothing is timed.
    """

    relative: dict[Segment, float] = field(default_factory=dict)
    base_ms: float = 0.0

    def of(self, layer: str) -> float:
        """Returns the cost of one layer, relative; its share of the smallest timed segment that holds the layer."""
        holders = [segment for segment in self.relative if layer in segment]
        smallest = min(holders, key=len, default=())
        return self.relative[smallest] / len(smallest) if smallest else 0.0

    def ms(self, layer: str) -> float | None:
        """Returns the cost of one layer, milliseconds; None if the layer alone is not timed."""
        cost = self.relative.get((layer,))
        return None if cost is None else cost * self.base_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSensitivity:
    """Drift and time of one layer that can be int8.

    Attributes:
        name: Name of the layer's output in the graph.
        drift: Mean drift on faces if only this layer is int8, ION points.
        cost_ms: Extra time of a run if this layer is float instead of int8, milliseconds; negative if float is faster;
            None if not timed alone.
    """

    name: str
    drift: float
    cost_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Result of a search.

    Attributes:
        finalists: Mixes for the race.
        layers: Sensitivity of all layers that can be int8, in graph order; empty if not measured.
        complete: False if the time did not suffice for all screenings and probes.
    """

    finalists: tuple[Entrant, ...]
    layers: tuple[LayerSensitivity, ...]
    complete: bool


@dataclass(slots=True, kw_only=True)
class Search:
    """A search; all measurements are stored in the memo of `trials`.

    Attributes:
        trials: Measures time and loss of mixes.
        budget: Largest loss allowed.
        seconds: Time for the search, seconds. After this time, only the candidates of the search so far are judged.
        sensitivity: True to measure the drift of every layer even if the search does not need it.
        note: Receives messages about the progress.
    """

    trials: Trials
    budget: Budget
    seconds: float
    sensitivity: bool = False
    note: Callable[[str], object] = lambda text: None
    _start: float = field(default_factory=time.perf_counter)
    _complete: bool = True
    _ordered: bool = False

    def run(self) -> Found:
        """Runs the search."""
        floats = self.uniform_float(FLOATS)
        finalists = list(floats)
        layers: tuple[LayerSensitivity, ...] = ()
        if uniform_int8 := self.uniform_int8():
            times = self._screening_times([*floats, *uniform_int8])
            float_ms, int8_ms = times[: len(floats)], times[len(floats) :]
            finalists.append(uniform_int8[int(np.argmin(int8_ms))])
            fastest_float = floats[int(np.argmin(float_ms))]
            base = finalists[-1] if min(int8_ms) < min(float_ms) else self._without_int8(fastest_float)
            costs = self._flip_costs(base)
            fast = self._apply_flips(base, costs)
            mixes = self._toward_budget(fast, costs)
            if mixes and any(mix.floats == Precision.BF16 for mix in floats):
                mixes.append(replace(mixes[-1], floats=Precision.BF16))
            finalists += [mix for mix in mixes if mix not in finalists and int8_layers(self.trials, mix)]
            if self.sensitivity or self._ordered:
                layers = self._sensitivities(fast, costs)
        return Found(finalists=tuple(map(self.entrant, finalists)), layers=layers, complete=self._complete)

    def uniform(self, precisions: Sequence[Precision]) -> list[Entrant]:
        """Returns the mixes of one precision, of these precisions, that the target has and this machine computes.

        Raises:
            LmconvError: The target cannot run the network.
        """
        self._caveat(Precision.FP32)
        mixes = self.uniform_float([each for each in precisions if each != Precision.INT8])
        if Precision.INT8 in precisions:
            mixes += self.uniform_int8(every=False)
        return [self.entrant(mix) for mix in mixes]

    def entrant(self, mix: MixedPrecision) -> Entrant:
        """Returns a mix as an entrant of a race."""
        return Entrant(trials=self.trials, mix=mix, name=self._name(mix))

    def _time_left(self, end: float | None = None) -> bool:
        """True before `end`, seconds of `time.perf_counter`; by default, before the end of the search time.

        Afterwards the search is not complete.
        """
        left = time.perf_counter() < (self._start + self.seconds if end is None else end)
        self._complete &= left
        return left

    def _seconds_left(self) -> float:
        return max(0.0, self._start + self.seconds - time.perf_counter())

    def uniform_float(self, precisions: Sequence[Precision]) -> list[MixedPrecision]:
        """Returns the mixes of these float precisions that the target has and this machine computes."""
        target, mixes = self.trials.target, []
        for precision in (precision for precision in precisions if precision in target.precisions):
            caveat = "" if precision == Precision.FP32 else self._caveat(precision)
            if caveat:
                self.note(f"{target.name} {precision} is left out: {caveat}")
            else:
                mixes.append(self.trials.uniform(precision))
        return mixes

    def uniform_int8(self, *, every: bool = True) -> list[MixedPrecision]:
        """Returns the mixes with every layer in int8; empty if no layer can be int8.

        The mixes are: the target's rewrites for int8, and, with `every`, its rewrites for fp32 if different.
        """
        target = self.trials.target
        if Precision.INT8 not in target.precisions:
            return []
        mix = self.trials.uniform(Precision.INT8)
        others = [target.rewrites.get(Precision.FP32, ())] if every else []
        rewrites = dict.fromkeys([mix.rewrites, *others])
        mixes = [replace(mix, rewrites=passes) for passes in rewrites]
        return [mix for mix in mixes if self.trials.quantisable(mix).layers]

    def _caveat(self, precision: Precision) -> str:
        """Returns the reason why this machine does not compute in a precision; else empty."""
        stored = self.trials.memo.get(f"caveat {precision}", lambda: {"caveat": self.trials.caveat(precision)})
        return str(stored["caveat"])

    def _without_int8(self, mix: MixedPrecision) -> MixedPrecision:
        """Returns the int8 mix that keeps every layer in float."""
        return self._with_int8(replace(mix, precision=Precision.INT8), ())

    def _with_int8(self, mix: MixedPrecision, layers: Iterable[str]) -> MixedPrecision:
        """Returns the mix with exactly these layers in int8."""
        float_layers = sorted(set(self.trials.quantisable(mix).layers) - set(layers))
        settings = {name: value for name, value in mix.settings.items() if name != "float_layers"}
        return replace(mix, settings=settings | ({"float_layers": float_layers} if float_layers else {}))

    def _flipped(self, mix: MixedPrecision, segment: Iterable[str], to_int8: bool) -> MixedPrecision:
        layers = set(int8_layers(self.trials, mix))
        return self._with_int8(mix, layers | set(segment) if to_int8 else layers - set(segment))

    def _screening_times(self, mixes: Sequence[MixedPrecision]) -> list[float]:
        """Returns the screening time of each mix, milliseconds; compare only values of the same call."""
        name = f"rough {canonical([key(mix) for mix in mixes])}"
        stored = self.trials.memo.get(name, lambda: {"ms": self.trials.screening_times(mixes)})
        return [float(value) for value in stored["ms"]]

    def _flip_costs(self, base: MixedPrecision) -> FlipCosts:
        """Times flips of segments of layers against `base`, until the time for screening has passed.

        Kinds of layers and the large segments of the network are always timed, a smaller segment only if the flip of
        the segment of which it is a half costs no time.
        """
        to_int8, target = not int8_layers(self.trials, base), self.trials.target.name
        least = time.perf_counter() + LEAST_SCREENING_SHARE * self.seconds
        end = max(self._start + SCREENING_SHARE * self.seconds, least)
        costs = FlipCosts()
        halves = _halves(self.trials.quantisable(base).layers)
        level = list(dict.fromkeys([*self.trials.layers_by_kind(base), *halves]))
        large = set(halves)
        for depth in range(len(self.trials.quantisable(base).layers)):
            for start in range(0, len(level), SEGMENTS_PER_SCREENING):
                if not self._time_left(end):
                    self.note(f"{target}: {len(level) - start} segments of layers are not timed: no time left")
                    return costs
                group = level[start : start + SEGMENTS_PER_SCREENING]
                with phase(f"segments of layers, {self._seconds_left():.0f} s left"):
                    costs = self._timed_flips(base, group, to_int8, costs)
                self.note(f"{target}: timed {len(costs.relative)} segments of layers")
            sign = 1 if to_int8 else -1
            divided = [
                segment
                for segment in level
                if (segment in large and depth < ALWAYS_HALVED) or sign * costs.relative[segment] > -MIN_CHANGE
            ]
            children = [half for segment in divided for half in _halves(segment)]
            large = {half for segment in divided if segment in large for half in _halves(segment)}
            level = [segment for segment in dict.fromkeys(children) if segment not in costs.relative]
            if not level:
                break
        return costs

    def _timed_flips(
        self, base: MixedPrecision, segments: Sequence[Segment], to_int8: bool, costs: FlipCosts
    ) -> FlipCosts:
        """Times the flips of some segments in one screening, and adds them to the costs."""
        base_ms, *flipped_ms = self._screening_times(
            [base, *(self._flipped(base, segment, to_int8) for segment in segments)]
        )
        sign = -1 if to_int8 else 1
        own = {segment: sign * (ms / base_ms - 1) for segment, ms in zip(segments, flipped_ms, strict=True)}
        return FlipCosts(relative=costs.relative | own, base_ms=costs.base_ms or base_ms)

    def _apply_flips(self, base: MixedPrecision, costs: FlipCosts) -> MixedPrecision:
        """Returns the fastest of `base` and `base` with the 1, 2, 4 ... flips that save most time."""
        to_int8 = not int8_layers(self.trials, base)
        savings = {segment: cost if to_int8 else -cost for segment, cost in costs.relative.items()}
        promising = sorted((s for s in savings if savings[s] > MIN_CHANGE), key=lambda s: -savings[s])
        if not promising:
            return base
        counts = [2**power for power in range(MAX_FLIPS) if 2**power < len(promising)] + [len(promising)]
        unions = [{layer for segment in promising[:count] for layer in segment} for count in counts]
        mixes = _distinct(self._flipped(base, union, to_int8) for union in unions)
        base_ms, *flipped_ms = self._screening_times([base, *mixes])
        fastest = int(np.argmin(flipped_ms))
        return mixes[fastest] if flipped_ms[fastest] < (1 - MIN_CHANGE) * base_ms else base

    def _toward_budget(self, fast: MixedPrecision, costs: FlipCosts) -> list[MixedPrecision]:
        """Returns the fastest mix; if its loss is outside the budget, also the tried mixes with more float layers."""
        layers = int8_layers(self.trials, fast)
        mixes: list[MixedPrecision] = []
        order: list[str] = []

        def within_budget(float_count: int) -> bool:
            """Judges the mix with the first `float_count` layers of `order` in float."""
            mix = self._with_int8(fast, [layer for layer in layers if layer not in order[:float_count]])
            mixes.append(mix)
            loss = self.trials.loss(mix, self.budget.drift)
            verdict, why = self.budget.judge(loss)
            result = why or "within the budget"
            name = f"{self.trials.target.name} {self._name(mix)}"
            self.note(f"{name}: ION {loss.ion.mean:+.4f}, drift {loss.drift.mean:.3f}: {result}")
            return verdict == "within"

        if not layers or within_budget(0):
            return mixes
        self._ordered, drifts = True, dict(self.trials.layer_drifts(fast))
        priority = {layer: drifts[layer] ** 2 / max(costs.of(layer), MIN_CHANGE / len(layers)) for layer in layers}
        order += sorted(layers, key=lambda layer: -priority[layer])
        # The squares of independent drifts add up; this gives the first guess of the bisection.
        loss = self.trials.loss(fast, self.budget.drift)
        remaining = 1 - np.cumsum([drifts[layer] ** 2 for layer in order]) / sum(d**2 for d in drifts.values())
        allowed = (0.9 * (self.budget.drift or np.inf) / loss.drift.mean) ** 2
        low, high = 0, len(order)
        guess = int(np.searchsorted(-remaining, -min(allowed, 0.75))) + 1
        for _ in range(MAX_PROBES):
            if high - low <= 1 or not self._time_left():
                break
            middle = min(max(guess, low + 1), high - 1)
            low, high = (low, middle) if within_budget(middle) else (middle, high)
            guess = (low + high) // 2
        return mixes

    def _sensitivities(self, mix: MixedPrecision, costs: FlipCosts) -> tuple[LayerSensitivity, ...]:
        return tuple(
            LayerSensitivity(name=name, drift=drift, cost_ms=costs.ms(name))
            for name, drift in self.trials.layer_drifts(mix)
        )

    def _name(self, mix: MixedPrecision) -> str:
        """Returns the description of a mix for the user."""
        if mix.precision != Precision.INT8:
            return str(mix.precision)
        layers, int8 = len(self.trials.quantisable(mix).layers), len(int8_layers(self.trials, mix))
        default_rewrites = self.trials.target.rewrites.get(Precision.INT8, ())
        extra_rewrites = [name for name in mix.rewrites if name not in default_rewrites]
        text = "int8" if int8 == layers else f"int8 in {int8} of {layers} layers"
        if mix.floats == Precision.BF16:
            text += ", else bf16"
        return f"{text}, after {' '.join(extra_rewrites)}" if extra_rewrites else text


def _halves(layers: Segment) -> list[Segment]:
    """Returns the two halves of a segment; empty for a single layer."""
    middle = len(layers) // 2
    return [layers[:middle], layers[middle:]] if middle else []


def _distinct(mixes: Iterable[MixedPrecision]) -> list[MixedPrecision]:
    """Returns the mixes without repetitions, in order."""
    return list({key(mix): mix for mix in mixes}.values())
