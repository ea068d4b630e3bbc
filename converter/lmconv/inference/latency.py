"""Latency of warm runs, measured in blocks that are robust against other work on the machine.

A block is some untimed runs of one contestant, then timed runs of the same contestant. Each round has one block of
every contestant, in a seeded random order. Inside a block the weights and the code of the contestant are in the cache,
as in a loop that does nothing else. A disturbance slows all blocks of a round alike: the ratios of the blocks of one
round stay valid.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, comb
from typing import TypeAlias

import numpy as np

from lmconv.types import Float64, Json

P99_SAMPLES = 662
"""Smallest sample count that bounds the 99th percentile (MLPerf Inference rules, early stopping, 99 % confidence)."""
P90_SAMPLES = 64
"""Smallest number of samples that bounds the 90th percentile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Runs of one contestant in one round.

    Attributes:
        untimed: Number of runs that fill the cache first.
        timed: Number of timed runs.
        every: 2 for a contestant that takes part in every second round, and so on.
    """

    untimed: int = 5
    timed: int = 20
    every: int = 1

    @property
    def runs(self) -> int:
        """Number of all runs."""
        return self.untimed + self.timed


BLOCK = Block()
BLOCK_SECONDS = 0.15
"""Duration above which a block has fewer than 20 timed runs, seconds: a slow network needs fewer runs to be warm."""
ESTIMATE_RUNS, ESTIMATE_SECONDS = 5, 0.1
"""Largest number of runs for an estimate, and time in seconds after which no further run begins."""
ROUNDS = 9
"""Smallest number of rounds. The 95 % interval of nine medians leaves out the smallest and the largest."""
FEWEST_ROUNDS = 6
"""Smallest number of rounds of a slow baseline or of a choice: six medians enclose the true one in 97 %."""
FIRST_ROUNDS = 3
"""Number of rounds after which `halved` leaves out slow contestants."""
LEAD = 1.15
"""Ratio to the time of the fastest contestant up to which a contestant stays in `halved`."""
CHOOSING_SECONDS = 0.02
"""Duration above which a block of `halved` has fewer timed runs, seconds."""

Measure: TypeAlias = Callable[[], Sequence[float]]
"""Function that times one block of a contestant; returns one number of milliseconds per timed run."""
Step: TypeAlias = Callable[[int], object]
"""Function that is called after every block with the index of the contestant."""


def block_of(seconds: float, longest: float = BLOCK_SECONDS) -> Block:
    """Returns a block of about `longest` seconds for a contestant with this time of a run, seconds."""
    timed = int(np.clip(longest / max(seconds, 1e-9), 3, BLOCK.timed))
    return Block(untimed=ceil(timed * BLOCK.untimed / BLOCK.timed), timed=timed)


def interleaved(
    runs: Sequence[Callable[[], object]],
    rounds: int,
    step: Step = lambda index: None,
    *,
    blocks: Sequence[Block] | None = None,
    before: Callable[[], object] = lambda: None,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> list[Float64]:
    """Times contestants in blocks. Every round has one block of each contestant, in another seeded order.

    Args:
        runs: Functions to time.
        rounds: Number of rounds.
        step: Called after every block, outside the timed part.
        blocks: Block of each function; `BLOCK` by default.
        before: Called in front of every block, outside the timed part.
        clock: Returns nanoseconds.

    Returns:
        See `shuffled`.
    """
    blocks = blocks or [BLOCK] * len(runs)

    def measure(run: Callable[[], object], block: Block) -> list[float]:
        before()
        for _ in range(block.untimed):
            run()
        times = []
        for _ in range(block.timed):
            start = clock()
            run()
            times.append((clock() - start) / 1e6)
        return times

    measures = [functools.partial(measure, run, block) for run, block in zip(runs, blocks, strict=True)]
    return shuffled(measures, rounds, step, every=[block.every for block in blocks])


def shuffled(
    measures: Sequence[Measure], rounds: int, step: Step = lambda index: None, *, every: Sequence[int] | None = None
) -> list[Float64]:
    """Measures contestants in rounds, each round in another seeded order.

    Args:
        measures: Functions that time one block of each contestant.
        rounds: Number of rounds.
        step: Called after every block.
        every: 1 for a contestant that takes part in every round, 2 for every second round, and so on; 1 by default.

    Returns:
        For each contestant (rounds, timed) float64, milliseconds; `timed` is that of its block. The rows of rounds
        without this contestant are NaN.
    """
    every = every or [1] * len(measures)
    rows: list[list[Sequence[float]]] = [[] for _ in measures]
    random = np.random.default_rng(0)
    for number in range(rounds):
        for index in random.permutation(len(measures)):
            if number % every[index]:
                rows[index].append([math.nan] * len(rows[index][0]))
            else:
                rows[index].append(measures[index]())
                step(int(index))
    return [np.array(each) for each in rows]


def paced(
    runs: Sequence[Callable[[], object]],
    seconds: float,
    most: int,
    *,
    rounds: int = ROUNDS,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> list[Float64]:
    """Times contestants as `interleaved` does, for a given time; slow contestants have smaller blocks.

    Args:
        runs: Functions to time.
        seconds: Approximate duration.
        most: Largest number of rounds.
        rounds: Smallest number of rounds. Fewer than `ROUNDS` give no interval: for times that are only compared.
        clock: Returns nanoseconds.

    Returns:
        For each function (rounds, timed) float64, milliseconds.
    """
    durations = [run_seconds(run) for run in runs]
    blocks = [block_of(duration) for duration in durations]
    round_seconds = sum(block.runs * duration for block, duration in zip(blocks, durations, strict=True))
    return interleaved(runs, int(np.clip(seconds / round_seconds, rounds, most)), blocks=blocks, clock=clock)


def halved(
    runs: Sequence[Callable[[], object]],
    seconds: float,
    most: int,
    *,
    rounds: int = ROUNDS,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> list[Float64]:
    """Times contestants to find the fastest: after a few rounds of all, only those close to the fastest go on.

    Args:
        runs: Functions to time.
        seconds: Approximate duration; slow contestants take longer.
        most: Largest number of rounds.
        rounds: Smallest number of rounds of the contestants that go on.
        clock: Returns nanoseconds.

    Returns:
        For each function (rounds, timed) float64, milliseconds. After the first `FIRST_ROUNDS` rounds, the rows of
        contestants that were left out are NaN.
    """
    blocks = [block_of(run_seconds(run), CHOOSING_SECONDS) for run in runs]
    times = interleaved(runs, FIRST_ROUNDS, blocks=blocks, clock=clock)
    fastest = min(times, key=np.median)
    leading = [index for index, own in enumerate(times) if faster(own, fastest).median < LEAD]
    duration = sum(np.median(times[index]) / 1e3 * blocks[index].runs for index in leading)
    left = int(np.clip(seconds / duration, rounds, most)) - FIRST_ROUNDS
    further = [np.full((left, block.timed), math.nan) for block in blocks]
    last = interleaved([runs[index] for index in leading], left, blocks=[blocks[i] for i in leading], clock=clock)
    for index, own in zip(leading, last, strict=True):
        further[index] = own
    return [np.concatenate(parts) for parts in zip(times, further, strict=True)]


def run_seconds(run: Callable[[], object]) -> float:
    """Returns the shortest time of some runs after a first one, seconds: an estimate of the warm time."""
    run()
    times: list[float] = []
    while len(times) < ESTIMATE_RUNS and sum(times) < ESTIMATE_SECONDS:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Time of one warm run.

    Attributes:
        samples: Number of timed runs.
        median_ms: Median of the block medians, milliseconds.
        low_ms: Lower end of the 95 % order-statistic interval of the block medians, milliseconds.
        high_ms: Upper end of the interval, milliseconds.
        p90_ms: 90th percentile of all runs, milliseconds; None below 64 samples, which cannot bound the percentile.
        p99_ms: 99th percentile of all runs, milliseconds; None below 662 samples.
    """

    samples: int
    median_ms: float
    low_ms: float
    high_ms: float
    p90_ms: float | None
    p99_ms: float | None


