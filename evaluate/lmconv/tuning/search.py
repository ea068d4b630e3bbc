"""Search for the fastest mix of precisions on a target within a budget of accuracy.

Time comes first. The time of a graph depends on the selection of int8 layers, not on the values of weights and scales.

1. Every uniform precision is timed.
2. The search starts from the faster of float and int8 and flips segments of layers to the other precision: layers of a
   kind, halves of the network, quarters, and so on down to single layers. A flip is kept if the graph becomes faster.
3. The fastest graph is judged on faces. If the loss is outside the budget, layers return to float: first the layers
   with the largest drift for the time that int8 saves.
4. All finalists are timed in one race, and the fastest finalist within the budget is chosen.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from lmconv.inference.latency import Gain, faster
from lmconv.judging.loss import Budget, Loss, Verdict
from lmconv.store.files import canonical
from lmconv.tuning.trials import Trials, key
from lmconv.types import Float64, Json, MixedPrecision, Precision

SEGMENTS_PER_SCREENING = 7
"""Number of flipped graphs that are timed interleaved with the graph from which they differ."""
MIN_CHANGE = 0.01
"""Smallest relative change of time that screening does not treat as noise."""
MAX_FLIPS = 8
"""Largest number of promising flips that are tried, in sequence."""
MAX_PROBES = 4
"""Largest number of bisection steps for the number of layers that return to float."""
EQUAL_SPEED_RATIO = 1.01
"""Two graphs count as equally fast if their times do not differ significantly by more than this factor."""
SCREENING_SHARE = 0.5
"""Share of the search time that screening may take."""

FlipCosts: TypeAlias = Mapping[tuple[str, ...], float]
"""For a segment of layers, the extra time of a run with the segment in float instead of int8, milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A judged and timed mix.

    Attributes:
        name: Description for the user.
        mix: Precisions, rewrites and decisions of the candidate.
        loss: Loss on faces.
        verdict: Verdict of the budget on the loss.
        why: Reason of the verdict; empty if the loss is within the budget.
        ms: Median time of a run on one thread, with one input or the network's fixed batch, milliseconds.
        faster: Speed-up against fp32 on the same target, from the same race.
    """

    name: str
    mix: MixedPrecision
    loss: Loss
    verdict: Verdict
    why: str
    ms: float
    faster: Gain


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSensitivity:
    """Drift and time of one layer that can be int8.

    Attributes:
        name: Name of the layer's output in the graph.
        drift: Mean drift on faces if only this layer is int8, ION points.
        cost_ms: Extra time of a run if this layer is float instead of int8, milliseconds; negative if float is faster;
            None if not timed.
        int8: True if the layer is int8 in the chosen mix.
    """

    name: str
    drift: float
    cost_ms: float | None
    int8: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Result of a search.

    Attributes:
        candidates: All judged candidates, fastest first.
        chosen: The chosen candidate, one of `candidates`.
        why: Reason of the choice, for the user.
        layers: Sensitivity of all layers that can be int8, in graph order; empty if the network has none.
    """

    candidates: tuple[Candidate, ...]
    chosen: Candidate
    why: str
    layers: tuple[LayerSensitivity, ...]


