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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lmconv.inference.latency import Gain, faster
from lmconv.judging.loss import Budget, Loss, Verdict
from lmconv.store.files import canonical
from lmconv.tuning.trials import Trials, key
from lmconv.types import Float64, Json, Mix, Precision

GROUP = 7
"""Number of flipped graphs that are timed interleaved with the graph from which they differ."""
SCREEN_S = 1.5
"""Time for one screening of several graphs, seconds."""
SMALLEST = 0.01
"""Smallest relative change of time that screening does not treat as noise."""
CLIMBS = 8
"""Largest number of promising flips that are tried one after the other."""
PROBES = 4
"""Largest number of bisection steps for the number of layers that return to float."""
ALIKE = 1.01
"""Two graphs count as equally fast if their times do not differ significantly by more than this factor."""
SCREENING = 0.5
"""Share of the search time that screening may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A judged and timed candidate.

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
    mix: Mix
    loss: Loss
    verdict: Verdict
    why: str
    ms: float
    faster: Gain


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """Sensitivity of one layer that can be int8.

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
class Found:
    """Result of a search.

    Attributes:
        points: All judged candidates, fastest first.
        chosen: The chosen candidate, one of `points`.
        why: Reason of the choice, for the user.
        layers: Sensitivity of all layers that can be int8, in graph order; empty if the network has none.
    """

    points: tuple[Point, ...]
    chosen: Point
    why: str
    layers: tuple[LayerCost, ...]


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

    def run(self) -> Found:
        """Runs the search."""
        finalists = self._uniform()
        layers: tuple[LayerCost, ...] = ()
        if whole := self._all_int8():
            fp32, *ms = self._rough([finalists[0], *whole])
            best = int(np.argmin(ms))
            finalists.append(whole[best])
            base = whole[best] if ms[best] < fp32 else self._all_float(finalists[0])
            costs = self._flips(base)
            fast = self._climb(base, costs)
            found = self._fitting(fast, costs)
            if any(mix.floats == Precision.BF16 for mix in finalists):
                found.append(replace(found[-1], floats=Precision.BF16))
            finalists += [mix for mix in found if mix not in finalists and self._int8(mix)]
            layers = self._layers(fast, costs)
        points = self._race(finalists)
        chosen, why = self._choose(points)
        flags = set(self._int8(chosen.mix)) if layers else set()
        return Found(
            points=points,
            chosen=chosen,
            why=why,
            layers=tuple(replace(layer, int8=layer.name in flags) for layer in layers),
        )

    def _left(self, share: float = 1.0) -> bool:
        """True if less than this share of the search time has passed."""
        return time.perf_counter() - self._start < share * self.seconds

    def _uniform(self) -> list[Mix]:
        """Returns the mixes of one float precision that the target has and this machine computes; fp32 first."""
        target, decisions = self.trials.target, self.trials.widths()[0]
        known = [p for p in (Precision.FP32, Precision.FP16, Precision.BF16) if p in target.precisions]
        mixes = [
            Mix(precision=p, floats=_floats(p), rewrites=target.rewrites.get(p, ()), decisions=decisions) for p in known
        ]
        for mix in [mix for mix in mixes if mix.floats != Precision.FP32]:
            caveat = str(self.trials.memo.get(f"caveat {key(mix)}", functools.partial(self._caveat, mix))["caveat"])
            if caveat:
                self.note(f"{mix.precision} is left out: {caveat}")
                mixes.remove(mix)
        return mixes

    def _all_int8(self) -> list[Mix]:
        """Returns the mixes with every layer in int8; empty if no layer can be int8.

        The mixes are: the target's rewrites for int8, the target's rewrites for fp32 if different, and each further
        decision of `compact` with the rewrites for int8.
        """
        rewrites = dict.fromkeys(self.trials.target.rewrites.get(p, ()) for p in (Precision.INT8, Precision.FP32))
        first, *widths = self.trials.widths()
        mixes = [Mix(precision=Precision.INT8, rewrites=each, decisions=first) for each in rewrites]
        mixes += [replace(mixes[0], decisions=width) for width in widths]
        return [mix for mix in mixes if self.trials.partial(mix).layers]

    def _caveat(self, mix: Mix) -> Json:
        return {"caveat": self.trials.caveat(mix)}

    def _all_float(self, fp32: Mix) -> Mix:
        """Returns the int8 mix that keeps every layer in float."""
        return self._with(replace(fp32, precision=Precision.INT8), ())

    def _int8(self, mix: Mix) -> list[str]:
        """Returns the names of the int8 layers of a mix, in graph order."""
        if mix.precision != Precision.INT8:
            return []
        left = set(mix.settings.get("float_layers", ()))
        return [layer for layer in self.trials.partial(mix).layers if layer not in left]

    def _with(self, mix: Mix, int8: Sequence[str]) -> Mix:
        """Returns the mix with exactly these layers in int8."""
        left = sorted(set(self.trials.partial(mix).layers) - set(int8))
        settings = {key: value for key, value in mix.settings.items() if key != "float_layers"}
        return replace(mix, settings=settings | ({"float_layers": left} if left else {}))

    def _flipped(self, mix: Mix, segment: Sequence[str], to_int8: bool) -> Mix:
        now = set(self._int8(mix))
        return self._with(mix, sorted(now | set(segment) if to_int8 else now - set(segment)))

    def _rough(self, mixes: Sequence[Mix]) -> list[float]:
        """Returns the screening time of each mix, milliseconds; compare only values of the same call."""
        name = f"rough {canonical([key(mix) for mix in mixes])}"
        found = self.trials.memo.get(name, lambda: {"ms": self.trials.rough(mixes, SCREEN_S)})
        return [float(value) for value in found["ms"]]

    def _flips(self, base: Mix) -> dict[tuple[str, ...], float]:
        """Times the flip of every segment of layers against `base`, until `SCREENING` of the search time has passed.

        Returns:
            For each timed segment, the extra time of a run with the segment in float instead of int8, milliseconds.
        """
        layers = self.trials.partial(base).layers
        to_int8 = not self._int8(base)
        segments = list(dict.fromkeys([*self.trials.kinds(base), *_segments(layers)]))
        costs: dict[tuple[str, ...], float] = {}
        for start in range(0, len(segments), GROUP):
            group = segments[start : start + GROUP]
            if not self._left(SCREENING):
                self.note(f"{len(segments) - start} of {len(segments)} segments were not timed for want of time")
                break
            ms = self._rough([base, *(self._flipped(base, segment, to_int8) for segment in group)])
            for segment, one in zip(group, ms[1:], strict=True):
                costs[segment] = (ms[0] - one) if to_int8 else (one - ms[0])
            self.note(f"timed {start + len(group)} of {len(segments)} segments of layers")
        return costs

    def _climb(self, base: Mix, costs: dict[tuple[str, ...], float]) -> Mix:
        """Applies the flips that make `base` faster, best first; a flip is kept if the graph is then faster."""
        to_int8 = not self._int8(base)
        least = SMALLEST * self._rough([base, base])[0]
        gains = {segment: cost if to_int8 else -cost for segment, cost in costs.items()}
        promising = sorted((s for s in gains if gains[s] > least), key=lambda s: -gains[s])
        for segment in promising[:CLIMBS]:
            tried = self._flipped(base, segment, to_int8)
            if tried == base:
                continue
            now, then = self._rough([base, tried])
            base = tried if then < (1 - SMALLEST) * now else base
        return base

    def _fitting(self, fast: Mix, costs: dict[tuple[str, ...], float]) -> list[Mix]:
        """Returns the fastest mix, and if its loss is outside the budget also the tried mixes with more float layers."""
        layers = self._int8(fast)
        tried: list[Mix] = []

        def fits(count: int) -> bool:
            mix = self._with(fast, [layer for layer in layers if layer not in order[:count]])
            tried.append(mix)
            loss = self.trials.loss(mix, self.budget.drift)
            verdict, why = self.budget.judge(loss)
            self.note(f"{self._name(mix)}: ION {loss.ion.mean:+.3f}, drift {loss.drift.mean:.3f}: {why or 'within'}")
            return verdict == "within"

        order: list[str] = []
        if not layers or fits(0):
            return tried
        drifts = dict(self.trials.drifts(fast))
        least = SMALLEST * self._rough([fast, fast])[0]
        worth = {layer: drifts[layer] ** 2 / max(costs.get((layer,), 0.0), least) for layer in layers}
        order += sorted(layers, key=lambda layer: -worth[layer])
        # The squares of independent drifts add up; this gives the first guess of the bisection.
        loss = self.trials.loss(fast, self.budget.drift)
        left = 1 - np.cumsum([drifts[layer] ** 2 for layer in order]) / sum(d**2 for d in drifts.values())
        wanted = (0.9 * (self.budget.drift or np.inf) / loss.drift.mean) ** 2
        low, high = 0, len(order)
        guess = int(np.searchsorted(-left, -min(wanted, 0.75))) + 1
        for _ in range(PROBES):
            if high - low <= 1 or not self._left():
                break
            middle = min(max(guess, low + 1), high - 1)
            low, high = (low, middle) if fits(middle) else (middle, high)
            guess = (low + high) // 2
        return tried

    def _layers(self, mix: Mix, costs: dict[tuple[str, ...], float]) -> tuple[LayerCost, ...]:
        return tuple(
            LayerCost(name=name, drift=drift, cost_ms=costs.get((name,)), int8=False)
            for name, drift in self.trials.drifts(mix)
        )

    def _race(self, finalists: Sequence[Mix]) -> tuple[Point, ...]:
        """Judges and times all finalists, of which the first is fp32; returns them fastest first."""
        losses = [self.trials.loss(mix, self.budget.drift) for mix in finalists]
        name = f"race {canonical([key(mix) for mix in finalists])}"
        found = self.trials.memo.get(name, lambda: {"ms": self.trials.timed(finalists).tolist()})
        times: Float64 = np.array(found["ms"])
        points = []
        for mix, loss, mine in zip(finalists, losses, times, strict=True):
            verdict, why = self.budget.judge(loss)
            gain, ms = faster(times[0], mine), float(np.median(mine))
            point = Point(name=self._name(mix), mix=mix, loss=loss, verdict=verdict, why=why, ms=ms, faster=gain)
            points.append(point)
        return tuple(sorted(points, key=lambda point: point.ms))

    def _choose(self, points: Sequence[Point]) -> tuple[Point, str]:
        """Chooses the candidate with the least drift from all candidates within the budget that are equally fast."""
        fitting = [point for point in points if point.verdict == "within"]
        best = max(point.faster.median for point in fitting)
        alike = [point for point in fitting if point.faster.high * ALIKE >= best]
        chosen = min(alike, key=lambda point: (point.loss.drift.mean, point.ms))
        outside = [point for point in points if point.verdict != "within" and point.ms < chosen.ms]
        if chosen is fitting[0]:
            why = "it is the fastest within the budget"
        else:
            why = f"it is as fast as {fitting[0].name}, as far as can be told, and loses less"
        if outside:
            why += f"; {outside[0].name} is faster, but {outside[0].why}"
        return chosen, why

    def _name(self, mix: Mix) -> str:
        if mix.precision != Precision.INT8:
            return str(mix.precision)
        layers, int8 = len(self.trials.partial(mix).layers), len(self._int8(mix))
        own = self.trials.target.rewrites.get(Precision.INT8, ())
        extra = [name for name in mix.rewrites if name not in own]
        text = "int8" if int8 == layers else f"int8 in {int8} of {layers} layers"
        if mix.floats == Precision.BF16:
            text += ", else bf16"
        if mix.decisions != self.trials.widths()[0]:
            text += f", channels in {mix.decisions['compact']['multiple']}s"
        return f"{text}, after {' '.join(extra)}" if extra else text


def _floats(precision: Precision) -> Precision:
    return Precision.BF16 if precision == Precision.BF16 else Precision.FP32


def _segments(layers: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yields the halves of the layers, then the quarters, and so on down to single layers."""
    level = [tuple(layers)]
    while level:
        halves = [half for part in level if len(part) > 1 for half in (part[: len(part) // 2], part[len(part) // 2 :])]
        yield from halves
        level = halves
