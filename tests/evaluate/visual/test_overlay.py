from __future__ import annotations

import numpy as np
import pytest

from lmconv.scheme import Group
from lmconv.types import Float64, Uint8
from lmconv.visual import overlay


def black(height: int = 60, width: int = 80) -> Uint8:
    return np.zeros((height, width, 3), np.uint8)


def test_a_point_is_a_disc_of_the_colour_at_its_position() -> None:
    picture = black()
    overlay.draw_landmarks(picture, np.array([[30.0, 20.0]]), colour=(10, 200, 30))
    assert picture[20, 30].tolist() == [10, 200, 30]
    painted = np.argwhere(picture.any(axis=-1))
    np.testing.assert_allclose(painted.mean(axis=0), (20, 30), atol=0.6)
    assert np.abs(painted - (20, 30)).max() <= 3


def test_points_of_a_group_are_joined() -> None:
    picture = black()
    corners = np.array([[10.0, 10.0], [60.0, 10.0], [60.0, 50.0]])
    overlay.draw_landmarks(picture, corners, groups=[Group(points=(0, 1, 2))])
    assert picture[10, 35].any()
    assert picture[30, 60].any()
    assert not picture[30, 35].any(), "an open line does not return to its first point"
    overlay.draw_landmarks(picture, corners, groups=[Group(points=(0, 1, 2), closed=True)])
    assert picture[30, 35].any()


def test_marks_grow_with_the_face_and_never_vanish() -> None:
    small, large = np.array([[0.0, 0.0], [12.0, 12.0]]), np.array([[0.0, 0.0], [800.0, 600.0]])
    assert overlay.mark_size(small) == 1.0
    assert overlay.mark_size(large) == 4.0
    assert overlay.mark_size(np.full((3, 2), np.nan)) == 1.0


@pytest.mark.parametrize("wild", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_points_that_are_not_finite_or_far_away_are_ignored(wild: float) -> None:
    points: Float64 = np.array([[20.0, 20.0], [wild, 5.0]])
    picture = black()
    overlay.draw_landmarks(picture, points, groups=[Group(points=(0, 1))], size=1)
    overlay.draw_lines(picture, points, points[::-1], size=1)
    overlay.draw_box(picture, points.ravel(), size=1)
    assert picture[20, 20].any()


def test_a_line_joins_each_point_with_its_counterpart() -> None:
    picture = black()
    overlay.draw_lines(picture, np.array([[10.0, 10.0], [10.0, 40.0]]), np.array([[50.0, 10.0], [50.0, 40.0]]))
    assert picture[10, 30].any()
    assert picture[40, 30].any()
    assert not picture[25, 30].any()


def test_the_label_of_a_box_is_inside_the_picture() -> None:
    picture = black()
    overlay.draw_box(picture, np.array([-5.0, -5.0, 70.0, 50.0]), label="0.97")
    assert picture[:15, :40].any()
    assert picture[50, 30].any()
    overlay.draw_text(picture, "Größe", (500, 500))
    assert picture[-10:].any()
    white = np.full((60, 80, 3), 255, np.uint8)
    overlay.draw_text(white, "white", (5, 30))
    assert (white < 128).any(), "white text has a dark outline"
