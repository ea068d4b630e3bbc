"""Non-maximum suppression, as a specification."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluate.detecting.boxes import OVERS, box, drawn

from lmconv.detecting.overlap import Over, overlap
from lmconv.detecting.suppression import suppress


def test_the_surest_of_those_that_overlap_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]], np.float32)
    assert suppress(boxes, np.array([0.7, 0.9, 0.8]), 0.3).tolist() == [1, 2]


def test_one_that_overlaps_only_with_what_went_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [6, 0, 16, 10], [12, 0, 22, 10]], np.float32)
    assert suppress(boxes, np.array([0.9, 0.8, 0.7]), 0.2).tolist() == [0, 2]


def test_exactly_the_threshold_is_not_too_far() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float64)
    scores = np.array([0.9, 0.8])
    assert suppress(boxes, scores, 0.5).tolist() == [0, 1]
    assert suppress(boxes, scores, 0.499).tolist() == [0]


def test_of_equally_sure_ones_the_last_stays() -> None:
    assert suppress(np.zeros((3, 4)) + box(0, 0, 9, 9), np.ones(3), 0.3).tolist() == [2]


def test_only_the_surest_are_looked_at() -> None:
    boxes = np.arange(5)[:, None] * 100.0 + box(0, 0, 9, 9)
    assert suppress(boxes, np.array([0.1, 0.5, 0.3, 0.4, 0.2]), 0.3, max_candidates=2).tolist() == [1, 3]


def test_of_none_none_stays() -> None:
    assert suppress(np.empty((0, 4)), np.empty(0), 0.3).shape == (0,)


@given(st.integers(0, 10**6), st.floats(0, 1), st.sampled_from(OVERS), st.sampled_from([0, 1]))
@settings(max_examples=100, deadline=None)
def test_what_stays(seed: int, threshold: float, over: Over, pixel: int) -> None:
    boxes, scores = drawn(seed)
    kept = suppress(boxes, scores, threshold, over=over, pixel=pixel)
    assert len(set(kept)) == len(kept) > 0, "each is one of them, and none comes twice"
    assert (np.diff(scores[kept]) < 0).all(), "the surest first"
    shares = overlap(boxes[:, None], boxes, over=over, pixel=pixel)
    apart = shares[np.ix_(kept, kept)][~np.eye(len(kept), dtype=bool)]
    assert (apart <= threshold).all(), "no two of them overlap too far"
    for gone in set(range(len(boxes))) - set(kept):
        surer = kept[scores[kept] > scores[gone]]
        assert (shares[gone, surer] > threshold).any(), "what went overlaps with a surer one that stays"
    order = np.random.default_rng(seed).permutation(len(boxes))
    again = suppress(boxes[order], scores[order], threshold, over=over, pixel=pixel)
    np.testing.assert_array_equal(order[again], kept, "whatever order they come in")