@dataclass(slots=True, kw_only=True)
class Search:
    """A search; all measurements are stored in the memo of `trials`.

    Attributes:
        trials: Measures time and loss of mixes.
        budget: Largest loss allowed.
        seconds: Time for the search, seconds. After this time, only the candidates of the search so far are judged.
        note: Receives messages about the progress.
    """

    trials: Trials
    budget: Budget
    seconds: float
    note: Callable[[str], object] = lambda text: None
    _start: float = field(default_factory=time.perf_counter)

    def run(self) -> SearchResult:
        """Runs the search."""
        finalists = self._uniform_float()
        layers: tuple[LayerSensitivity, ...] = ()
        if uniform_int8 := self._uniform_int8():
            fp32_ms, *int8_ms = self._screening_times([finalists[0], *uniform_int8])
            fastest = int(np.argmin(int8_ms))
            finalists.append(uniform_int8[fastest])
            base = uniform_int8[fastest] if int8_ms[fastest] < fp32_ms else self._without_int8(finalists[0])
            costs = self._flip_costs(base)
            fast = self._apply_flips(base, costs)
            mixes = self._toward_budget(fast, costs)
            if mixes and any(mix.floats == Precision.BF16 for mix in finalists):
                mixes.append(replace(mixes[-1], floats=Precision.BF16))
            finalists += [mix for mix in mixes if mix not in finalists and self._int8_layers(mix)]
            layers = self._sensitivities(fast, costs)
        candidates = self._race(finalists)
        chosen, why = _choose(candidates)
        int8_layers = set(self._int8_layers(chosen.mix)) if layers else set()
        return SearchResult(
            candidates=candidates,
            chosen=chosen,
            why=why,
            layers=tuple(replace(layer, int8=layer.name in int8_layers) for layer in layers),
        )

    def _time_left(self, share: float = 1.0) -> bool:
        """True if less than this share of the search time has passed."""
        return time.perf_counter() - self._start < share * self.seconds

    def _uniform_float(self) -> list[MixedPrecision]:
        """Returns the mixes of one float precision that the target has and this machine computes; fp32 first."""
        target, decisions = self.trials.target, self.trials.compact_decisions()[0]
        precisions = [p for p in (Precision.FP32, Precision.FP16, Precision.BF16) if p in target.precisions]
        mixes = [
            MixedPrecision(
                precision=p, floats=_float_precision(p), rewrites=target.rewrites.get(p, ()), decisions=decisions
            )
            for p in precisions
        ]
        for mix in [mix for mix in mixes if mix.floats != Precision.FP32]:
            caveat = str(self.trials.memo.get(f"caveat {key(mix)}", functools.partial(self._caveat, mix))["caveat"])
            if caveat:
                self.note(f"{mix.precision} is left out: {caveat}")
                mixes.remove(mix)
        return mixes

    def _uniform_int8(self) -> list[MixedPrecision]:
        """Returns the mixes with every layer in int8; empty if no layer can be int8.

        The mixes are: the target's rewrites for int8, the target's rewrites for fp32 if different, and each further
        decision of `compact` with the rewrites for int8.
        """
        rewrites = dict.fromkeys(self.trials.target.rewrites.get(p, ()) for p in (Precision.INT8, Precision.FP32))
        first, *others = self.trials.compact_decisions()
        mixes = [MixedPrecision(precision=Precision.INT8, rewrites=passes, decisions=first) for passes in rewrites]
        mixes += [replace(mixes[0], decisions=decisions) for decisions in others]
        return [mix for mix in mixes if self.trials.quantisable(mix).layers]

    def _caveat(self, mix: MixedPrecision) -> Json:
        return {"caveat": self.trials.caveat(mix)}

    def _without_int8(self, fp32: MixedPrecision) -> MixedPrecision:
        """Returns the int8 mix that keeps every layer in float."""
        return self._with_int8(replace(fp32, precision=Precision.INT8), ())

    def _int8_layers(self, mix: MixedPrecision) -> list[str]:
        """Returns the names of the int8 layers of a mix, in graph order."""
        if mix.precision != Precision.INT8:
            return []
        float_layers = set(mix.settings.get("float_layers", ()))
        return [layer for layer in self.trials.quantisable(mix).layers if layer not in float_layers]

    def _with_int8(self, mix: MixedPrecision, layers: Sequence[str]) -> MixedPrecision:
        """Returns the mix with exactly these layers in int8."""
        float_layers = sorted(set(self.trials.quantisable(mix).layers) - set(layers))
        settings = {name: value for name, value in mix.settings.items() if name != "float_layers"}
        return replace(mix, settings=settings | ({"float_layers": float_layers} if float_layers else {}))

    def _flipped(self, mix: MixedPrecision, segment: Sequence[str], to_int8: bool) -> MixedPrecision:
        layers = set(self._int8_layers(mix))
        return self._with_int8(mix, sorted(layers | set(segment) if to_int8 else layers - set(segment)))

    def _screening_times(self, mixes: Sequence[MixedPrecision]) -> list[float]:
        """Returns the screening time of each mix, milliseconds; compare only values of the same call."""
        name = f"rough {canonical([key(mix) for mix in mixes])}"
        stored = self.trials.memo.get(name, lambda: {"ms": self.trials.screening_times(mixes)})
        return [float(value) for value in stored["ms"]]

    def _flip_costs(self, base: MixedPrecision) -> FlipCosts:
        """Times the flip of every segment of layers against `base`, until the time for screening has passed."""
        layers = self.trials.quantisable(base).layers
        to_int8 = not self._int8_layers(base)
        segments = list(dict.fromkeys([*self.trials.layers_by_kind(base), *_segments(layers)]))
        costs: dict[tuple[str, ...], float] = {}
        for start in range(0, len(segments), SEGMENTS_PER_SCREENING):
            group = segments[start : start + SEGMENTS_PER_SCREENING]
            if not self._time_left(SCREENING_SHARE):
                self.note(f"{len(segments) - start} of {len(segments)} segments of layers are not timed: no time left")
                break
            base_ms, *flipped_ms = self._screening_times(
                [base, *(self._flipped(base, segment, to_int8) for segment in group)]
            )
            for segment, ms in zip(group, flipped_ms, strict=True):
                costs[segment] = (base_ms - ms) if to_int8 else (ms - base_ms)
            self.note(f"timed {start + len(group)} of {len(segments)} segments of layers")
        return costs

    def _apply_flips(self, base: MixedPrecision, costs: FlipCosts) -> MixedPrecision:
        """Applies the flips that make `base` faster, best first; a flip is kept if the graph is then faster."""
        to_int8 = not self._int8_layers(base)
        min_gain = MIN_CHANGE * self._screening_times([base, base])[0]
        gains = {segment: cost if to_int8 else -cost for segment, cost in costs.items()}
        promising = sorted((s for s in gains if gains[s] > min_gain), key=lambda s: -gains[s])
        for segment in promising[:MAX_FLIPS]:
            flipped = self._flipped(base, segment, to_int8)
            if flipped == base:
                continue
            base_ms, flipped_ms = self._screening_times([base, flipped])
            base = flipped if flipped_ms < (1 - MIN_CHANGE) * base_ms else base
        return base

    def _toward_budget(self, fast: MixedPrecision, costs: FlipCosts) -> list[MixedPrecision]:
        """Returns the fastest mix; if its loss is outside the budget, also the tried mixes with more float layers."""
        layers = self._int8_layers(fast)
        mixes: list[MixedPrecision] = []
        order: list[str] = []

        def within_budget(float_count: int) -> bool:
            """Judges the mix with the first `float_count` layers of `order` in float."""
            mix = self._with_int8(fast, [layer for layer in layers if layer not in order[:float_count]])
            mixes.append(mix)
            loss = self.trials.loss(mix, self.budget.drift)
            verdict, why = self.budget.judge(loss)
            result = why or "within the budget"
            self.note(f"{self._name(mix)}: ION {loss.ion.mean:+.3f}, drift {loss.drift.mean:.3f}: {result}")
            return verdict == "within"

        if not layers or within_budget(0):
            return mixes
        drifts = dict(self.trials.layer_drifts(fast))
        min_cost = MIN_CHANGE * self._screening_times([fast, fast])[0]
        priority = {layer: drifts[layer] ** 2 / max(costs.get((layer,), 0.0), min_cost) for layer in layers}
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
            LayerSensitivity(name=name, drift=drift, cost_ms=costs.get((name,)), int8=False)
            for name, drift in self.trials.layer_drifts(mix)
        )

    def _race(self, finalists: Sequence[MixedPrecision]) -> tuple[Candidate, ...]:
        """Judges and times all finalists, of which the first is fp32; returns the candidates fastest first."""
        losses = [self.trials.loss(mix, self.budget.drift) for mix in finalists]
        name = f"race {canonical([key(mix) for mix in finalists])}"
        stored = self.trials.memo.get(
            name, lambda: {"ms": [times.tolist() for times in self.trials.race_times(finalists)]}
        )
        times: list[Float64] = [np.array(each) for each in stored["ms"]]
        candidates = []
        for mix, loss, own_times in zip(finalists, losses, times, strict=True):
            verdict, why = self.budget.judge(loss)
            candidate = Candidate(
                name=self._name(mix),
                mix=mix,
                loss=loss,
                verdict=verdict,
                why=why,
                ms=float(np.median(own_times)),
                faster=faster(times[0], own_times),
            )
            candidates.append(candidate)
        return tuple(sorted(candidates, key=lambda candidate: candidate.ms))

    def _name(self, mix: MixedPrecision) -> str:
        """Returns the description of a mix for the user."""
        if mix.precision != Precision.INT8:
            return str(mix.precision)
        layers, int8 = len(self.trials.quantisable(mix).layers), len(self._int8_layers(mix))
        default_rewrites = self.trials.target.rewrites.get(Precision.INT8, ())
        extra_rewrites = [name for name in mix.rewrites if name not in default_rewrites]
        text = "int8" if int8 == layers else f"int8 in {int8} of {layers} layers"
        if mix.floats == Precision.BF16:
            text += ", else bf16"
        if mix.decisions != self.trials.compact_decisions()[0]:
            text += f", channels in {mix.decisions['compact']['multiple']}s"
        return f"{text}, after {' '.join(extra_rewrites)}" if extra_rewrites else text


