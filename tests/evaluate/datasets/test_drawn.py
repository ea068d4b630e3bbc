from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmconv.datasets.drawn import plugin
from lmconv.errors import InputError
from lmconv.faces.crops import load_face_crops
from lmconv.faces.images import read_image
from lmconv.faces.lookup import find_dataset
from lmconv.inference.session import landmarks
from lmconv.judging.nme import nme
from lmconv.networks import squares
from lmconv.networks.preprocess import network_input
from lmconv.sources import resolve as source
from lmconv.synthetic import picture
from lmconv.synthetic.folder import write
from lmconv.synthetic.traits import HELD_OUT
from lmconv.types import landmark_spec

SHIPPED = Path(__file__).parents[3] / "weights" / "lmconv" / "known" / "drawn68.safetensors"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two test faces and one training face. Not to be changed."""
    out = tmp_path_factory.mktemp("faces")
    write(out, {"testset": 2, "trainset": 1}, seed=4)
    return out


def test_the_layout_is_that_of_300w(drawn: Path) -> None:
    files = sorted(str(path.relative_to(drawn)) for path in drawn.rglob("*") if path.is_file())
    assert files == [
        "drawn/testset/00000.png",
        "drawn/testset/00000.pts",
        "drawn/testset/00001.png",
        "drawn/testset/00001.pts",
        "drawn/trainset/00000.png",
        "drawn/trainset/00000.pts",
    ]
    lines = (drawn / files[1]).read_text(encoding="utf-8").splitlines()
    assert (lines[:3], lines[-1], len(lines)) == (["version: 1", "n_points: 68", "{"], "}", 72)


def test_drawn_faces_are_read_as_they_were_written(drawn: Path) -> None:
    listing = plugin.faces(drawn, "test")
    assert listing.problems == ()
    assert [face.name for face in listing.faces] == ["drawn/testset/00000.png", "drawn/testset/00001.png"]
    for number, face in enumerate(listing.faces):
        image, points = picture.face(HELD_OUT, picture.stream(4, "testset", number))
        np.testing.assert_allclose(face.points, points, rtol=0, atol=0.00051)
        np.testing.assert_array_equal(read_image(face.image), image)


def test_drawn_faces_are_never_in_subsets_of_300w(drawn: Path) -> None:
    for split in ("test", "train", "all"):
        listing = plugin.faces(drawn, split)
        assert listing.totals == {}
        assert {subset for face in listing.faces for subset in face.subsets} <= {"drawn/testset", "drawn/trainset"}


@pytest.mark.parametrize("place", [".", "drawn", "drawn/testset", "drawn/trainset"])
def test_the_data_set_is_recognised_from_above_and_from_inside(drawn: Path, place: str) -> None:
    assert find_dataset(drawn / place) is plugin


def test_faces_of_300w_are_not_read_as_drawn_faces(tmp_path: Path) -> None:
    (tmp_path / "ibug").mkdir()
    (tmp_path / "ibug" / "a.pts").touch()
    assert not plugin.matches(tmp_path)
    assert not plugin.matches(tmp_path / "ibug")
    with pytest.raises(InputError, match="has no faces"):
        plugin.faces(tmp_path, "test")


def test_a_split_that_was_not_drawn_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"testset": 1})
    with pytest.raises(InputError, match="has no train faces of the drawn set, only drawn/testset"):
        plugin.faces(tmp_path, "train")


def test_faces_with_98_points_are_read(tmp_path: Path) -> None:
    write(tmp_path, {"testset": 1}, landmarks=98)
    spec = landmark_spec("toy", "toy", size=(32, 32), landmarks=98)
    assert load_face_crops(tmp_path, spec).truth.shape == (1, 98, 2)


@pytest.mark.parametrize("count", [12, pytest.param(60, marks=pytest.mark.slow)])
def test_drawn68_predicts_the_points_of_newly_drawn_faces(tmp_path: Path, count: int) -> None:
    write(tmp_path, {"testset": count}, seed=2026)
    resolved = source.resolve("drawn68", weights=SHIPPED)
    faces = load_face_crops(tmp_path, resolved.spec)
    with source.open_source(resolved) as network:
        points = squares.to_picture(
            landmarks(network, resolved.spec, network_input(faces.images, resolved.spec.preprocess)), faces.squares
        )
    assert nme(points, faces.truth).mean() < 5, "4.6 on 300 faces, docs/drawn.md"
