"""Looks for the fastest way to compute a network on a target within a budget of accuracy.

Time and accuracy are searched apart, because how long a graph takes depends on which layers are in int8, and not on
their numbers. First every uniform precision is timed. From the faster of float and int8, segments of layers are flipped
to the other, halves first, then quarters, down to single layers: what makes the network faster is kept. Only then are
faces looked at, from the fastest graph on: where it loses too much, layers go back to float, those first that lose most
for the time they save. What fits and is fastest, in one last race of all finalists, is chosen.
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
from lmconv.types import Float64, Json, MixedPrecision, Precision

GROUP = 7
"""How many graphs are timed in turn with the one they differ from."""
SCREEN_S = 1.5
"""How long a group is timed, seconds."""
SMALLEST = 0.01
"""A change of time below this share is taken for noise where graphs are screened."""
CLIMBS = 8
"""How many of the flips that looked faster are tried together."""
PROBES = 4
"""How often it is tried anew how many layers go back to float."""
ALIKE = 1.01
"""Graphs that cannot be told to differ by more than this are equally fast: then the one that loses least is taken."""
SCREENING = 0.5
"""Share of the time that screening may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One way to compute the network.

    Attributes:
        name: In words.
        mix: What it is.
        loss: What it loses on faces.
        verdict: What the budget says of that, and `why`.
        ms: Median time of a run, one thread, batch 1 or that of the network.
        faster: Than fp32 on the same target, in the same race.
    """

    name: str
    mix: MixedPrecision
    loss: Loss
    verdict: Verdict
    why: str
    ms: float
    faster: Gain


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """One layer of the network that int8 may have.

    Attributes:
        name: Of its output in the graph.
        drift: What its quantisation alone adds, mean over faces, ION points.
        cost_ms: What leaving it in float costs in time; below 0 where float is faster; None where it was not timed.
        int8: Whether it is int8 in what was chosen.
    """

    name: str
    drift: float
    cost_ms: float | None
    int8: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search has found.

    Attributes:
        points: Every way that was judged, the fastest first.
        chosen: The one of them to take.
        why: In a sentence.
        layers: Every layer, from the input on; empty where int8 was no option.
    """

    points: tuple[Point, ...]
    chosen: Point
    why: str
    layers: tuple[LayerCost, ...]


@dataclass(slots=True, kw_only=True)
class Search:
    """A search, which keeps all it measures in the memo of its trials.

    Attributes:
        trials: What measures.
        budget: What may be lost.
        seconds: After how long only what has been found is settled.
        note: Says how far it is.
    """

    trials: Trials
    budget: Budget
    seconds: float
    note: Callable[[str], object] = lambda text: None
    _start: float = field(default_factory=time.perf_counter)

    def run(self) -> Found:
        """Searches."""
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
        """Whether there is time left of a share of it."""
        return time.perf_counter() - self._start < share * self.seconds

    def _uniform(self) -> list[MixedPrecision]:
        """Every precision but int8 that the target has and this machine computes; fp32 first."""
        target, decisions = self.trials.target, self.trials.widths()[0]
        known = [p for p in (Precision.FP32, Precision.FP16, Precision.BF16) if p in target.precisions]
        mixes = [
            MixedPrecision(precision=p, floats=_floats(p), rewrites=target.rewrites.get(p, ()), decisions=decisions)
            for p in known
        ]
        for mix in [mix for mix in mixes if mix.floats != Precision.FP32]:
            caveat = str(self.trials.memo.get(f"caveat {key(mix)}", functools.partial(self._caveat, mix))["caveat"])
            if caveat:
                self.note(f"{mix.precision} is left out: {caveat}")
                mixes.remove(mix)
        return mixes

    def _all_int8(self) -> list[MixedPrecision]:
        """Int8 in every layer, with every number of channels that compaction may leave; none where there are no layers.

        Its rewrites are the target's for int8, or those for fp32 where they differ.
        """
        rewrites = dict.fromkeys(self.trials.target.rewrites.get(p, ()) for p in (Precision.INT8, Precision.FP32))
        first, *widths = self.trials.widths()
        mixes = [MixedPrecision(precision=Precision.INT8, rewrites=each, decisions=first) for each in rewrites]
        mixes += [replace(mixes[0], decisions=width) for width in widths]
        return [mix for mix in mixes if self.trials.partial(mix).layers]

    def _caveat(self, mix: MixedPrecision) -> Json:
        return {"caveat": self.trials.caveat(mix)}

    def _all_float(self, fp32: MixedPrecision) -> MixedPrecision:
        """Int8 without a layer in it."""
        return self._with(replace(fp32, precision=Precision.INT8), ())

    def _int8(self, mix: MixedPrecision) -> list[str]:
        """The layers of a mix that are int8."""
        if mix.precision != Precision.INT8:
            return []
        left = set(mix.settings.get("float_layers", ()))
        return [layer for layer in self.trials.partial(mix).layers if layer not in left]

    def _with(self, mix: MixedPrecision, int8: Sequence[str]) -> MixedPrecision:
        """The mix with these layers in int8, all others in float."""
        left = sorted(set(self.trials.partial(mix).layers) - set(int8))
        settings = {key: value for key, value in mix.settings.items() if key != "float_layers"}
        return replace(mix, settings=settings | ({"float_layers": left} if left else {}))

    def _flipped(self, mix: MixedPrecision, segment: Sequence[str], to_int8: bool) -> MixedPrecision:
        now = set(self._int8(mix))
        return self._with(mix, sorted(now | set(segment) if to_int8 else now - set(segment)))

    def _rough(self, mixes: Sequence[MixedPrecision]) -> list[float]:
        """About how long each takes, milliseconds."""
        name = f"rough {canonical([key(mix) for mix in mixes])}"
        found = self.trials.memo.get(name, lambda: {"ms": self.trials.rough(mixes, SCREEN_S)})
        return [float(value) for value in found["ms"]]

    def _flips(self, base: MixedPrecision) -> dict[tuple[str, ...], float]:
        """By segment of layers: what having it in float rather than int8 costs, milliseconds, as far as there is time.

        Each is timed in turn with `base`, of which it is flipped.
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

    def _climb(self, base: MixedPrecision, costs: dict[tuple[str, ...], float]) -> MixedPrecision:
        """Flips what makes `base` faster, one after the other as long as it does."""
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

    def _fitting(self, fast: MixedPrecision, costs: dict[tuple[str, ...], float]) -> list[MixedPrecision]:
        """The fastest mix, and where it loses too much, those with layers back in float that were tried instead."""
        layers = self._int8(fast)
        tried: list[MixedPrecision] = []

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
        # Squares of drifts add up, as far as errors are independent: where to look first.
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

    def _layers(self, mix: MixedPrecision, costs: dict[tuple[str, ...], float]) -> tuple[LayerCost, ...]:
        return tuple(
            LayerCost(name=name, drift=drift, cost_ms=costs.get((name,)), int8=False)
            for name, drift in self.trials.drifts(mix)
        )

    def _race(self, finalists: Sequence[MixedPrecision]) -> tuple[Point, ...]:
        """Judges and times what was found, the first of which is fp32; the fastest first."""
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
        """The fastest within the budget; of those that cannot be told from it, the one that loses least."""
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

    def _name(self, mix: MixedPrecision) -> str:
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
    """Halves, quarters, and so on to single layers."""
    level = [tuple(layers)]
    while level:
        halves = [half for part in level if len(part) > 1 for half in (part[: len(part) // 2], part[len(part) // 2 :])]
        yield from halves
        level = halves
