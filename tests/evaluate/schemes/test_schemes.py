"""The landmark schemes of this repository, and the lookup of a scheme."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.helpers import other_package, python

from lmconv.errors import InputError, UsageError
from lmconv.judging.nme import nme
from lmconv.scheme import SCHEMES, Scheme, scheme
from lmconv.types import Float64

SHIFT = np.array([3.0, 4.0])
"""A shift of five pixels."""


def scheme_of(landmarks: int) -> Scheme:
    result = scheme(landmarks)
    assert result is not None
    return result


def face(landmarks: int, **places: tuple[float, float]) -> Float64:
    """(1, L, 2) float64: all points at (100, 100) except named points, for example `p36=(90, 100)`."""
    points = np.full((1, landmarks, 2), 100.0)
    for name, place in places.items():
        points[0, int(name[1:])] = place
    return points


# The lookup


def test_a_number_of_points_without_a_scheme_gives_none() -> None:
    assert scheme(7) is None


def test_the_lookup_finds_the_built_in_schemes() -> None:
    assert {scheme_of(landmarks).name for landmarks in (39, 68, 98, 106)} == set(SCHEMES.names())


FIVE = """
from lmconv.scheme import Group, Normaliser, Scheme
plugin = Scheme(
    name="five", summary="corners", landmarks={landmarks}, mirror=(1, 0, 2, 4, 3),
    normalisers={{"eyes": Normaliser(rule=(0, 1), measure="distance of the eyes")}},
    groups={{"all": Group(points=(0, 1, 2, 3, 4))}}, source="https://example.org",
)
"""
ENTRY = "[lmconv.schemes]\nfive = lmconv_other:plugin\n"


def test_another_package_can_add_a_scheme_by_entry_point(tmp_path: Path) -> None:
    env = other_package(tmp_path, ENTRY, FIVE.format(landmarks=5))
    code = """
import numpy as np
from lmconv.judging.nme import nme
points = np.array([[[0, 0], [50, 0], [25, 30], [10, 50], [40, 50]]], float)
print(nme(points + [3, 4], points)[0])
"""
    assert float(python(code, env=env).out) == pytest.approx(10.0)


def test_two_schemes_with_one_number_of_points_are_refused(tmp_path: Path) -> None:
    env = other_package(tmp_path, ENTRY, FIVE.format(landmarks=68))
    code = """
from lmconv.errors import UsageError
from lmconv.scheme import scheme
try:
    scheme(68)
except UsageError as error:
    print(error)
"""
    assert "68 points are claimed by the schemes five and ibug68 (uninstall " in python(code, env=env).out


# Normalisers


@pytest.mark.parametrize(("landmarks", "corners"), [(68, (36, 45)), (98, (60, 72))])
def test_frontal_faces_are_normalised_by_the_outer_eye_corners(landmarks: int, corners: tuple[int, int]) -> None:
    truth = face(landmarks, **{f"p{corners[0]}": (70.0, 100.0), f"p{corners[1]}": (100.0, 140.0)})
    assert nme(truth + SHIFT, truth) == pytest.approx([100 * 5 / 50])


def test_profiles_are_normalised_by_the_diagonal_of_their_box() -> None:
    truth = face(39, p0=(70.0, 100.0), p9=(100.0, 140.0))
    assert nme(truth + SHIFT, truth) == pytest.approx([100 * 5 / 50])


def test_jd_landmark_is_normalised_by_the_square_root_of_the_area_of_the_box() -> None:
    truth = face(106, p0=(80.0, 100.0), p16=(100.0, 145.0))
    assert nme(truth + SHIFT, truth) == pytest.approx([100 * 5 / 30])


def test_another_normaliser_is_chosen_by_name() -> None:
    eyes = {f"p{index}": (70.0, 100.0) for index in range(36, 42)} | {
        f"p{index}": (100.0, 140.0) for index in range(42, 48)
    }
    truth = face(68, **eyes)
    assert nme(truth + SHIFT, truth, "inter-pupil") == pytest.approx([100 * 5 / 50])
    assert nme(truth + SHIFT, truth, "box-side") == pytest.approx([100 * 5 / (30 * 40) ** 0.5])
    with pytest.raises(
        UsageError, match=r"ibug68 has no normaliser 'ipd' .known: inter-ocular, inter-pupil, box-diagonal"
    ):
        nme(truth, truth, "ipd")
    with pytest.raises(UsageError, match=r"menpo39 has no normaliser 'inter-ocular' .known: box-diagonal, box-side"):
        scheme_of(39).normaliser("inter-ocular")


def test_a_face_without_a_size_is_refused_with_the_normaliser_in_words() -> None:
    flat = face(106, p0=(80.0, 100.0))
    with pytest.raises(InputError, match=r"face 0 .* square root of the area of the box .* is 0"):
        nme(flat, flat)


# Numbering of points


def test_the_mirror_of_a_profile_keeps_every_number() -> None:
    assert scheme_of(39).mirror == tuple(range(39))


@pytest.mark.parametrize("landmarks", [98, 106])
def test_the_two_dense_schemes_agree_on_jaw_brows_and_bridge(landmarks: int) -> None:
    assert scheme_of(landmarks).mirror[:55] == scheme_of(98).mirror[:55]


@pytest.mark.realdata
def test_the_mirror_of_68_points_is_as_published(shared: Path) -> None:
    published = (shared / "faces" / "300w_test_annotations" / "Mirror68.txt").read_text(encoding="utf-8")
    assert scheme_of(68).mirror == tuple(int(number) for number in published.split(","))


@pytest.mark.realdata
def test_real_faces_agree_with_the_mirror_of_68_points_better_than_with_any_swap(shared: Path) -> None:
    files = sorted((shared / "faces" / "300w_common").rglob("*.pts"))
    # Some files have a header, others have none: the points are the last numbers of both.
    numbers = [path.read_text(encoding="utf-8").replace("}", "").split()[-2 * 68 :] for path in files]
    points = np.array(numbers, np.float64).reshape(-1, 68, 2)
    low, high = points.min(axis=1, keepdims=True), points.max(axis=1, keepdims=True)
    upright = (points - (low + high) / 2) / (high - low).max(axis=-1, keepdims=True)
    mirrored = (upright * [-1, 1])[:, list(scheme_of(68).mirror)]
    # (68, 68): mean squared distance between mirrored point i and point j of the mean face.
    distance = np.square(mirrored[:, :, None] - upright.mean(axis=0)).sum(axis=-1).mean(axis=0)
    direct = np.diag(distance)[:, None] + np.diag(distance)
    swapped = distance + distance.T
    assert len(files) == 73
    assert (direct < swapped)[~np.eye(68, dtype=bool)].all()
