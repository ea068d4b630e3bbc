"""Latency on shared machines: sessions in turn, so that what slows one slows all, and ratios hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, sqrt

import numpy as np
from numpy.typing import NDArray

from lmconv.types import Float64, Json

P99_SAMPLES = 662
"""Fewest samples that bound the 99th percentile (MLPerf Inference rules, early stopping, 99 % confidence)."""
P90_SAMPLES = 64
"""The same for the 90th."""
WARM_UP = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Time of one run.

    Attributes:
        samples: Number of timed runs.
        median_ms: Their median, milliseconds.
        low_ms: Lower end of the median's 95 % order-statistic interval.
        high_ms: Upper end.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile; None below 662 samples, which cannot bound it.
    """

    samples: int
    median_ms: float
    low_ms: float
    high_ms: float
    p90_ms: float
    p99_ms: float | None


def interleaved(
    runs: Sequence[Callable[[], object]],
    samples: int,
    step: Callable[[], object] = lambda: None,
    *,
    warm_up: int = WARM_UP,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Float64:
    """Times several runs in turn, in another seeded order each round, after a warm-up.

    None comes twice in a row, where its data would still be in the cache, unless there is but one.

    Args:
        runs: What to time.
        samples: How often each is timed.
        step: Called after every round, outside the timed part.
        warm_up: How often each is run before.
        clock: Nanoseconds.

    Returns:
        (len(runs), samples) float64, milliseconds.
    """
    for run in runs:
        for _ in range(warm_up):
            run()
    times: Float64 = np.empty((len(runs), samples))
    random = np.random.default_rng(0)
    last = -1
    for sample in range(samples):
        order = random.permutation(len(runs))
        order = order[::-1] if order[0] == last else order
        for index in order:
            start = clock()
            runs[index]()
            times[index, sample] = (clock() - start) / 1e6
        last = order[-1]
        step()
    return times


FEWEST = 15
"""Rounds below which a median has no interval worth the name."""


def paced(
    runs: Sequence[Callable[[], object]],
    seconds: float,
    most: int,
    *,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Float64:
    """Times runs as `interleaved` does, for about so long: at least 15 rounds, at most so many.

    Returns:
        (len(runs), samples) float64, milliseconds.
    """
    start = time.perf_counter()
    for run in (*runs, *runs):
        run()
    once = (time.perf_counter() - start) / 2
    samples = int(np.clip(seconds / once, FEWEST, most))
    return interleaved(runs, samples, warm_up=min(WARM_UP, ceil(samples / 10)), clock=clock)


def latency(times: Float64) -> Latency:
    """Summarises (samples,) float64 milliseconds; at least 64."""
    ordered = np.sort(times)
    low, high = _median_ranks(len(ordered))
    return Latency(
        samples=len(ordered),
        median_ms=float(np.median(ordered)),
        low_ms=float(ordered[low]),
        high_ms=float(ordered[high]),
        p90_ms=_percentile(ordered, 90),
        p99_ms=_percentile(ordered, 99) if len(ordered) >= P99_SAMPLES else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """How many times faster one run is than another: the median of paired ratios and its 95 % interval."""

    median: float
    low: float
    high: float

    def to_json(self) -> Json:
        """As plain JSON."""
        return {"median": self.median, "low": self.low, "high": self.high}


def faster(before: Float64, after: Float64) -> Gain:
    """How many times faster `after` is, from (samples,) float64 of the same interleaved rounds; above 1 is faster."""
    ratios = np.sort(before / after)
    low, high = _median_ranks(len(ratios))
    return Gain(median=float(np.median(ratios)), low=float(ratios[low]), high=float(ratios[high]))


def _median_ranks(count: int) -> tuple[int, int]:
    """Indices whose order statistics enclose the median with 95 % confidence (normal approximation of the binomial)."""
    half = 1.96 * sqrt(count) / 2
    return max(0, floor(count / 2 - half) - 1), min(count - 1, ceil(count / 2 + half))


def _percentile(ordered: NDArray[np.float64], percent: int) -> float:
    """The smallest sample that at least this share of samples does not exceed (nearest rank)."""
    return float(ordered[ceil(percent / 100 * len(ordered)) - 1])
