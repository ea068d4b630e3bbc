from __future__ import annotations

import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.evaluate.faces.builders import SPEC, add_face, box_points, noise

from lmconv.data import Dataset, Face, Listing
from lmconv.errors import InputError, UsageError
from lmconv.faces import images
from lmconv.faces.crops import landmark_square, load_face_crops
from lmconv.networks import squares
from lmconv.networks.preprocess import network_input
from lmconv.types import Crop, Float64, Preprocess, Uint8, landmark_spec


def reference_crop(image: Uint8, square: squares.Square, size: tuple[int, int]) -> Uint8:
    """Cuts a crop in a simple and slow way: pads the whole picture by the side, then slices."""
    left, top, side = square
    padded = np.pad(image, ((side, side), (side, side), (0, 0)))
    inside = padded[top + side : top + 2 * side, left + side : left + 2 * side]
    return np.asarray(cv2.resize(inside, size[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


# The square


def test_a_square_is_the_longer_side_times_the_scale_in_whole_pixels() -> None:
    # x from 10 to 50, y from 20 to 100: 41 and 81 pixels; int(81 * 1.2) = 97.
    points = box_points(10.2, 20.7, 49.5, 99.1)
    assert landmark_square(points, Crop()) == (10 + 20 - 48, 20 + 40 - 48, 97)


def test_a_square_may_use_the_shorter_side_and_another_scale() -> None:
    points = box_points(10.2, 20.7, 49.5, 99.1)
    assert landmark_square(points, Crop(side="min", scale=1.0)) == (10 + 20 - 20, 20 + 40 - 20, 41)


def test_a_square_beyond_the_border_is_rounded_outwards_too() -> None:
    # x from -4 to 6, y from -11 to -1: 11 pixels each; int(11 * 1.2) = 13.
    assert landmark_square(box_points(-3.5, -10.5, 5.5, -1.5), Crop()) == (-4 + 5 - 6, -11 + 5 - 6, 13)


def test_a_crop_around_a_detected_box_is_not_computed_from_landmarks() -> None:
    with pytest.raises(UsageError, match="detector's box"):
        landmark_square(box_points(0, 0, 9, 9), Crop(box="detector"))


# Cutting


def test_a_crop_of_the_same_size_is_the_part_of_the_picture() -> None:
    image = noise(40, 60)
    np.testing.assert_array_equal(squares.cut(image, (7, 3, 20), (20, 20)), image[3:23, 7:27])


@pytest.mark.parametrize(
    "square",
    [(5, 5, 30), (-10, 5, 30), (5, -10, 30), (40, 5, 30), (5, 25, 30), (-20, -20, 100)],
    ids=["inside", "left", "above", "right", "below", "all around"],
)
def test_a_crop_is_padded_with_black_and_resized_bilinearly(square: squares.Square) -> None:
    image = noise(40, 60)
    np.testing.assert_array_equal(squares.cut(image, square, (16, 24)), reference_crop(image, square, (16, 24)))


def test_black_padding_begins_exactly_at_the_border() -> None:
    crop = squares.cut(noise(40, 60), (-3, 30, 20), (20, 20))
    assert not crop[:, :3].any()
    assert not crop[10:].any()
    assert crop[:10, 3:].all()


@pytest.mark.parametrize("square", [(100, 0, 10), (0, 100, 10), (-10, 0, 10), (0, -50, 10)])
def test_a_crop_beside_the_picture_is_black(square: squares.Square) -> None:
    assert not squares.cut(noise(40, 60), square, (8, 8)).any()


def test_a_small_crop_of_a_large_picture_needs_little_memory() -> None:
    image = np.ones((3000, 3000, 3), np.uint8)
    squares.cut(image, (-50, -50, 100), (8, 8))
    tracemalloc.start()
    squares.cut(image, (-50, -50, 100), (8, 8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 100 * 3 + 10_000


# To the network and back


def test_the_network_gets_float32_planes_divided_by_255() -> None:
    images = np.stack([noise(4, 6), noise(4, 6, seed=1)])
    result = network_input(images, Preprocess())
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_allclose(result, images.transpose(0, 3, 1, 2) / 255, rtol=1e-6)


def test_mean_and_std_are_in_the_networks_colour_order() -> None:
    images = np.zeros((1, 1, 1, 3), np.uint8)
    images[0, 0, 0] = (10, 20, 30)
    settings = Preprocess(colour="RGB", scale=0.5, mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 8.0))
    result = network_input(images, settings)
    assert result.ravel().tolist() == [(15 - 1) / 2, (10 - 2) / 4, (5 - 3) / 8]
    result = network_input(images, replace(settings, colour="BGR"))
    assert result.ravel().tolist() == [(5 - 1) / 2, (10 - 2) / 4, (15 - 3) / 8]


def test_points_are_mapped_back_by_side_and_corner() -> None:
    fractions = np.array([[[0.0, 0.0], [1.0, 0.5]], [[0.25, 0.75], [0.5, 0.5]]], np.float32)
    places = np.array([[10, 20, 100], [-8, -4, 40]])
    result = squares.to_picture(fractions, places)
    assert result.dtype == np.float64
    assert result.tolist() == [[[10.0, 20.0], [110.0, 70.0]], [[2.0, 26.0], [12.0, 16.0]]]


def test_points_of_a_face_at_the_border_are_mapped_back_to_their_pixels(tmp_path: Path) -> None:
    # Blue is x and green is y: every pixel of the crop shows its position. The reference scripts map points back by
    # the square clipped to the picture: the points are then up to 27 pixels off.
    image = np.full((100, 100, 3), 255, np.uint8)
    image[..., 0], image[..., 1] = np.arange(100), np.arange(100)[:, None]
    add_face(tmp_path / "ibug", "border", image, box_points(-12, 2, 70, 60))
    crops = load_face_crops(tmp_path, SPEC)
    assert crops.squares[0, 0] < 0
    y, x = np.nonzero(crops.images[0, ..., 2] == 255)
    fractions = (np.column_stack([x, y]) + 0.5) / 32
    pixels = squares.to_picture(fractions[None], crops.squares)[0]
    np.testing.assert_allclose(pixels - 0.5, crops.images[0, y, x, :2], atol=1.0)


# A folder


def test_loads_the_faces_of_a_folder(tmp_path: Path) -> None:
    image, points = noise(60, 80), box_points(20, 10, 50, 45)
    add_face(tmp_path / "lfpw" / "testset", "b", image, points)
    add_face(tmp_path / "helen" / "testset", "a", noise(60, 80, seed=1), box_points(-5, 5, 30, 55))
    add_face(tmp_path / "afw", "train", image, points)
    (tmp_path / "afw" / "alone.pts").touch()
    (tmp_path / "lfpw" / "testset" / "alone.png").touch()
    crops = load_face_crops(tmp_path, SPEC)
    assert crops.names == ("helen/testset/a.png", "lfpw/testset/b.png")
    assert crops.subsets == (("common", "helen/testset"), ("common", "lfpw/testset"))
    assert crops.totals["common"] == 554
    assert [problem.partition(": ")[2] for problem in crops.problems] == ["no .pts file beside it"]
    assert crops.images.shape == (2, 32, 32, 3)
    assert crops.images.dtype == np.uint8
    assert crops.squares.shape == (2, 3)
    assert crops.squares.dtype == np.int64
    np.testing.assert_allclose(crops.truth[1], points, atol=1e-6)
    around = landmark_square(points, SPEC.crop)
    assert crops.squares[1].tolist() == list(around)
    np.testing.assert_array_equal(crops.images[1], reference_crop(image, around, (32, 32)))


def test_cut_outs_are_kept_by_the_content_of_pictures_and_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_face(tmp_path / "ibug", "a", noise(60, 80), box_points(20, 10, 50, 45))
    before = load_face_crops(tmp_path, SPEC)
    with monkeypatch.context() as patch:
        patch.setattr(images, "read_image", None)  # decodes nothing
        (tmp_path / "ibug").rename(tmp_path / "helen")
        (tmp_path / "ibug").mkdir()
        for name in ("a.png", "a.pts"):
            (tmp_path / "helen" / name).rename(tmp_path / "ibug" / name)
        again = load_face_crops(tmp_path, SPEC)
        np.testing.assert_array_equal(again.images, before.images)
        np.testing.assert_array_equal(again.squares, before.squares)
    assert load_face_crops(tmp_path, replace(SPEC, crop=Crop(scale=1.5))).squares[0, 2] != before.squares[0, 2]
    add_face(tmp_path / "ibug", "a", noise(60, 80), box_points(21, 10, 50, 45))
    assert load_face_crops(tmp_path, SPEC).squares.tolist() != before.squares.tolist()
    add_face(tmp_path / "ibug", "a", noise(60, 80, seed=1), box_points(20, 10, 50, 45))
    assert (load_face_crops(tmp_path, SPEC).images != before.images).any()


def test_points_partly_outside_the_picture_are_valid(tmp_path: Path) -> None:
    add_face(tmp_path / "ibug", "a", noise(40, 40), box_points(-30, -30, 12, 12))
    assert load_face_crops(tmp_path, SPEC).names == ("ibug/a.png",)


def test_annotations_refer_to_stored_pixels_without_exif_rotation(tmp_path: Path) -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 40:] = 255
    add_face(tmp_path / "ibug", "a", image, box_points(41, 1, 70, 30), ending=".jpg")
    path = tmp_path / "ibug" / "a.jpg"
    upright = load_face_crops(tmp_path, SPEC).images
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)  # orientation: rotate by 90 degrees
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    jpeg = path.read_bytes()
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    turned = cv2.imread(str(path))
    assert turned is not None
    assert turned.shape == (80, 40, 3), "OpenCV rotates the picture by default"
    np.testing.assert_array_equal(load_face_crops(tmp_path, SPEC).images, upright)


def test_a_picture_with_several_faces_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotation = add_face(tmp_path, "group", noise(40, 40), box_points(5, 5, 15, 15))
    boxes = [(5, 5, 15, 15), (20, 5, 30, 15), (5, 20, 15, 30)]
    faces = tuple(
        Face(image=tmp_path / "group.png", annotation=annotation, points=box_points(*box), subsets=("group",))
        for box in boxes
    )
    dataset = Dataset(
        name="group",
        summary="several faces in a picture",
        matches=lambda folder: True,
        faces=lambda folder, split: Listing(faces=faces),
    )
    decoded = []
    decode = cv2.imdecode

    def counted(data: Uint8, flags: int) -> object:
        decoded.append(flags)
        return decode(data, flags)

    monkeypatch.setattr(cv2, "imdecode", counted)
    assert len(load_face_crops(tmp_path, SPEC, dataset=dataset).names) == 3
    assert len(decoded) == 1


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (box_points(100, 10, 140, 50), r"a\.pts: every point is outside the picture"),
        (box_points(10, -50, 40, -5), r"a\.pts: every point is outside the picture"),
        (np.full((68, 2), 20.0), r"a\.pts: the points span no area"),
        (box_points(10, 20, 30, 20), r"a\.pts: the points span no area"),
        (box_points(10, 10, 1e9, 30), r"a\.pts: the points need a crop of \d+ pixels"),
        (box_points(10, 10, 1e300, 30), r"a\.pts: the points need a crop of \d+ pixels"),
    ],
    ids=["right of it", "above it", "one place", "a line", "huge", "beyond any integer"],
)
def test_refuses_a_face_outside_its_picture(tmp_path: Path, points: Float64, message: str) -> None:
    add_face(tmp_path / "ibug", "a", noise(60, 80), points)
    with pytest.raises(InputError, match=message) as error:
        load_face_crops(tmp_path, SPEC)
    assert "80 x 60 pixels" in error.value.hint


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + bytes(20)])
def test_refuses_a_picture_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    add_face(tmp_path / "ibug", "a", noise(40, 40), box_points(5, 5, 30, 30))
    (tmp_path / "ibug" / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.png: not a picture"):
        load_face_crops(tmp_path, SPEC)


def test_refuses_a_folder_without_a_known_layout(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no annotated faces in a known layout .*300-W"):
        load_face_crops(tmp_path, SPEC)


def test_refuses_a_missing_folder_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="gone does not exist"):
        load_face_crops(tmp_path / "gone", SPEC)
    with pytest.raises(InputError, match="file is neither a folder"):
        load_face_crops(tmp_path / "file", SPEC)


def test_refuses_faces_with_another_number_of_points_than_the_network(tmp_path: Path) -> None:
    add_face(tmp_path / "ibug", "a", noise(40, 40), box_points(5, 5, 30, 30))
    spec = landmark_spec("toy", "toy", size=(32, 32), landmarks=98)
    with pytest.raises(UsageError, match=r"toy finds 98 points, the faces in .* have 68"):
        load_face_crops(tmp_path, spec)


def test_a_network_with_crops_around_detected_boxes_needs_a_detector(tmp_path: Path) -> None:
    add_face(tmp_path / "ibug", "a", noise(40, 40), box_points(5, 5, 30, 30))
    with pytest.raises(UsageError, match="detector's box"):
        load_face_crops(tmp_path, replace(SPEC, crop=Crop(box="detector")))


# The real set


@pytest.mark.realdata
def test_real_faces_have_the_recorded_squares_and_crops(shared: Path) -> None:
    boxes = np.load(shared / "golden" / "300w_common.npz")
    recorded = np.load(shared / "golden" / "mobilenet_56_300w_common.npz")
    spec = landmark_spec("pfld", "pfld", size=(112, 112), landmarks=68)
    folder = shared / "faces" / "300w_common"
    crops = load_face_crops(folder, spec)
    order = [crops.names.index(name) for name in boxes["name"]]
    assert sorted(order) == list(range(73))
    np.testing.assert_array_equal(crops.truth[order], boxes["gt"])
    np.testing.assert_array_equal(crops.squares[order], recorded["square"])
    corners = np.concatenate([np.floor(crops.truth.min(axis=1)), np.ceil(crops.truth.max(axis=1))], axis=1)
    np.testing.assert_array_equal(corners[order], boxes["gt_box"])
    for index in range(0, 73, 6):
        image = cv2.imread(str(folder / crops.names[index]))
        left, top, side = crops.squares[index].tolist()
        expected = reference_crop(np.asarray(image, np.uint8), (left, top, side), (112, 112))
        np.testing.assert_array_equal(crops.images[index], expected)
