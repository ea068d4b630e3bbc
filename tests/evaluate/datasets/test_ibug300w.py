from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmconv.data import Listing
from lmconv.datasets.ibug300w import plugin
from lmconv.errors import InputError, UsageError
from lmconv.types import Float64

POINTS = np.arange(136, dtype=np.float64).reshape(68, 2) + 0.25
BARE = "".join(f"{x} {y}\n" for x, y in POINTS)
FRAMED = f"version: 1\nn_points:  68\n{{\n{BARE}}}"


def add(folder: Path, *stems: str, picture: str = ".jpg", annotation: str = ".pts", text: str = FRAMED) -> Path:
    """Writes faces with empty pictures, because these tests do not decode pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem in stems:
        if picture:
            (folder / f"{stem}{picture}").touch()
        if annotation:
            (folder / f"{stem}{annotation}").write_text(text, encoding="utf-8")
    return folder


def names(listing: Listing) -> list[str]:
    return [face.name for face in listing.faces]


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """All six parts with one face each."""
    for part in ("afw", "helen/testset", "helen/trainset", "ibug", "lfpw/testset", "lfpw/trainset"):
        add(tmp_path / "300w" / part, "face_1")
    return tmp_path / "300w"


# A folder


def test_a_face_has_its_files_its_points_and_its_subsets(layout: Path) -> None:
    faces = plugin.faces(layout, "test").faces
    assert [face.subsets for face in faces] == [
        ("common", "helen/testset"),
        ("challenge", "ibug"),
        ("common", "lfpw/testset"),
    ]
    assert faces[0].image == layout / "helen" / "testset" / "face_1.jpg"
    assert faces[0].annotation == layout / "helen" / "testset" / "face_1.pts"
    assert faces[0].name == "helen/testset/face_1.jpg"
    np.testing.assert_array_equal(faces[0].points, POINTS)


@pytest.mark.parametrize(
    ("split", "parts"),
    [
        ("test", ["helen/testset", "ibug", "lfpw/testset"]),
        ("train", ["afw", "helen/trainset", "lfpw/trainset"]),
        ("all", ["afw", "helen/testset", "helen/trainset", "ibug", "lfpw/testset", "lfpw/trainset"]),
    ],
)
def test_a_split_has_only_its_parts(layout: Path, split: str, parts: list[str]) -> None:
    assert names(plugin.faces(layout, split)) == [f"{part}/face_1.jpg" for part in parts]


@pytest.mark.parametrize(
    ("place", "parts"),
    [
        ("..", ["helen/testset", "ibug", "lfpw/testset"]),
        ("helen", ["helen/testset"]),
        ("lfpw/testset", ["lfpw/testset"]),
        ("ibug", ["ibug"]),
        ("helen/../ibug", ["ibug"]),
    ],
)
def test_the_layout_is_recognised_from_above_and_from_inside(layout: Path, place: str, parts: list[str]) -> None:
    assert plugin.matches(layout / place)
    assert names(plugin.faces(layout / place, "test")) == [f"{part}/face_1.jpg" for part in parts]


def test_the_layout_may_start_up_to_two_levels_below(tmp_path: Path) -> None:
    add(tmp_path / "one" / "two" / "helen" / "testset", "near")
    add(tmp_path / "one" / "two" / "three" / "ibug", "far")
    assert names(plugin.faces(tmp_path, "test")) == ["helen/testset/near.jpg"]


def test_layouts_beside_each_other_are_merged_and_a_face_counts_once(tmp_path: Path) -> None:
    add(tmp_path / "a" / "ibug", "face_1", "face_2")
    add(tmp_path / "b" / "ibug", "face_2", "face_3")
    listing = plugin.faces(tmp_path, "test")
    assert names(listing) == [f"ibug/face_{number}.jpg" for number in (1, 2, 3)]
    assert listing.problems == (
        f"{tmp_path / 'b/ibug/face_2.jpg'}: left out, the same face as {tmp_path / 'a/ibug/face_2.jpg'}",
    )


def test_totals_are_those_of_the_published_set(layout: Path) -> None:
    assert plugin.faces(layout, "test").totals == {
        "common": 554,
        "challenge": 135,
        "full": 689,
        "private": 600,
        "01_Indoor": 300,
        "02_Outdoor": 300,
        "afw": 337,
        "helen/testset": 330,
        "helen/trainset": 2000,
        "ibug": 135,
        "lfpw/testset": 224,
        "lfpw/trainset": 811,
    }


@pytest.mark.parametrize("split", ["test", "train", "all"])
def test_a_folder_without_the_layout_is_one_part_in_every_split(tmp_path: Path, split: str) -> None:
    folder = add(tmp_path / "common", "b", "a")
    assert not plugin.matches(folder)
    assert plugin.matches_bare(folder)
    listing = plugin.faces(folder, split)
    assert names(listing) == ["common/a.jpg", "common/b.jpg"]
    assert listing.totals == {}, "the name of a folder does not make a published subset"


@pytest.mark.parametrize(("picture", "annotation"), [(".JPG", ".PTS"), (".jpeg", ".pts"), (".Png", ".Pts")])
def test_file_name_endings_may_be_in_upper_or_lower_case(tmp_path: Path, picture: str, annotation: str) -> None:
    add(tmp_path / "ibug", "a", picture=picture, annotation=annotation)
    assert names(plugin.faces(tmp_path, "test")) == [f"ibug/a{picture}"]


def test_faces_without_a_partner_are_left_out_and_reported(tmp_path: Path) -> None:
    folder = add(tmp_path / "ibug", "whole")
    add(folder, "picture", annotation="")
    add(folder, "points", picture="")
    add(folder, "twice")
    add(folder, "twice", picture=".png")
    add(folder, "._whole", text="what macOS leaves in archives")
    listing = plugin.faces(tmp_path, "test")
    assert names(listing) == ["ibug/whole.jpg"]
    assert listing.problems == (
        f"{folder / 'picture.jpg'}: no .pts file beside it",
        f"{folder / 'points.pts'}: no picture beside it",
        f"{folder / 'twice.pts'}: left out, 2 pictures and 1 .pts files of this name",
    )


def test_a_broken_annotation_is_refused(layout: Path) -> None:
    add(layout / "ibug", "face_2", text="not points")
    with pytest.raises(InputError, match=r"face_2\.pts:1: "):
        plugin.faces(layout, "test")


@pytest.mark.parametrize(
    ("part", "split", "message"),
    [("ibug", "train", "no train faces of 300-W, only ibug"), ("afw", "test", "no test faces of 300-W, only afw")],
)
def test_an_empty_split_is_refused_with_the_available_parts(
    tmp_path: Path, part: str, split: str, message: str
) -> None:
    add(tmp_path / part, "a")
    with pytest.raises(InputError, match=message):
        plugin.faces(tmp_path, split)


def test_refuses_an_unknown_split(layout: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown split 'tset'.*did you mean test"):
        plugin.faces(layout, "tset")


def test_refuses_a_folder_without_faces(tmp_path: Path) -> None:
    assert not plugin.matches(tmp_path)
    with pytest.raises(InputError, match="has no faces"):
        plugin.faces(tmp_path, "test")


def test_refuses_pictures_without_any_annotation(tmp_path: Path) -> None:
    add(tmp_path / "ibug", "a", annotation="")
    with pytest.raises(InputError, match=r"has no faces .*a\.jpg: no \.pts file beside it"):
        plugin.faces(tmp_path, "test")


def test_refuses_a_missing_folder_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert not plugin.matches(tmp_path / "gone")
    assert not plugin.matches(file)
    with pytest.raises(InputError, match="gone does not exist"):
        plugin.faces(tmp_path / "gone", "test")
    with pytest.raises(InputError, match="file is not a folder"):
        plugin.faces(file, "test")


# The real set


@pytest.mark.realdata
def test_reads_real_faces_exactly(shared: Path) -> None:
    golden = np.load(shared / "golden" / "300w_common.npz")
    listing = plugin.faces(shared / "faces" / "300w_common", "test")
    assert listing.problems == ()
    assert sorted(names(listing)) == sorted(golden["name"])
    truth: dict[str, Float64] = dict(zip(golden["name"], golden["gt"], strict=True))
    for face in listing.faces:
        np.testing.assert_array_equal(face.points, truth[face.name])


@pytest.mark.realdata
def test_real_training_and_test_faces_beside_each_other_are_separated(shared: Path) -> None:
    train = plugin.faces(shared / "faces", "train")
    assert {face.subsets for face in train.faces} == {("afw",), ("helen/trainset",), ("lfpw/trainset",)}
    assert len(train.faces) == 102
    assert len(plugin.faces(shared / "faces", "test").faces) == 73
