from __future__ import annotations

from typing import Any

import pytest

from lmconv.visual.tables import interval, ion, markdown, number


def subset(mean: float, n: int = 3) -> dict[str, Any]:
    return {"mean": mean, "low": mean - 0.5, "high": mean + 0.5, "n": n, "of": 9}


def test_a_missing_figure_is_a_dash() -> None:
    assert number(None, ".2f") == ion(None) == interval({}, ".2f") == "-"


@pytest.mark.parametrize(
    ("subsets", "shown"),
    [
        ({"challenge": subset(5.0), "common": subset(3.0), "full": subset(4.0)}, "4.000 [3.500, 4.500] full 3/9"),
        ({"challenge": subset(5.0), "common": subset(3.0)}, "3.000 [2.500, 3.500] common 3/9"),
        ({"menpo": subset(2.0)}, "2.000 [1.500, 2.500] menpo 3/9"),
    ],
)
def test_the_table_shows_the_largest_published_subset(subsets: dict[str, Any], shown: str) -> None:
    assert ion(subsets) == shown


def test_an_infinite_mean_is_a_dash() -> None:
    assert interval({"common": {"mean": None, "low": None, "high": None}}, ".3f") == "- [-, -]"


def test_a_markdown_table_has_a_rule_under_its_header() -> None:
    lines = markdown(["a", "long"], [["1", "2"], ["333", "4"]]).splitlines()
    assert lines == ["| a   | long |", "| --- | ---- |", "| 1   | 2    |", "| 333 | 4    |"]
