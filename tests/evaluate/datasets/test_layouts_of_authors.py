"""Readers of the layouts of the authors, and errors for mistakes in the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.evaluate.datasets import builders

from lmconv.data import DATASETS, Listing
from lmconv.errors import InputError, OtherPoints
from lmconv.faces.calibration import calibration_inputs
from lmconv.faces.crops import load_face_crops
from lmconv.faces.lookup import find_dataset
from lmconv.types import landmark_spec


def read(name: str, place: Path, split: str = "test") -> Listing:
    dataset = DATASETS.load(name)
    return dataset.faces(place, split)


def names(listing: Listing) -> list[str]:
    return [face.name for face in listing.faces]


# Each layout


def test_the_private_test_of_300w_is_a_subset_of_600(tmp_path: Path) -> None:
    listing = read("ibug300w", builders.private(tmp_path))
    assert names(listing)[::2] == ["01_Indoor/indoor_001.png", "02_Outdoor/outdoor_001.png"]
    assert listing.faces[0].subsets == ("private", "01_Indoor")
    assert listing.totals["private"] == 600


def test_menpo_has_faces_for_networks_with_68_and_39_points(tmp_path: Path) -> None:
    builders.menpo(tmp_path)
    for landmarks, kind, other in ((68, "semifrontal", 39), (39, "profile", 68)):
        crops = load_face_crops(tmp_path, landmark_spec("toy", "toy", size=(32, 32), landmarks=landmarks))
        assert crops.names == (f"{kind}/testset/aflw__face_39844.jpg",)
        assert crops.problems == (f"{tmp_path}: 1 faces with {other} points left out",)
    with pytest.raises(OtherPoints, match=r"toy finds 98 points, the faces in .* have 39"):
        load_face_crops(tmp_path, landmark_spec("toy", "toy", size=(32, 32), landmarks=98))
    assert [face.subsets[-1] for face in read("menpo2d", tmp_path, "train").faces] == [
        "profile/trainset",
        "semifrontal/trainset",
    ]


def test_menpos_profile_has_39_points(tmp_path: Path) -> None:
    builders.pair(tmp_path / "profile" / "testset" / "a.jpg", 68)
    with pytest.raises(InputError, match=r"a\.pts: 68 points, expected 39"):
        read("menpo2d", tmp_path)


def test_300vw_has_categories_and_every_frame_is_a_face(tmp_path: Path) -> None:
    builders.videos(tmp_path)
    listing = read("w300vw", tmp_path)
    assert [face.subsets for face in listing.faces[::3]] == [
        ("category 1", "114"),
        ("category 2", "203"),
        ("category 3", "410"),
    ]
    assert names(listing)[:2] == ["114/vid.avi#000001", "114/vid.avi#000002"]
    assert names(read("w300vw", tmp_path, "train"))[0] == "001/vid.avi#000001"
    greys = [scene.frame.mean() for scene in load_face_crops(tmp_path / "114", SPEC68).scenes()]
    np.testing.assert_allclose(greys, [10, 70, 130], atol=3)


def test_a_sample_of_a_video_skips_frames(tmp_path: Path) -> None:
    builders.videos(tmp_path)
    crops = load_face_crops(tmp_path / "114", SPEC68, most=2)
    assert crops.names == ("114/vid.avi#000001", "114/vid.avi#000003")
    np.testing.assert_allclose([scene.frame.mean() for scene in crops.scenes()], [10, 130], atol=3)


@pytest.mark.parametrize("content", [b"", None], ids=["zero bytes", "too short"])
def test_a_video_that_ends_early_is_refused_with_its_annotation(tmp_path: Path, content: bytes | None) -> None:
    builders.videos(tmp_path)
    if content is None:
        builders.video(tmp_path / "114" / "vid.avi", frames=2)
    else:
        (tmp_path / "114" / "vid.avi").write_bytes(content)
    with pytest.raises(InputError, match=r"114/vid\.avi: (not a video|has no frame 3, which .*000003\.pts)"):
        load_face_crops(tmp_path / "114", SPEC68)


def test_wflw_has_attributes_and_several_faces_per_picture(tmp_path: Path) -> None:
    listing = read("wflw", builders.wflw(tmp_path))
    assert names(listing) == [
        "wflw/test/0--Parade/0_Parade_marchingband_1_116.jpg",
        "wflw/test/37--Soccer/37_Soccer_soccer_ball_37_45.jpg",
        "wflw/test/37--Soccer/37_Soccer_soccer_ball_37_45.jpg#2",
    ]
    assert [face.subsets for face in listing.faces] == [
        ("full", "wflw/test"),
        ("full", "largepose", "blur", "wflw/test"),
        ("full", "expression", "illumination", "makeup", "occlusion", "wflw/test"),
    ]
    np.testing.assert_array_equal(listing.faces[2].points, builders.points(98, 3))
    assert [face.subsets for face in read("wflw", tmp_path, "train").faces] == [("wflw/train",)]
    assert len(read("wflw", tmp_path, "all").faces) == 4


def test_jd_landmark_is_split_by_the_names_of_its_folders(tmp_path: Path) -> None:
    builders.jd(tmp_path)
    assert names(read("jd106", tmp_path)) == ["Test_data/1.jpg"]
    assert names(read("jd106", tmp_path, "train")) == ["Training_data/AFW/AFW_134212_1_0.jpg"]
    assert len(read("jd106", tmp_path, "all").faces) == 2


def test_dlib_xml_may_be_a_folder_or_a_file(tmp_path: Path) -> None:
    builders.dlib(tmp_path)
    listing = read("dlib_xml", tmp_path)
    stem = "labels_ibug_300W_test"
    assert names(listing) == [f"{stem}/helen/testset/1.jpg", f"{stem}/helen/testset/1.jpg#2"]
    np.testing.assert_array_equal(listing.faces[1].points, np.round(builders.points(68, 2)))
    assert listing.problems == (f"{tmp_path / stem}.xml: 2 boxes left out, without points or marked ignore",)
    assert len(read("dlib_xml", tmp_path, "all").faces) == 3
    assert len(read("dlib_xml", tmp_path / "labels_ibug_300W_train.xml").faces) == 1


def test_a_table_may_be_csv_or_json_with_subset_and_split(tmp_path: Path) -> None:
    assert names(read("table", builders.csv(tmp_path / "c"))) == ["landmarks/a.png", "landmarks/a.png#2"]
    listing = read("table", builders.json_list(tmp_path / "j") / "landmarks.json")
    assert names(listing) == ["mine/a.png", "mine/a.png#2"]
    np.testing.assert_array_equal(listing.faces[1].points, builders.points(68, 2))
    path = tmp_path / "c" / "mine.csv"
    header = f"split,subset,{builders.header(5)},box_x1,box_y1,box_x2,box_y2\n"
    rows = "".join(
        f"{split},s,{builders.row('a.png', builders.points(5))},1,2,3,4\n" for split in ("train", "", "test")
    )
    path.write_text(header + rows, encoding="utf-8")
    assert [len(read("table", path, split).faces) for split in ("train", "test", "all")] == [2, 2, 3]


def test_a_table_may_have_boxes_and_no_points(tmp_path: Path) -> None:
    picture = builders.picture(tmp_path / "a.png")
    (tmp_path / "boxes.csv").write_text(
        f"image,box_x1,box_y1,box_x2,box_y2\n{picture.name},10,12,50,44\n", encoding="utf-8"
    )
    entry = {"image": picture.name, "box": [10, 12, 50, 44]}
    (tmp_path / "boxes.json").write_text(json.dumps([entry]), encoding="utf-8")

    for name in ("boxes.csv", "boxes.json"):
        (face,) = read("table", tmp_path / name).faces
        np.testing.assert_array_equal(face.points, [[10, 12], [50, 44]])
    spec = landmark_spec("toy", "toy", size=(32, 32), landmarks=98)
    assert calibration_inputs(tmp_path / "boxes.csv", spec, count=3).shape == (3, 3, 32, 32)


def test_coordinates_of_ljson_are_swapped_to_x_before_y(tmp_path: Path) -> None:
    (face,) = read("ljson", builders.ljson(tmp_path)).faces
    np.testing.assert_array_equal(face.points, builders.points(68, 1))


def test_a_place_of_several_data_sets_or_of_none_is_refused(tmp_path: Path) -> None:
    builders.csv(tmp_path)
    builders.dlib(tmp_path)
    with pytest.raises(InputError, match=r"holds faces of dlib_xml and table .*--dataset"):
        find_dataset(tmp_path)
    assert find_dataset(tmp_path, "table").name == "table"
    (tmp_path / "notes.txt").write_text("nothing\n", encoding="utf-8")
    with pytest.raises(InputError, match="neither a folder nor a known annotation file"):
        find_dataset(tmp_path / "notes.txt")


# Mistakes name file and line

SPEC68 = landmark_spec("toy", "toy", size=(32, 32), landmarks=68)
BOMB = """<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;&lol;">]>\n"""
ROW, ROW5 = builders.row("a.png", builders.points(68)), builders.row("a.png", builders.points(5))


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def file_of(name: str, text: str) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        (root / name).write_text(text, encoding="utf-8")

    return build