def _choose(candidates: Sequence[Candidate]) -> tuple[Candidate, str]:
    """Chooses the candidate with the least drift from all candidates within the budget that are equally fast.

    Args:
        candidates: All candidates, fastest first.

    Returns:
        The candidate, and the reason for the user.
    """
    fitting = [candidate for candidate in candidates if candidate.verdict == "within"]
    best = max(candidate.faster.median for candidate in fitting)
    equally_fast = [candidate for candidate in fitting if candidate.faster.high * EQUAL_SPEED_RATIO >= best]
    chosen = min(equally_fast, key=lambda candidate: (candidate.loss.drift.mean, candidate.ms))
    outside = [candidate for candidate in candidates if candidate.verdict != "within" and candidate.ms < chosen.ms]
    if chosen is fitting[0]:
        why = "fastest within the budget"
    else:
        why = f"not significantly slower than {fitting[0].name}, with less drift"
    if outside:
        why += f"; {outside[0].name} is faster, but {outside[0].why}"
    return chosen, why


def _float_precision(precision: Precision) -> Precision:
    return Precision.BF16 if precision == Precision.BF16 else Precision.FP32


def _segments(layers: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yields the halves of the layers, then the quarters, and so on down to single layers."""
    level = [tuple(layers)]
    while level:
        halves = [half for part in level if len(part) > 1 for half in (part[: len(part) // 2], part[len(part) // 2 :])]
        yield from halves
        level = halves