def latency(times: Float64) -> Latency:
    """Summarises (rounds, timed) or (samples,) float64, milliseconds; each sample of the latter is its own block.

    Rows of NaN are left out, see `shuffled`.
    """
    times = times[~np.isnan(times.reshape(len(times), -1)[:, 0])]
    ordered = np.sort(times, axis=None)
    medians = np.sort(np.median(times.reshape(len(times), -1), axis=1))
    low, high = _median_ranks(len(medians))
    return Latency(
        samples=len(ordered),
        median_ms=float(np.median(medians)),
        low_ms=float(medians[low]),
        high_ms=float(medians[high]),
        p90_ms=_percentile(ordered, 90) if len(ordered) >= P90_SAMPLES else None,
        p99_ms=_percentile(ordered, 99) if len(ordered) >= P99_SAMPLES else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Speed-up of one contestant over another: median of the ratios of paired blocks, and its 95 % interval."""

    median: float
    low: float
    high: float

    def to_json(self) -> Json:
        """Returns plain JSON."""
        return {"median": self.median, "low": self.low, "high": self.high}


def faster(before: Float64, after: Float64) -> Gain:
    """Returns the speed-up of `after` over `before`; above 1 is faster.

    Args:
        before: (rounds, timed) float64, milliseconds.
        after: The same, of the same rounds; `timed` may differ. Rounds without one of the two are left out.
    """
    ratios = np.median(before, axis=1) / np.median(after, axis=1)
    ratios = np.sort(ratios[~np.isnan(ratios)])
    low, high = _median_ranks(len(ratios))
    return Gain(median=float(np.median(ratios)), low=float(ratios[low]), high=float(ratios[high]))


def _median_ranks(count: int) -> tuple[int, int]:
    """Returns the ranks, from 0, that enclose the median with at least 95 % confidence; the ends if there are few."""
    below, rank = 1, 0  # `below` of 2 ** count: probability that the median is below the sample of this rank
    while below * 40 <= 2**count:
        rank += 1
        below += comb(count, rank)
    return max(rank - 1, 0), count - max(rank, 1)


def _percentile(ordered: Float64, percent: int) -> float:
    """Returns a percentile by the nearest rank: the smallest sample that `percent` of the samples do not exceed."""
    return float(ordered[ceil(percent / 100 * len(ordered)) - 1])
