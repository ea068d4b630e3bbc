"""Accuracy by subset: means, bootstrap intervals, failure rates, areas under the curve and paired differences."""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import asdict

import numpy as np
import pytest

from lmconv.judging.accuracy import (
    Interval,
    accuracy,
    bootstrap,
    curve,
    paired,
    to_json,
)

HELEN = ("common", "helen/testset")
LFPW = ("common", "lfpw/testset")
IBUG = ("challenge", "ibug")
TOTALS = {"common": 554, "challenge": 135, "full": 689, "helen/testset": 330, "lfpw/testset": 224, "ibug": 135}


def test_the_mean_of_a_subset_is_over_its_faces() -> None:
    figures = accuracy(np.array([2.0, 4.0, 9.0]), [HELEN, LFPW, LFPW], TOTALS)
    assert {name: figure.mean for name, figure in figures.items()} == {
        "common": pytest.approx(5.0),
        "helen/testset": pytest.approx(2.0),
        "lfpw/testset": pytest.approx(6.5),
    }
    assert {name: (figure.n, figure.of) for name, figure in figures.items()} == {
        "common": (3, 554),
        "helen/testset": (1, 330),
        "lfpw/testset": (2, 224),
    }


def test_full_joins_common_and_challenge_with_equal_weight_per_face() -> None:
    figures = accuracy(np.array([2.0, 4.0, 9.0]), [HELEN, LFPW, IBUG], TOTALS)
    assert list(figures) == ["common", "challenge", "full", "helen/testset", "ibug", "lfpw/testset"]
    assert figures["full"].mean == pytest.approx(5.0)
    assert (figures["full"].n, figures["full"].of) == (3, 689)


@pytest.mark.parametrize("subsets", [[HELEN, LFPW], [IBUG, IBUG], [("afw",), ("afw",)]])
def test_full_needs_both_common_and_challenge(subsets: list[tuple[str, ...]]) -> None:
    assert "full" not in accuracy(np.array([2.0, 4.0]), subsets, TOTALS)


def test_a_user_folder_counts_as_complete() -> None:
    figure = accuracy(np.array([2.0, 4.0]), [("mine",), ("mine",)], {})["mine"]
    assert (figure.n, figure.of) == (2, 2)


def test_failure_rate_and_auc_come_from_the_same_faces() -> None:
    figures = accuracy(np.array([5.0, 11.0, 2.0]), [HELEN, HELEN, LFPW], TOTALS)
    assert figures["helen/testset"].failure_rate == 50.0
    assert figures["helen/testset"].auc == pytest.approx(0.25)
    assert figures["lfpw/testset"].failure_rate == 0.0


def test_the_interval_equals_the_normal_interval_for_a_normal_mean() -> None:
    values = np.random.default_rng(1).normal(3.0, 1.0, 500)
    interval = bootstrap(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_the_coverage_of_the_interval_is_about_95_percent() -> None:
    random = np.random.default_rng(2)
    covered = sum(
        interval.low <= 4.0 <= interval.high
        for interval in (bootstrap(random.gamma(4.0, 1.0, 80), resamples=400) for _ in range(200))
    )
    assert 0.88 <= covered / 200 <= 0.99


def test_the_same_faces_have_the_same_interval() -> None:
    values = np.random.default_rng(3).random(50)
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values) != bootstrap(values, seed=1)


def test_memory_does_not_grow_with_the_number_of_faces() -> None:
    values = np.random.default_rng(4).random(20_000)
    tracemalloc.start()
    bootstrap(values, resamples=200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6, "all resamples at once would take 64 MB"


def test_a_difference_is_paired() -> None:
    random = np.random.default_rng(5)
    hard = random.gamma(4.0, 1.0, 100)
    worse = hard + 0.1 + random.normal(0.0, 0.01, 100)
    delta = paired(worse, hard, [HELEN] * 100)["common"]
    assert delta.low < 0.1 < delta.high
    assert delta.high - delta.low < 0.01, "the spread of the faces themselves must cancel"


def test_a_difference_is_first_minus_second_in_every_subset() -> None:
    deltas = paired(np.array([1.0, 2.0]), np.array([3.0, 2.5]), [HELEN, IBUG])
    assert {name: delta.mean for name, delta in deltas.items()} == {
        "common": pytest.approx(-2.0),
        "challenge": pytest.approx(-0.5),
        "full": pytest.approx(-1.25),
        "helen/testset": pytest.approx(-2.0),
        "ibug": pytest.approx(-0.5),
    }


def test_different_numbers_of_faces_are_not_paired() -> None:
    with pytest.raises(ValueError, match="2 and of 3 faces cannot be paired"):
        paired(np.zeros(2), np.zeros(3), [HELEN] * 2)


def test_a_face_with_an_infinite_error_makes_its_subsets_infinite() -> None:
    bad, good = np.array([1.0, np.inf]), np.array([1.0, 2.0])
    endless = Interval(mean=math.inf, low=math.inf, high=math.inf)
    figures = accuracy(bad, [LFPW, HELEN], TOTALS)
    assert figures["common"].mean == figures["common"].high == math.inf
    assert figures["common"].failure_rate == 50.0
    assert figures["lfpw/testset"].mean == 1.0
    for a, b in [(bad, good), (good, bad), (bad, bad)]:
        assert paired(a, b, [LFPW, HELEN])["common"] == endless


def test_json_has_the_fields_by_name_and_null_for_infinity() -> None:
    subsets = [HELEN, LFPW, IBUG, IBUG]
    errors = np.array([2.0, 4.0, 9.0, np.inf])
    figures = accuracy(errors, subsets, TOTALS)
    deltas = paired(errors, errors[::-1], subsets)
    text = json.dumps({"ion": to_json(figures), "delta_ion": to_json(deltas)}, allow_nan=False)
    document = json.loads(text)
    assert list(document["ion"]["common"]) == [
        "mean",
        "low",
        "high",
        "n",
        "of",
        "failure_rate",
        "auc",
        "failure_rate_8",
        "auc_8",
    ]
    assert document["ion"]["challenge"]["mean"] is None
    assert document["ion"]["common"] == asdict(figures["common"])
    assert document["delta_ion"]["common"] == {"mean": None, "low": None, "high": None}


def test_failure_rate_and_auc_exist_at_8_and_at_10_percent() -> None:
    figure = accuracy(np.array([2.0, 9.0]), [HELEN, HELEN], TOTALS)["common"]
    assert (figure.failure_rate, figure.failure_rate_8) == (0.0, 50.0)
    assert figure.auc == pytest.approx(0.45)
    assert figure.auc_8 == pytest.approx(0.375)


def test_the_cumulative_curve_has_a_step_per_error_and_the_auc_as_area() -> None:
    at, share = curve(np.array([4.0, 1.0, 4.0, np.inf]))
    assert at.tolist() == [1.0, 4.0]
    assert share.tolist() == [0.25, 0.75]
    errors = np.random.default_rng(0).gamma(4.0, 1.0, 200)
    at, share = curve(errors)
    below = at < 10
    area = np.sum(np.diff([*at[below], 10.0]) * share[below]) / 10
    assert accuracy(errors, [HELEN] * 200, TOTALS)["common"].auc == pytest.approx(area)
