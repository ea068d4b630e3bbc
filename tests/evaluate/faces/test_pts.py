"""Reading and writing one `.pts` file; `datasets/test_ibug300w.py` tests folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmconv.errors import InputError
from lmconv.faces.pts import read_pts, text_of

POINTS = np.arange(136, dtype=np.float64).reshape(68, 2) + 0.25
BARE = "".join(f"{x} {y}\n" for x, y in POINTS)
FRAMED = f"version: 1\nn_points:  68\n{{\n{BARE}}}"


@pytest.mark.parametrize(
    "text",
    [FRAMED, BARE, FRAMED + "\n\n", FRAMED.replace("\n", "\r\n"), "\ufeff" + FRAMED],
    ids=["framed", "bare", "blank lines at the end", "Windows line ends", "byte order mark"],
)
def test_reads_points_as_stored_with_and_without_the_frame(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.pts"
    path.write_bytes(text.encode())
    points = read_pts(path, 68)
    assert points.dtype == np.float64
    np.testing.assert_array_equal(points, POINTS)


def lines(*changes: tuple[int, str], of: str = FRAMED) -> str:
    """The text `of` a file with some lines, counted from 1, replaced."""
    result = of.splitlines()
    for number, line in changes:
        result[number - 1] = line
    return "\n".join(result)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "0 points, expected 68"),
        ("hello\n", 1, "'hello' is not a point"),
        (lines((5, "nan 3.0")), 5, "'nan 3.0' is not finite"),
        (lines((6, "1.0 -inf")), 6, "'1.0 -inf' is not finite"),
        (lines((7, "1.0 2.0 3.0")), 7, "is not a point, two numbers"),
        (lines((8, "1.0")), 8, "is not a point, two numbers"),
        (lines((9, "1,0 2,0")), 9, "is not a point, two numbers"),
        ("".join(BARE.splitlines(keepends=True)[:67]), 67, "67 points, expected 68"),
        (BARE + "1 2\n", 69, "69 points, expected 68"),
        (lines((4, "")), 72, "67 points, expected 68"),
        (lines((2, "n_points: 67")), 2, "announces '67' points"),
        (lines((1, "P6 640")), 1, "before the opening brace"),
        (FRAMED[:-1], 71, "without the closing brace"),
        (FRAMED + "\n1 2", 73, "without the closing brace"),
    ],
)
def test_refuses_a_broken_file_and_names_the_line(tmp_path: Path, text: str, line: int, what: str) -> None:
    path = tmp_path / "broken.pts"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_pts(path, 68)
    assert error.value.message.startswith(f"{path}:{line}: ")
    assert what in error.value.message
    assert error.value.hint


def test_refuses_a_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.pts"
    path.write_bytes(bytes(range(128, 256)))
    with pytest.raises(InputError, match=r"broken\.pts:1: .*is not a point"):
        read_pts(path, 68)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.pts: No such file"):
        read_pts(tmp_path / "gone.pts", 68)


@pytest.mark.parametrize("text", [FRAMED, BARE], ids=["framed", "bare"])
def test_without_an_expected_number_every_number_of_points_is_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.pts"
    path.write_text(text, encoding="utf-8")
    np.testing.assert_array_equal(read_pts(path), POINTS)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "0 points"),
        (lines((2, "n_points: many")), 2, "announces 'many' points"),
        (lines((2, "n_points: 98")), 72, "68 points, expected 98"),
        ("n_points: 0\n{\n}", 3, "0 points"),
    ],
)
def test_the_number_of_points_must_agree_with_the_header(tmp_path: Path, text: str, line: int, what: str) -> None:
    path = tmp_path / "broken.pts"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_pts(path)
    assert error.value.message.startswith(f"{path}:{line}: ")
    assert what in error.value.message


@pytest.mark.parametrize("landmarks", [68, 98])
def test_written_points_are_read_to_a_thousandth_of_a_pixel(tmp_path: Path, landmarks: int) -> None:
    points = 256 * np.random.default_rng(0).random((landmarks, 2)) - 20
    (tmp_path / "a.pts").write_text(text_of(points), encoding="utf-8")
    np.testing.assert_allclose(read_pts(tmp_path / "a.pts", landmarks), points, rtol=0, atol=0.00051)
