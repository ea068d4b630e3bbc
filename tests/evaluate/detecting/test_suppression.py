"""Non-maximum suppression, as a specification."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluate.detecting.boxes import OVERS, box, drawn

from lmconv.detecting.overlap import Over, overlap
from lmconv.detecting.suppression import suppress


def test_of_overlapping_boxes_the_box_with_the_highest_score_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]], np.float32)
    assert suppress(boxes, np.array([0.7, 0.9, 0.8]), 0.3).tolist() == [1, 2]


def test_a_box_that_overlaps_only_with_a_removed_box_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [6, 0, 16, 10], [12, 0, 22, 10]], np.float32)
    assert suppress(boxes, np.array([0.9, 0.8, 0.7]), 0.2).tolist() == [0, 2]


def test_an_overlap_equal_to_the_threshold_is_allowed() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float64)
    scores = np.array([0.9, 0.8])
    assert suppress(boxes, scores, 0.5).tolist() == [0, 1]
    assert suppress(boxes, scores, 0.499).tolist() == [0]


def test_of_boxes_with_equal_scores_the_last_stays() -> None:
    assert suppress(np.zeros((3, 4)) + box(0, 0, 9, 9), np.ones(3), 0.3).tolist() == [2]


def test_only_the_boxes_with_the_highest_scores_are_candidates() -> None:
    boxes = np.arange(5)[:, None] * 100.0 + box(0, 0, 9, 9)
    assert suppress(boxes, np.array([0.1, 0.5, 0.3, 0.4, 0.2]), 0.3, max_candidates=2).tolist() == [1, 3]


def test_no_boxes_give_no_boxes() -> None:
    assert suppress(np.empty((0, 4)), np.empty(0), 0.3).shape == (0,)


@given(st.integers(0, 10**6), st.floats(0, 1), st.sampled_from(OVERS), st.sampled_from([0, 1]))
@settings(max_examples=100, deadline=None)
def test_random_boxes_have_the_properties_of_suppression(seed: int, threshold: float, over: Over, pixel: int) -> None:
    boxes, scores = drawn(seed)
    kept = suppress(boxes, scores, threshold, over=over, pixel=pixel)
    assert len(set(kept)) == len(kept) > 0, "at least one box stays, and no box stays twice"
    assert (np.diff(scores[kept]) < 0).all(), "highest score first"
    shares = overlap(boxes[:, None], boxes, over=over, pixel=pixel)
    overlaps = shares[np.ix_(kept, kept)][~np.eye(len(kept), dtype=bool)]
    assert (overlaps <= threshold).all(), "no two boxes that stay overlap by more than the threshold"
    for gone in set(range(len(boxes))) - set(kept):
        surer = kept[scores[kept] > scores[gone]]
        assert (shares[gone, surer] > threshold).any(), "a removed box overlaps with a box of a higher score that stays"
    order = np.random.default_rng(seed).permutation(len(boxes))
    again = suppress(boxes[order], scores[order], threshold, over=over, pixel=pixel)
    np.testing.assert_array_equal(order[again], kept, "the order of the input does not matter")
