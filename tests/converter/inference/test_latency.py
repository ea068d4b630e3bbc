from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from lmconv.inference.latency import P99_SAMPLES, WARM_UP, interleaved, latency


class Clock:
    """A clock in nanoseconds that advances only while a run is simulated."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def recorder(clock: Clock, calls: list[str], name: str, cost: int) -> Callable[[], None]:
    def run() -> None:
        calls.append(name)
        clock.now += cost

    return run


def test_sessions_are_timed_in_rounds_of_changing_order() -> None:
    """No session always follows the same session, and no session follows itself."""
    clock, calls = Clock(), list[str]()
    interleaved([recorder(clock, calls, name, 1) for name in "ABC"], 200, clock=clock)
    timed = calls[3 * WARM_UP :]
    assert all(set(timed[start : start + 3]) == set("ABC") for start in range(0, 600, 3))
    follows = Counter(pairwise(timed))
    assert all(follows[name, name] == 0 for name in "ABC")
    assert all(70 < follows[a, b] < 130 for a in "ABC" for b in "ABC" if a != b)


def test_every_session_is_warmed_up_before_timing() -> None:
    clock, calls = Clock(), list[str]()
    interleaved([recorder(clock, calls, name, 1) for name in "AB"], 1, clock=clock)
    assert "".join(calls[: 2 * WARM_UP]) == "A" * WARM_UP + "B" * WARM_UP


def test_times_are_milliseconds_of_the_sessions_only() -> None:
    clock, calls = Clock(), list[str]()
    runs = [recorder(clock, calls, "A", 2_000_000), recorder(clock, calls, "B", 500_000)]
    steps = []

    def step() -> None:
        steps.append(clock.now)
        clock.now += 10**9  # work between rounds is not timed

    times = interleaved(runs, 3, step, clock=clock)
    assert times.tolist() == [[2.0, 2.0, 2.0], [0.5, 0.5, 0.5]]
    assert len(steps) == 3


def test_percentiles_are_nearest_rank_samples() -> None:
    summary = latency(np.random.default_rng(0).permutation(np.arange(1.0, 1001.0)))
    assert (summary.p90_ms, summary.p99_ms) == (900.0, 990.0)
    assert summary.median_ms == 500.5


@pytest.mark.parametrize("samples", [64, P99_SAMPLES - 1])
def test_too_few_samples_have_no_99th_percentile(samples: int) -> None:
    assert latency(np.ones(samples)).p99_ms is None


def test_enough_samples_have_a_99th_percentile() -> None:
    assert latency(np.ones(P99_SAMPLES)).p99_ms == 1.0


@pytest.mark.parametrize("samples", [64, 200, 662])
def test_the_interval_contains_the_true_median_in_95_percent(samples: int) -> None:
    random = np.random.default_rng(samples)
    draws = random.exponential(1.0, (2000, samples))
    summaries = [latency(row) for row in draws]
    covered = np.mean([summary.low_ms <= np.log(2) <= summary.high_ms for summary in summaries])
    assert 0.94 <= covered <= 0.98
