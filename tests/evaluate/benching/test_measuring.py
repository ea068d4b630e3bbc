"""The share of slow baselines, and cold runs."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from math import ceil

import pytest

from lmconv import machine
from lmconv.benching import measuring
from lmconv.benching.measuring import COLD_ROUNDS, SLOW, Contestant, cold, pace
from lmconv.inference.latency import BLOCK, FEWEST_ROUNDS, latency


def test_a_quick_baseline_has_the_blocks_of_an_artefact() -> None:
    assert pace(0.002, 10, BLOCK, limit=2.0) == BLOCK


@pytest.mark.parametrize("rounds", [9, 10, 100])
@pytest.mark.parametrize("seconds", [0.01, 0.02, 0.07, 0.2])
def test_a_slow_baseline_takes_a_limited_time_and_has_enough_rounds(seconds: float, rounds: int) -> None:
    block = pace(seconds, rounds, BLOCK, limit=2.0)
    own_rounds = ceil(rounds / block.every)
    fewest = FEWEST_ROUNDS * SLOW.runs * seconds
    assert own_rounds >= FEWEST_ROUNDS
    assert own_rounds * block.runs * seconds <= 1.7 * max(2.0, fewest)


def test_every_cold_run_follows_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[str]()
    monkeypatch.setattr(measuring, "Sweep", lambda: lambda: calls.append("sweep"))
    contestants = [
        Contestant(name=name, run=partial(calls.append, name), seconds=1e-3, inputs={}, open_streams=None)
        for name in "AB"
    ]
    times = cold(contestants, lambda steps, label: nullcontext(lambda finished=1: None))
    assert calls[::2] == ["sweep"] * 2 * COLD_ROUNDS
    assert sorted(calls[1::2]) == ["A"] * COLD_ROUNDS + ["B"] * COLD_ROUNDS
    assert {name: latency(each).samples for name, each in times.items()} == dict.fromkeys("AB", COLD_ROUNDS)


def test_a_sweep_reads_more_than_the_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cache_bytes", lambda: 1000)
    sweep = measuring.Sweep()
    sweep()
    assert sweep._buffer.nbytes == 4000