def csv_of(*lines: str) -> Callable[[Path], None]:
    return file_of("landmarks.csv", "\n".join(lines) + "\n")


def json_of(text: str) -> Callable[[Path], None]:
    return file_of("landmarks.json", text)


def xml_of(text: str) -> Callable[[Path], None]:
    return file_of("a.xml", text)


def wflw_with(old: str, new: str) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        change(next(builders.wflw(root).rglob("list_98pt_rect_attr_test.txt")), old, new)

    return build


def jd_with(old: str, new: str) -> Callable[[Path], None]:
    return lambda root: change(builders.jd(root) / "Test_data" / "landmark" / "1.jpg.txt", old, new)


FACE = json.dumps({"image": "a.png", "landmarks": [[1, 2], [3, 4]]})
MISTAKES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "csv without a column": (
        "table",
        csv_of(builders.header(68).replace(",y41", ""), ROW),
        r"landmarks\.csv:1: .* y41",
    ),
    "csv without points": ("table", csv_of("image", "a.png"), r"landmarks\.csv:1: .* no column x0"),
    "csv without pictures": ("table", csv_of("x0,y0", "1,2"), r"landmarks\.csv:1: .* no column image"),
    "csv with an unknown column": ("table", csv_of("image,x0,y0,z0", "a.png,1,2,3"), r"landmarks\.csv:1: .*'z0'"),
    "csv with a short row": ("table", csv_of(builders.header(5), ROW5, ROW5[:-5]), r"landmarks\.csv:3: .* fields"),
    "csv with NaN": ("table", csv_of("image,x0,y0", "a.png,1,nan"), r"landmarks\.csv:2: 'nan' is not finite"),
    "csv with a word": ("table", csv_of("image,x0,y0", "a.png,1,two"), r"landmarks\.csv:2: 'two' is not a number"),
    "csv with another split": ("table", csv_of("image,x0,y0,split", "a,1,2,tset"), r"landmarks\.csv:2: .*'tset'"),
    "csv that ends in a quote": ("table", csv_of("image,x0,y0", 'a,1,"2'), r"landmarks\.csv:2: not CSV"),
    "json with a pair of three": ("table", json_of(f"[{FACE},\n{FACE.replace('3, 4', '3')}]"), r"\.json:2: .*pairs"),
    "json with NaN": ("table", json_of(f"[\n{FACE.replace('4', 'NaN')}]"), r"landmarks\.json:2: .*NaN"),
    "json that breaks off": ("table", json_of(f"[{FACE},\n{FACE[:-4]}"), r"landmarks\.json:2: not JSON"),
    "json that does not end": ("table", json_of(f"[{FACE}\n"), r"landmarks\.json:2: not JSON: expected a comma"),
    "json of another kind": ("table", json_of("{}"), r"landmarks\.json:1: not a JSON list"),
    "xml with an entity bomb": ("dlib_xml", xml_of(builders.xml({"a.jpg": []}, BOMB)), r"a\.xml:3: .*document type"),
    "xml that breaks off": (
        "dlib_xml",
        xml_of(builders.xml({"a.jpg": [builders.box(np.ones((2, 2)))]})[:-40]),
        r"a\.xml",
    ),
    "xml without a part": (
        "dlib_xml",
        xml_of(builders.xml({"a": ["<box><part name='1' x='1' y='1'/></box>"]})),
        "called 0",
    ),
    "xml without y": (
        "dlib_xml",
        xml_of(builders.xml({"a": ["<box><part name='0' x='1'/></box>"]})),
        r"a\.xml:7: .* y",
    ),
    "xml with NaN": (
        "dlib_xml",
        xml_of(builders.xml({"a": ["<box><part name='0' x='nan' y='1'/></box>"]})),
        "not finite",
    ),
    "wflw with a truncated line": ("wflw", wflw_with("1 0 0 0 0 1 37", "1 0 37"), r"attr_test\.txt:1: 203 fields"),
    "wflw with a third state": ("wflw", wflw_with("0 0 0 0 0 0 0--", "0 0 2 0 0 0 0--"), r"attr_test\.txt:2: the six"),
    "jd with another number": ("jd106", jd_with("106\n", "68\n"), r"1\.jpg\.txt:1: begins with '68'"),
    "jd with a short line": ("jd106", jd_with(" ", "_"), r"1\.jpg\.txt:2: .* is not a point"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused_with_file_and_line(name: str, tmp_path: Path) -> None:
    dataset, build, message = MISTAKES[name]
    builders.picture(tmp_path / "a.png")
    build(tmp_path)
    with pytest.raises(InputError, match=message):
        read(dataset, tmp_path)


def test_a_line_of_a_list_with_another_length_is_refused(tmp_path: Path) -> None:
    path = builders.plain_list(tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text + text.replace(" ", "", 1), encoding="utf-8")
    with pytest.raises(InputError, match=r"anno\.txt:2: 139 numbers before .* 140 as on the first line"):
        read("plain_list", path)


def test_missing_pictures_are_counted_and_a_set_without_pictures_is_refused(tmp_path: Path) -> None:
    builders.wflw(tmp_path)
    gone = tmp_path / "WFLW_images" / "37--Soccer" / "37_Soccer_soccer_ball_37_45.jpg"
    gone.unlink()
    (problem,) = read("wflw", tmp_path).problems
    assert "2 of 3 faces left out, because their pictures are missing" in problem
    assert str(gone) in problem
    assert "list_98pt_rect_attr_test.txt:1" in problem
    next((tmp_path / "WFLW_images" / "0--Parade").iterdir()).unlink()
    with pytest.raises(InputError, match=r"has no faces .*3 of 3"):
        read("wflw", tmp_path)


def test_annotations_of_another_picture_are_refused_with_the_line(tmp_path: Path) -> None:
    builders.csv(tmp_path)
    change(tmp_path / "landmarks.csv", builders.row("a.png", builders.points(68, 2)), ROW)
    far = builders.row("a.png", builders.points(68) + 500)
    change(tmp_path / "landmarks.csv", ROW, far)
    with pytest.raises(InputError, match=r"landmarks\.csv:3: every point is outside the picture .*80 x 60"):
        load_face_crops(tmp_path, SPEC68)


# Real files


@pytest.mark.realdata
def test_reads_the_example_of_dlib(shared: Path) -> None:
    listing = read("dlib_xml", shared / "faces" / "dlib", "all")
    assert {len(face.points) for face in listing.faces} == {68}
    assert len({face.name for face in listing.faces}) == len(listing.faces) > 3
    assert len(load_face_crops(shared / "faces" / "dlib", SPEC68, "all").images) == len(listing.faces)


@pytest.mark.realdata
def test_the_annotation_list_of_300w_agrees_with_the_pts_files(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    for path in (shared / "faces" / "300w_common").rglob("image_*.png"):
        (tmp_path / "test" / path.name).symlink_to(path)
    (tmp_path / "common_anno.txt").write_bytes((shared / "faces/300w_test_annotations/common_anno.txt").read_bytes())
    listing = read("plain_list", tmp_path / "common_anno.txt")
    truth = {face.image.name: face.points for face in read("ibug300w", shared / "faces" / "300w_common").faces}
    assert len(listing.faces) > 10
    for face in listing.faces:
        np.testing.assert_allclose(face.points, truth[face.image.name], atol=1e-5)


@pytest.mark.realdata
def test_reads_the_example_ljson_of_menpo(shared: Path) -> None:
    (face,) = read("ljson", shared / "faces" / "menpo").faces
    assert face.name == "menpo/lenna.png"
    assert face.points.shape == (68, 2)
    assert face.points[8, 1] > face.points[27, 1], "the chin is below the nose"
