from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import numpy as np
import pytest

from lmconv.inference.latency import (
    BLOCK,
    FIRST_ROUNDS,
    P90_SAMPLES,
    P99_SAMPLES,
    ROUNDS,
    Block,
    block_of,
    faster,
    halved,
    interleaved,
    latency,
    paced,
)


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


def test_every_round_has_one_block_of_each_contestant_in_a_new_order() -> None:
    clock, calls = Clock(), list[str]()
    interleaved([recorder(clock, calls, name, 1) for name in "ABC"], 40, clock=clock)
    rounds = np.array(calls).reshape(40, 3, BLOCK.runs)
    assert (rounds == rounds[:, :, :1]).all()
    orders = ["".join(order) for order in rounds[:, :, 0]]
    assert all(sorted(order) == list("ABC") for order in orders)
    assert len(set(orders)) == 6


def test_the_first_runs_of_a_block_are_not_timed() -> None:
    """A run of 5 ms follows each change of contestant: the cache is cold."""
    clock, calls = Clock(), list[str]()

    def cold(name: str) -> Callable[[], None]:
        def run() -> None:
            clock.now += 1_000_000 if calls and calls[-1] == name else 5_000_000
            calls.append(name)

        return run

    times = interleaved([cold("A"), cold("B")], 3, clock=clock)
    assert all((each == 1.0).all() for each in times)


def test_times_are_milliseconds_of_the_runs_only() -> None:
    clock, calls = Clock(), list[str]()
    runs = [recorder(clock, calls, "A", 2_000_000), recorder(clock, calls, "B", 500_000)]
    steps = []

    def step(index: int) -> None:
        steps.append(index)
        clock.now += 10**9  # work between blocks is not timed

    first, second = interleaved(runs, 3, step, clock=clock)
    assert first.shape == second.shape == (3, BLOCK.timed)
    assert (first == 2.0).all()
    assert (second == 0.5).all()
    assert sorted(steps) == [0, 0, 0, 1, 1, 1]


def test_each_contestant_may_have_a_block_of_its_own() -> None:
    clock, calls = Clock(), list[str]()
    runs = [recorder(clock, calls, name, 1) for name in "AB"]
    times = interleaved(runs, 2, blocks=[Block(untimed=1, timed=3), Block()], clock=clock)
    assert [each.shape for each in times] == [(2, 3), (2, 20)]
    assert {name: len(list(group)) for name, group in groupby(sorted(calls))} == {"A": 8, "B": 50}


def test_a_contestant_may_take_part_in_every_second_round() -> None:
    """The machine becomes three times slower after two rounds; the ratio of the common rounds stays 2."""
    clock, calls = Clock(), list[str]()
    runs = [lambda: paced_run(clock, calls, 4), lambda: paced_run(clock, calls, 2)]
    rare, each = interleaved(
        runs, 4, blocks=[Block(untimed=0, timed=1, every=2), Block(untimed=0, timed=3)], clock=clock
    )
    assert (rare.shape, each.shape) == ((4, 1), (4, 3))
    assert np.isnan(rare[:, 0]).tolist() == [False, True, False, True]
    assert latency(rare).samples == 2
    assert faster(rare, each).median == 2.0


def paced_run(clock: Clock, calls: list[str], cost: int) -> None:
    calls.append("")
    clock.now += cost * (3 if len(calls) > 7 else 1)


def test_something_may_happen_in_front_of_every_block() -> None:
    clock, calls = Clock(), list[str]()
    runs = [recorder(clock, calls, name, 1) for name in "AB"]
    interleaved(runs, 3, blocks=[Block(untimed=0, timed=1)] * 2, before=lambda: calls.append("sweep"), clock=clock)
    assert calls[::2] == ["sweep"] * 6
    assert sorted(calls[1::2]) == ["A", "A", "A", "B", "B", "B"]


@pytest.mark.parametrize(
    ("seconds", "block"),
    [(1e-4, BLOCK), (7e-3, BLOCK), (0.03, Block(untimed=2, timed=5)), (1.0, Block(untimed=1, timed=3))],
)
def test_slow_contestants_have_smaller_blocks(seconds: float, block: Block) -> None:
    assert block_of(seconds) == block


def test_a_paced_timing_has_enough_rounds_for_an_interval() -> None:
    times = paced([lambda: None, lambda: None], seconds=0.0, most=100)
    assert [each.shape for each in times] == [(ROUNDS, BLOCK.timed)] * 2


def test_slow_contestants_leave_a_race_after_a_few_rounds() -> None:
    clock, calls = Clock(), list[str]()
    runs = [recorder(clock, calls, *each) for each in (("A", 1_050_000), ("B", 1_300_000), ("C", 1_000_000))]
    first, slow, fastest = halved(runs, 0.0, 30, clock=clock)
    assert [np.isfinite(times[:, 0]).sum() for times in (first, slow, fastest)] == [ROUNDS, FIRST_ROUNDS, ROUNDS]
    assert faster(slow, fastest).median == pytest.approx(1.3)  # over the rounds that both have


def test_percentiles_are_nearest_rank_samples() -> None:
    summary = latency(np.random.default_rng(0).permutation(np.arange(1.0, 1001.0)).reshape(50, 20))
    assert (summary.p90_ms, summary.p99_ms) == (900.0, 990.0)


def test_too_few_samples_have_no_percentiles() -> None:
    few = latency(np.ones((9, (P90_SAMPLES - 1) // 9)))
    assert (few.p90_ms, few.p99_ms) == (None, None)
    enough = latency(np.ones((1, P90_SAMPLES)))
    assert (enough.p90_ms, enough.p99_ms) == (1.0, None)
    assert latency(np.ones(P99_SAMPLES)).p99_ms == 1.0


def test_a_disturbed_block_does_not_move_the_interval() -> None:
    """Nine blocks, of which one was timed while the machine was busy."""
    times = np.full((9, 20), 2.0)
    times[3] = 30.0
    summary = latency(times)
    assert (summary.low_ms, summary.median_ms, summary.high_ms) == (2.0, 2.0, 2.0)


def test_ratios_pair_the_blocks_of_a_round() -> None:
    """The machine becomes three times slower halfway; the ratio stays 2."""
    pace = np.repeat([1.0, 3.0], [5, 4])[:, None]
    gain = faster(pace * np.full((9, 3), 4.0), pace * np.full((9, 20), 2.0))
    assert (gain.low, gain.median, gain.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("rounds", [9, 10, 20, 51])
def test_the_interval_contains_the_true_median_in_95_percent(rounds: int) -> None:
    draws = np.random.default_rng(rounds).exponential(1.0, (2000, rounds))
    summaries = [latency(row) for row in draws]
    covered = np.mean([summary.low_ms <= np.log(2) <= summary.high_ms for summary in summaries])
    assert 0.94 <= covered <= 0.985
