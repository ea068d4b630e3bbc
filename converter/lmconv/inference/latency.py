"""Latency on shared machines: runs are interleaved, so that a disturbance slows all of them and ratios stay valid."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, sqrt

import numpy as np
from numpy.typing import NDArray

from lmconv.types import Float64, Json

P99_SAMPLES = 662
"""Smallest sample count that bounds the 99th percentile (MLPerf Inference rules, early stopping, 99 % confidence)."""
P90_SAMPLES = 64
"""Smallest number of samples that bounds the 90th percentile."""
WARM_UP = 10
"""Number of untimed runs before the timed runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Time of one run.

    Attributes:
        samples: Number of timed runs.
        median_ms: Median, milliseconds.
        low_ms: Lower end of the median's 95 % order-statistic interval, milliseconds.
        high_ms: Upper end of the interval, milliseconds.
        p90_ms: 90th percentile, milliseconds.
        p99_ms: 99th percentile, milliseconds; None below 662 samples, which cannot bound the percentile.
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
    """Times several runs, interleaved, after a warm-up. Every round has another seeded order.

    No run is timed twice in a row, with its data still in the cache, unless it is the only run.

    Args:
        runs: Functions to time.
        samples: Number of timed calls of each function.
        step: Called after every round, outside the timed part.
        warm_up: Number of untimed calls of each function before.
        clock: Returns nanoseconds.

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
"""Smallest number of rounds for a useful interval of the median."""


def paced(
    runs: Sequence[Callable[[], object]],
    seconds: float,
    most: int,
    *,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Float64:
    """Times runs as `interleaved` does, for a given time.

    Args:
        runs: Functions to time.
        seconds: Approximate duration; at least `FEWEST` rounds are timed.
        most: Largest number of rounds.
        clock: Returns nanoseconds.

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
    """Summarises (samples,) float64, milliseconds; at least 64 samples."""
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
    """Speed-up of one run over another: median of the paired ratios and its 95 % interval."""

    median: float
    low: float
    high: float

    def to_json(self) -> Json:
        """Returns plain JSON."""
        return {"median": self.median, "low": self.low, "high": self.high}


def faster(before: Float64, after: Float64) -> Gain:
    """Returns the speed-up of `after` over `before`, both (samples,) float64 of the same rounds; above 1 is faster."""
    ratios = np.sort(before / after)
    low, high = _median_ranks(len(ratios))
    return Gain(median=float(np.median(ratios)), low=float(ratios[low]), high=float(ratios[high]))


def _median_ranks(count: int) -> tuple[int, int]:
    """Returns the ranks that enclose the median with 95 % confidence (normal approximation of the binomial)."""
    half = 1.96 * sqrt(count) / 2
    return max(0, floor(count / 2 - half) - 1), min(count - 1, ceil(count / 2 + half))


def _percentile(ordered: NDArray[np.float64], percent: int) -> float:
    """Returns a percentile by the nearest rank: the smallest sample that `percent` of the samples do not exceed."""
    return float(ordered[ceil(percent / 100 * len(ordered)) - 1])
