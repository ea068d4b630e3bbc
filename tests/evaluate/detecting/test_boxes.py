"""Boxes: priors, decoding, overlap and suppression, as a specification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmconv.detecting.boxes import Level, Over, decoded, decoded_points, overlap, priors, suppress
from lmconv.detectors import faceboxes, retinaface
from lmconv.types import Float32, Float64

OVERS: list[Over] = ["union", "smaller"]


def box(*sides: float) -> Float64:
    return np.array(sides, np.float64)


def drawn(seed: int, count: int = 12) -> tuple[Float64, Float64]:
    """Boxes that overlap now and then, and scores no two of which are equal."""
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 60, (count, 2))
    return np.concatenate([corner, corner + random.uniform(1, 40, (count, 2))], 1), random.permutation(count) / count


# Overlap


def test_a_box_overlaps_with_itself_wholly_and_with_one_beside_it_not_at_all() -> None:
    one = box(10, 10, 30, 20)
    np.testing.assert_array_equal(overlap(one, np.array([one, one + 100])), [1, 0])


def test_overlap_is_the_intersection_over_the_union() -> None:
    assert overlap(box(0, 0, 10, 10), box(5, 0, 15, 10)[None]) == pytest.approx(50 / 150)


def test_over_the_smaller_a_box_within_another_overlaps_wholly() -> None:
    assert overlap(box(0, 0, 100, 100), box(10, 10, 20, 20)[None], over="smaller") == 1
    assert overlap(box(0, 0, 100, 100), box(10, 10, 20, 20)[None]) == pytest.approx(0.01)


def test_where_corners_are_pixels_boxes_are_one_wider() -> None:
    assert overlap(box(0, 0, 9, 9), box(5, 0, 14, 9)[None], pixel=1) == pytest.approx(50 / 150)


@pytest.mark.parametrize("over", OVERS)
def test_what_has_no_area_overlaps_with_nothing(over: Over) -> None:
    turned, point = box(20, 20, 0, 0), box(5, 5, 5, 5)
    np.testing.assert_array_equal(overlap(point, np.array([point, turned, box(0, 0, 10, 10)]), over=over), 0)


@given(st.integers(0, 10**6), st.sampled_from(OVERS), st.sampled_from([0, 1]))
@settings(max_examples=50, deadline=None)
def test_overlap_is_symmetric_and_a_share(seed: int, over: Over, pixel: int) -> None:
    boxes, _ = drawn(seed)
    shares = overlap(boxes[:, None], boxes, over=over, pixel=pixel)
    np.testing.assert_allclose(shares, shares.T)
    assert (shares >= 0).all()
    assert (shares <= 1 + 1e-12).all()
    np.testing.assert_allclose(np.diag(shares), 1)


# Suppression


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
    assert suppress(boxes, np.array([0.1, 0.5, 0.3, 0.4, 0.2]), 0.3, most=2).tolist() == [1, 3]


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


# Priors and decoding


def test_a_prior_without_offsets_is_its_box() -> None:
    prior = np.array([[0.5, 0.5, 0.2, 0.4]], np.float32)
    np.testing.assert_allclose(decoded(np.zeros((1, 4), np.float32), prior), [[0.4, 0.3, 0.6, 0.7]], atol=1e-7)
    np.testing.assert_allclose(decoded_points(np.zeros((1, 4), np.float32), prior), [[[0.5, 0.5], [0.5, 0.5]]])


def test_offsets_move_by_a_tenth_of_the_prior_and_grow_by_a_fifth_of_a_logarithm() -> None:
    prior = np.array([[0.5, 0.5, 0.2, 0.4]], np.float32)
    moved = decoded(np.array([[1, -1, 5 * np.log(2), 0]], np.float32), prior)
    np.testing.assert_allclose(moved, [[0.32, 0.26, 0.72, 0.66]], atol=1e-6)


def test_priors_stand_in_the_middle_of_their_cells_row_by_row_and_maps_are_rounded_up() -> None:
    found = priors((Level(stride=8, sizes=(16,), per_side=(1,)),), 9, 16)
    expected = [[4, 4, 16, 16], [12, 4, 16, 16], [4, 12, 16, 16], [12, 12, 16, 16]]
    np.testing.assert_allclose(found * [16, 9, 16, 9], expected, rtol=1e-6)


def test_dense_priors_begin_at_the_corner_of_their_cell() -> None:
    found = priors((Level(stride=32, sizes=(64,), per_side=(2,)),), 32, 32)
    np.testing.assert_allclose(found[:, :2] * 32, [[0, 0], [16, 0], [0, 16], [16, 16]])


@pytest.mark.realdata
@pytest.mark.parametrize("shape", ["even", "odd"])
@pytest.mark.parametrize(("name", "levels"), [("retinaface", retinaface.LEVELS), ("faceboxes", faceboxes.LEVELS)])
def test_priors_are_those_of_the_published_detectors(
    shared: Path, name: str, levels: tuple[Level, ...], shape: str
) -> None:
    golden = np.load(shared / "golden" / "detectors_raw_seed0.npz")
    expected: Float32 = golden[f"{name}_{shape}_priors"]
    found = priors(levels, *golden[f"{name}_{shape}_x"].shape[2:])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["rfb320", "slim320"])
def test_decoding_is_that_of_the_published_graphs(shared: Path, name: str) -> None:
    golden = np.load(shared / "golden" / "detectors_raw_seed0.npz")
    cells = [(8, (10, 16, 24)), (16, (32, 48)), (32, (64, 96)), (64, (128, 192, 256))]
    grids = []
    for stride, sizes in cells:  # their grids divide the input evenly, unlike its stride
        rows, columns = -(-240 // stride), 320 // stride
        y, x, side = np.meshgrid(
            (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, sizes, indexing="ij"
        )
        grids.append(np.stack([x, y, side / 320, side / 240], -1).reshape(-1, 4))
    found = decoded(golden[f"{name}_nopost_boxes"][0], np.concatenate(grids).clip(0, 1).astype(np.float32))
    np.testing.assert_allclose(found, golden[f"{name}_boxes"][0], rtol=0, atol=1e-6)
