"""Latency of warm runs, measured in blocks that are robust against other work on the machine.

A block is some untimed runs of one contestant, then timed runs of the same contestant. Each round has
one block of every contestant, in a seeded random order. Inside a block the weights and the code of the contestant are
in the cache, as in a loop that does nothing else. A disturbance slows all blocks of a round alike: the ratios of the
blocks of one round stay valid.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, comb

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
    """

    untimed: int = 5
    timed: int = 20

    @property
    def runs(self) -> int:
        """Number of all runs."""
        return self.untimed + self.timed


BLOCK = Block()
BLOCK_SECONDS = 0.15
"""Duration above which a block has fewer than 20 timed runs, seconds: a slow network needs fewer runs to be warm."""
ROUNDS = 9
"""Smallest number of rounds. The 95 % interval of nine medians leaves out the smallest and the largest."""


def block_of(seconds: float) -> Block:
    """Returns a block of about `BLOCK_SECONDS` for a contestant with this time of a run, seconds."""
    timed = int(np.clip(BLOCK_SECONDS / max(seconds, 1e-9), 3, BLOCK.timed))
    return Block(untimed=ceil(timed * BLOCK.untimed / BLOCK.timed), timed=timed)


def interleaved(
    runs: Sequence[Callable[[], object]],
    rounds: int,
    step: Callable[[], object] = lambda: None,
    *,
    blocks: Sequence[Block] | None = None,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> list[Float64]:
    """Times contestants in blocks. Every round has one block of each contestant, in another seeded order.

    Args:
        runs: Functions to time.
        rounds: Number of rounds.
        step: Called after every round, outside the timed part.
        blocks: Block of each function; `BLOCK` by default.
        clock: Returns nanoseconds.

    Returns:
        For each function (rounds, timed) float64, milliseconds; `timed` is that of its block.
    """
    blocks = blocks or [BLOCK] * len(runs)
    times: list[Float64] = [np.empty((rounds, block.timed)) for block in blocks]
    random = np.random.default_rng(0)
    for number in range(rounds):
        for index in random.permutation(len(runs)):
            run, block = runs[index], blocks[index]
            for _ in range(block.untimed):
                run()
            for sample in range(block.timed):
                start = clock()
                run()
                times[index][number, sample] = (clock() - start) / 1e6
        step()
    return times


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


def run_seconds(run: Callable[[], object]) -> float:
    """Returns the time of the second and last of two runs, seconds: a first estimate of the warm time."""
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


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
    """Summarises (rounds, timed) or (samples,) float64, milliseconds; each sample of the latter is its own block."""
    ordered = np.sort(times, axis=None)
    medians = _block_medians(times)
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
        after: The same, of the same rounds; `timed` may differ.
    """
    ratios = np.sort(np.median(before, axis=1) / np.median(after, axis=1))
    low, high = _median_ranks(len(ratios))
    return Gain(median=float(np.median(ratios)), low=float(ratios[low]), high=float(ratios[high]))


def _block_medians(times: Float64) -> Float64:
    """Returns the medians of the blocks, ascending."""
    return np.sort(np.median(times.reshape(len(times), -1), axis=1))


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
