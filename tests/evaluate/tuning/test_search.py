"""The search of `lmconv tune` in simulated worlds with exact times and losses of every mix."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from lmconv.judging.loss import Budget, Loss, Losses, loss
from lmconv.tuning.memo import Memo
from lmconv.tuning.race import Candidate, Choice, choose, judged
from lmconv.tuning.search import Found, Search
from lmconv.tuning.trials import Trials
from lmconv.types import MixedPrecision, Precision

FACES = 100


@dataclass(kw_only=True)
class World:
    """A simulated network.

    Each layer has a time in float, a time in int8, and the drift that its quantisation adds. A change of precision
    between two layers takes time too. Errors are independent.
    """

    float_ms: Sequence[float]
    int8_ms: Sequence[float]
    drift: Sequence[float]
    memo: Memo
    change_ms: float = 0.0
    precisions: tuple[Precision, ...] = (Precision.FP32, Precision.INT8)
    name: str = "cpu"
    judged: list[int] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"layer{index}" for index in range(len(self.drift)))

    @property
    def target(self) -> Any:
        return SimpleNamespace(name=self.name, precisions=self.precisions, rewrites={})

    def quantisable(self, mix: MixedPrecision) -> Any:
        return SimpleNamespace(layers=self.names)

    def uniform(self, precision: Precision) -> MixedPrecision:
        return MixedPrecision(precision=precision)

    def layers_by_kind(self, mix: MixedPrecision) -> list[tuple[str, ...]]:
        return []

    def caveat(self, precision: Precision) -> str:
        return ""

    def int8(self, mix: MixedPrecision) -> list[bool]:
        float_layers = mix.settings.get("float_layers", ())
        return [mix.precision == Precision.INT8 and name not in float_layers for name in self.names]

    def ms(self, mix: MixedPrecision) -> float:
        flags = self.int8(mix)
        times = [b if flag else a for a, b, flag in zip(self.float_ms, self.int8_ms, flags, strict=True)]
        return 1.0 + sum(times) + self.change_ms * sum(a != b for a, b in pairwise(flags))

    def screening_times(self, mixes: Sequence[MixedPrecision]) -> list[float]:
        return [self.ms(mix) for mix in mixes]

    def layer_drifts(self, mix: MixedPrecision) -> Iterator[tuple[str, float]]:
        yield from zip(self.names, self.drift, strict=True)

    def loss(self, mix: MixedPrecision, drift: float | None) -> Loss:
        flags = self.int8(mix)
        return self.memo_loss(float(np.sqrt(sum(d**2 for d, flag in zip(self.drift, flags, strict=True) if flag))))

    @functools.cache  # noqa: B019  a world exists as long as its test
    def memo_loss(self, drift: float) -> Loss:
        self.judged.append(1)
        return loss(Losses(ion=np.zeros(FACES), drift=np.full(FACES, drift)))

    __hash__ = object.__hash__


@dataclass(frozen=True, kw_only=True)
class Result:
    """A search, its race and the choice."""

    found: Found
    candidates: tuple[Candidate, ...]
    choice: Choice

    @property
    def chosen(self) -> Candidate:
        return self.choice.winner


def search(*worlds: World, drift: float | None = 0.4, seconds: float = 60.0) -> Result:
    budget = Budget(drift=drift)
    found = [Search(trials=cast("Trials", world), budget=budget, seconds=seconds).run() for world in worlds]
    entrants = [entrant for each in found for entrant in each.finalists]
    times = [np.full(9, 10.0), *(np.full(9, cast("World", each.trials).ms(each.mix)) for each in entrants)]
    candidates = judged(entrants, times, budget)
    choice = choose(candidates)
    assert choice
    return Result(found=found[0], candidates=candidates, choice=choice)


@pytest.fixture
def memo(tmp_path: Path) -> Memo:
    return Memo.load(tmp_path, {})


def test_every_layer_is_int8_if_int8_is_faster_and_within_the_budget(memo: Memo) -> None:
    world = World(float_ms=[1.0] * 8, int8_ms=[0.5] * 8, drift=[0.1] * 8, memo=memo)
    result = search(world)
    assert world.int8(result.chosen.mix) == [True] * 8
    assert result.chosen.faster.median == pytest.approx(10 / 5)


def test_no_layer_is_int8_if_int8_is_slower_everywhere(memo: Memo) -> None:
    result = search(World(float_ms=[0.5] * 8, int8_ms=[1.0] * 8, drift=[0.1] * 8, memo=memo))
    assert result.chosen.mix.precision == Precision.FP32


def test_no_layer_is_int8_where_the_machine_computes_bf16_faster_than_int8(memo: Memo) -> None:
    precisions = (Precision.FP32, Precision.BF16, Precision.INT8)
    world = World(float_ms=[0.5] * 8, int8_ms=[1.0] * 8, drift=[0.1] * 8, memo=memo, precisions=precisions)
    assert search(world).chosen.mix.precision in (Precision.FP32, Precision.BF16)


@pytest.mark.parametrize("slow", [[2], [2, 3, 4, 5], [0, 7]])
def test_layers_that_are_slower_in_int8_stay_float(memo: Memo, slow: list[int]) -> None:
    int8_ms = [2.0 if index in slow else 0.3 for index in range(8)]
    world = World(float_ms=[1.0] * 8, int8_ms=int8_ms, drift=[0.01] * 8, memo=memo)
    assert float_layers(world, search(world)) == slow


def test_a_run_of_layers_is_switched_together_if_single_layers_gain_nothing(memo: Memo) -> None:
    world = World(float_ms=[1.0] * 8, int8_ms=[0.5] * 4 + [1.2] * 4, drift=[0.01] * 8, change_ms=0.15, memo=memo)
    assert world.int8(search(world).chosen.mix) == [True] * 4 + [False] * 4


def test_a_network_that_is_faster_in_float_gets_int8_in_layers_that_gain(memo: Memo) -> None:
    world = World(float_ms=[1.0] * 8, int8_ms=[0.5] * 2 + [1.6] * 6, drift=[0.01] * 8, memo=memo)
    assert world.int8(search(world).chosen.mix) == [True] * 2 + [False] * 6


def test_of_layers_with_equal_gain_the_layers_with_most_drift_return_to_float(memo: Memo) -> None:
    drift = [0.05] * 8
    drift[3], drift[6] = 0.5, 0.6
    world = World(float_ms=[1.0] * 8, int8_ms=[0.5] * 8, drift=drift, memo=memo)
    result = search(world)
    assert float_layers(world, result) == [3, 6]
    assert result.chosen.verdict == "within"
    assert "is faster, but drift" in result.choice.why


def test_of_layers_with_equal_drift_the_layers_with_least_gain_return_to_float(memo: Memo) -> None:
    int8_ms = [0.1, 0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.9]
    world = World(float_ms=[1.0] * 8, int8_ms=int8_ms, drift=[0.18] * 8, memo=memo)
    result = search(world)
    assert {*float_layers(world, result)} <= {1, 3, 5, 7}
    assert result.chosen.loss
    assert result.chosen.loss.drift.mean <= 0.4


def test_fp32_is_chosen_if_nothing_else_is_within_the_budget(memo: Memo) -> None:
    world = World(
        float_ms=[1.0] * 4, int8_ms=[0.5] * 4, drift=[5.0] * 4, memo=memo, precisions=(Precision.FP32, Precision.INT8)
    )
    result = search(world)
    assert result.chosen.mix.precision == Precision.FP32
    assert len(world.judged) < 8


def test_judging_stops_once_the_fastest_graph_is_within_the_budget(memo: Memo) -> None:
    world = World(float_ms=[1.0] * 8, int8_ms=[0.5] * 8, drift=[0.01] * 8, memo=memo)
    search(world)
    assert len(world.judged) == 2  # int8, and no loss at all


def test_a_search_without_time_still_chooses_a_graph_within_the_budget(memo: Memo) -> None:
    result = search(World(float_ms=[1.0] * 8, int8_ms=[0.5] * 8, drift=[0.3] * 8, memo=memo), seconds=0.0)
    assert result.chosen.verdict == "within"


def test_a_network_without_layers_for_int8_stays_float(memo: Memo) -> None:
    result = search(World(float_ms=[], int8_ms=[], drift=[], memo=memo))
    assert result.found.layers == ()
    assert {candidate.mix.precision for candidate in result.candidates} == {Precision.FP32}


def test_points_are_ordered_fastest_first(memo: Memo) -> None:
    result = search(World(float_ms=[1.0] * 8, int8_ms=[0.5] * 8, drift=[0.2] * 8, memo=memo))
    times = [candidate.ms for candidate in result.candidates]
    assert times == sorted(times)
    assert result.chosen in result.candidates


def float_layers(world: World, result: Result) -> list[int]:
    return [index for index, int8 in enumerate(world.int8(result.chosen.mix)) if not int8]


# The race


def test_targets_run_in_one_race_and_the_fastest_wins(memo: Memo) -> None:
    slow = World(float_ms=[1.0] * 8, int8_ms=[0.9] * 8, drift=[0.1] * 8, memo=memo, name="slow")
    fast = World(float_ms=[1.0] * 8, int8_ms=[0.5] * 8, drift=[0.1] * 8, memo=memo, name="fast")
    choice = search(slow, fast).choice
    assert (choice.winner.label, choice.level) == ("fast int8", False)
    assert choice.runner_up
    assert choice.runner_up.label == "slow int8"
    assert choice.lead
    assert choice.lead.median == pytest.approx(8.2 / 5)


def test_of_equally_fast_candidates_the_one_with_the_least_drift_wins(memo: Memo) -> None:
    close = World(float_ms=[1.0] * 8, int8_ms=[0.5] * 8, drift=[0.05] * 8, memo=memo, name="close")
    quick = World(float_ms=[1.0] * 8, int8_ms=[0.499] * 8, drift=[0.1] * 8, memo=memo, name="quick")
    choice = search(quick, close).choice
    assert (choice.winner.target, choice.level) == ("close", True)
    assert choice.why == "not significantly slower than quick int8, with less drift"


def test_int8_that_is_slower_than_winner_and_runner_up_is_not_judged(memo: Memo) -> None:
    quick = World(float_ms=[1.0] * 8, int8_ms=[0.5] * 8, drift=[0.1] * 8, memo=memo, name="quick")
    slow = World(float_ms=[0.9] * 8, int8_ms=[2.0] * 8, drift=[0.1] * 8, memo=memo, name="slow")
    result = search(quick, slow)
    last = result.candidates[-1]
    assert (last.label, last.loss, last.verdict) == ("slow int8", None, None)
    assert result.choice.runner_up
    assert result.choice.runner_up.label == "slow fp32"


def test_nothing_is_chosen_if_nothing_is_within_the_budget(memo: Memo) -> None:
    world = World(float_ms=[1.0], int8_ms=[0.5], drift=[9.0], memo=memo, precisions=(Precision.INT8,))
    entrants = [Search(trials=cast("Trials", world), budget=Budget(), seconds=0).uniform([Precision.INT8])[0]]
    assert choose(judged(entrants, [np.full(9, 2.0), np.full(9, 1.0)], Budget())) is None
