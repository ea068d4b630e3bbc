"""The option `--preprocess`: colour order, scale, mean and standard deviation."""

from __future__ import annotations

import pytest

from lmconv.networks.preprocess import parse
from lmconv.types import Preprocess


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BGR", Preprocess()),
        ("RGB", Preprocess(colour="RGB")),
        ("BGR,1/255", Preprocess()),
        ("BGR,1", Preprocess(scale=1.0)),
        ("BGR,1/127,1,1", Preprocess(scale=1 / 127, mean=(1.0, 1.0, 1.0))),
        ("RGB,1/255,0.4", Preprocess(colour="RGB", mean=(0.4, 0.4, 0.4))),
        ("RGB,0.5,1:2:3,4:5:6", Preprocess(colour="RGB", scale=0.5, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))),
    ],
)
def test_parts_that_are_not_given_keep_the_default(text: str, expected: Preprocess) -> None:
    assert parse(text) == expected
