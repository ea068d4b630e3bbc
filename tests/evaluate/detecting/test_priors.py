"""Priors and decoding, as a specification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmconv.detecting.priors import Level, decode_boxes, decode_points, prior_boxes
from lmconv.detectors import faceboxes, retinaface
from lmconv.types import Float32


def test_offsets_of_zero_give_the_box_of_the_prior() -> None:
    prior = np.array([[0.5, 0.5, 0.2, 0.4]], np.float32)
    np.testing.assert_allclose(decode_boxes(np.zeros((1, 4), np.float32), prior), [[0.4, 0.3, 0.6, 0.7]], atol=1e-7)
    np.testing.assert_allclose(decode_points(np.zeros((1, 4), np.float32), prior), [[[0.5, 0.5], [0.5, 0.5]]])


def test_offsets_have_the_variances_0_1_and_0_2() -> None:
    prior = np.array([[0.5, 0.5, 0.2, 0.4]], np.float32)
    moved = decode_boxes(np.array([[1, -1, 5 * np.log(2), 0]], np.float32), prior)
    np.testing.assert_allclose(moved, [[0.32, 0.26, 0.72, 0.66]], atol=1e-6)


def test_priors_are_at_cell_centres_row_by_row_and_map_sizes_are_rounded_up() -> None:
    boxes = prior_boxes((Level(stride=8, sizes=(16,), per_side=(1,)),), 9, 16)
    expected = [[4, 4, 16, 16], [12, 4, 16, 16], [4, 12, 16, 16], [12, 12, 16, 16]]
    np.testing.assert_allclose(boxes * [16, 9, 16, 9], expected, rtol=1e-6)


def test_dense_priors_start_at_the_corner_of_the_cell() -> None:
    boxes = prior_boxes((Level(stride=32, sizes=(64,), per_side=(2,)),), 32, 32)
    np.testing.assert_allclose(boxes[:, :2] * 32, [[0, 0], [16, 0], [0, 16], [16, 16]])


@pytest.mark.realdata
@pytest.mark.parametrize("shape", ["even", "odd"])
@pytest.mark.parametrize(("name", "levels"), [("retinaface", retinaface.LEVELS), ("faceboxes", faceboxes.LEVELS)])
def test_priors_agree_with_the_published_detectors(
    shared: Path, name: str, levels: tuple[Level, ...], shape: str
) -> None:
    golden = np.load(shared / "golden" / "detectors_raw_seed0.npz")
    expected: Float32 = golden[f"{name}_{shape}_priors"]
    boxes = prior_boxes(levels, *golden[f"{name}_{shape}_x"].shape[2:])
    np.testing.assert_allclose(boxes, expected, rtol=0, atol=1e-7)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["rfb320", "slim320"])
def test_decoding_agrees_with_the_published_graphs(shared: Path, name: str) -> None:
    golden = np.load(shared / "golden" / "detectors_raw_seed0.npz")
    cells = [(8, (10, 16, 24)), (16, (32, 48)), (32, (64, 96)), (64, (128, 192, 256))]
    grids = []
    for stride, sizes in cells:  # the grids divide the input evenly, although the stride does not
        rows, columns = -(-240 // stride), 320 // stride
        y, x, side = np.meshgrid(
            (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, sizes, indexing="ij"
        )
        grids.append(np.stack([x, y, side / 320, side / 240], -1).reshape(-1, 4))
    boxes = decode_boxes(golden[f"{name}_nopost_boxes"][0], np.concatenate(grids).clip(0, 1).astype(np.float32))
    np.testing.assert_allclose(boxes, golden[f"{name}_boxes"][0], rtol=0, atol=1e-6)
