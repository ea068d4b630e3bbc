"""Overlap of boxes, as a specification."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluate.detecting.boxes import OVERS, box, drawn

from lmconv.detecting.overlap import Over, overlap


def test_the_overlap_is_1_with_itself_and_0_with_a_distant_box() -> None:
    one = box(10, 10, 30, 20)
    np.testing.assert_array_equal(overlap(one, np.array([one, one + 100])), [1, 0])


def test_overlap_is_the_intersection_over_the_union() -> None:
    assert overlap(box(0, 0, 10, 10), box(5, 0, 15, 10)[None]) == pytest.approx(50 / 150)


def test_over_the_smaller_box_the_overlap_of_an_inner_box_is_1() -> None:
    assert overlap(box(0, 0, 100, 100), box(10, 10, 20, 20)[None], over="smaller") == 1
    assert overlap(box(0, 0, 100, 100), box(10, 10, 20, 20)[None]) == pytest.approx(0.01)


def test_with_pixel_1_boxes_include_their_last_pixel() -> None:
    assert overlap(box(0, 0, 9, 9), box(5, 0, 14, 9)[None], pixel=1) == pytest.approx(50 / 150)


@pytest.mark.parametrize("over", OVERS)
def test_a_box_without_area_overlaps_with_no_box(over: Over) -> None:
    turned, point = box(20, 20, 0, 0), box(5, 5, 5, 5)
    np.testing.assert_array_equal(overlap(point, np.array([point, turned, box(0, 0, 10, 10)]), over=over), 0)


@given(st.integers(0, 10**6), st.sampled_from(OVERS), st.sampled_from([0, 1]))
@settings(max_examples=50, deadline=None)
def test_overlap_is_symmetric_and_between_0_and_1(seed: int, over: Over, pixel: int) -> None:
    boxes, _ = drawn(seed)
    shares = overlap(boxes[:, None], boxes, over=over, pixel=pixel)
    np.testing.assert_allclose(shares, shares.T)
    assert (shares >= 0).all()
    assert (shares <= 1 + 1e-12).all()
    np.testing.assert_allclose(np.diag(shares), 1)
