"""The three measurements of a benchmark on the CPU: warm runs, cold runs, and several runs at the same time.

All three time all contestants in one run, in rounds of another seeded order (`lmconv.inference.latency`). A slow
baseline takes part in fewer rounds and takes a small share of the time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from lmconv import machine
from lmconv.benching.options import TimingOptions
from lmconv.inference.latency import BLOCK, FEWEST_ROUNDS, Block, block_of, interleaved, shuffled
from lmconv.inference.streams import steady
from lmconv.types import Arrays, Artifact, Float64, Streams

Progress: TypeAlias = Callable[[int, str], AbstractContextManager[Callable[..., None]]]
"""Shows a progress bar for a number of steps and a label, see `lmconv.console.Console.progress`."""
Times: TypeAlias = dict[str, Float64]
"""(rounds, timed) float64, milliseconds, of each contestant by name; see `lmconv.inference.latency.shuffled`."""
BASELINE_SHARE = 0.2
"""Largest time of a baseline, as a fraction of the time of all artefacts."""
BASELINE_SECONDS = 2.0
"""Time that a baseline may take in any case, seconds."""
SLOW = Block(untimed=1, timed=1)
"""Block of a baseline whose time would otherwise exceed these limits."""
COLD = Block(untimed=0, timed=1)
"""A block of a cold run."""
COLD_ROUNDS = 24
"""Number of cold runs of each artefact."""
SWEEPS = 4
"""Bytes that are read before a cold run, as a multiple of the last-level cache."""
UNKNOWN_CACHE = 64 << 20
"""Bytes of the last-level cache on a system that does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """An open artefact or baseline.

    Attributes:
        name: Path of the artefact, or name of the baseline.
        run: Computes the timed work once.
        seconds: First estimate of the time of a warm run.
        inputs: Inputs of a run of the network alone.
        open_streams: Opens the contestant for a number of runs at the same time; None if it takes no part in this.
        artifact: The artefact; None for a baseline.
        caveat: Difference between the artefact's `execution` and the runtime's actual behaviour.
    """

    name: str
    run: Callable[[], object]
    seconds: float
    inputs: Arrays
    open_streams: Callable[[int], Streams] | None
    artifact: Artifact | None = None
    caveat: str = ""


def warm(contestants: Sequence[Contestant], options: TimingOptions, progress: Progress) -> Times:
    """Times warm runs, in blocks."""
    blocks = paces(contestants, options.rounds, options.block)
    return _timed(contestants, options.rounds, blocks, progress, "warm runs")


def cold(contestants: Sequence[Contestant], progress: Progress) -> Times:
    """Times runs after the cache was swept: weights, code and activations come from memory."""
    blocks = paces(contestants, COLD_ROUNDS, COLD)
    return _timed(contestants, COLD_ROUNDS, blocks, progress, "cold runs", before=Sweep())


class Sweep:
    """Fills the caches of the CPU with other data: reads a buffer several times as large as the last-level cache."""

    def __init__(self) -> None:
        size = SWEEPS * (machine.cache_bytes() or UNKNOWN_CACHE)
        self._buffer = np.ones(size, np.uint8)  # zeros would all be the same page of memory

    def __call__(self) -> None:
        """Reads the buffer."""
        self._buffer.max()


def _timed(
    contestants: Sequence[Contestant],
    rounds: int,
    blocks: Sequence[Block],
    progress: Progress,
    label: str,
    before: Callable[[], object] = lambda: None,
) -> Times:
    """Times contestants in blocks, with a progress bar in which a slow block counts more than a quick one."""
    weights = _weights(contestants, blocks)
    with progress(_total(weights, blocks, rounds), label) as step:
        runs = [contestant.run for contestant in contestants]
        times = interleaved(runs, rounds, lambda index: step(weights[index]), blocks=blocks, before=before)
    return {contestant.name: each for contestant, each in zip(contestants, times, strict=True)}


def streams(contestants: Sequence[Contestant], count: int, options: TimingOptions, progress: Progress) -> Times:
    """Times the network alone, `count` runs at the same time.

    Returns:
        (rounds, 1) float64, milliseconds from one end of a run to the next, of each contestant.
    """
    able = [contestant for contestant in contestants if contestant.open_streams]
    blocks = paces(able, options.rounds, BLOCK)
    weights = _weights(able, blocks)
    with ExitStack() as stack:
        measures = []
        with progress(len(able), "opening streams") as step:
            for contestant, block in zip(able, blocks, strict=True):
                opened = stack.enter_context(contestant.open_streams(count))  # type: ignore[misc]
                measures.append(functools.partial(_between_ends, opened, contestant.inputs, count, block))
                measures[-1]()
                step()
        with progress(_total(weights, blocks, options.rounds), "throughput") as step:
            every = [block.every for block in blocks]
            times = shuffled(measures, options.rounds, lambda index: step(weights[index]), every=every)
    return {contestant.name: each for contestant, each in zip(able, times, strict=True)}


def _between_ends(opened: Streams, inputs: Arrays, count: int, block: Block) -> list[float]:
    """Returns the milliseconds from one end of a run to the next, measured over a block of runs of each stream."""
    untimed = count * block.untimed
    done = opened.run(inputs, untimed + count * block.timed + count)
    return [steady(done, count, untimed) * 1e3]


def paces(contestants: Sequence[Contestant], rounds: int, block: Block) -> list[Block]:
    """Returns the block of each contestant; that of a slow baseline is small, and not in every round."""
    artefacts = sum(contestant.seconds for contestant in contestants if contestant.artifact) * block.runs * rounds
    limit = max(BASELINE_SECONDS, BASELINE_SHARE * artefacts)
    return [
        block if contestant.artifact else pace(contestant.seconds, rounds, block, limit) for contestant in contestants
    ]


def pace(seconds: float, rounds: int, block: Block, limit: float) -> Block:
    """Returns the block of a baseline whose rounds take about `limit` seconds, in at least `FEWEST_ROUNDS` rounds.

    Args:
        seconds: Time of a run.
        rounds: Number of rounds.
        block: Block of an artefact.
        limit: Time of all rounds of the baseline, seconds.
    """
    smaller = [each for each in (block_of(seconds), SLOW) if each.runs < block.runs]
    for own in (block, *smaller):
        possible = int(limit / (own.runs * seconds))
        if possible >= rounds:
            return own
    return replace(own, every=max(1, rounds // max(possible, FEWEST_ROUNDS)))


def _weights(contestants: Sequence[Contestant], blocks: Sequence[Block]) -> list[int]:
    """Returns the expected time of a block of each contestant, microseconds."""
    return [int(block.runs * contestant.seconds * 1e6) for contestant, block in zip(contestants, blocks, strict=True)]


def _total(weights: Sequence[int], blocks: Sequence[Block], rounds: int) -> int:
    """Returns the expected time of all rounds, microseconds."""
    return sum(weight * -(-rounds // block.every) for weight, block in zip(weights, blocks, strict=True))
