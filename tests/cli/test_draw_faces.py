"""`lmconv draw` with annotated faces of a data set."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.evaluate.datasets import builders
from tests.helpers import Cli, add_face, contents, face


@pytest.fixture
def faces() -> Path:
    """Three test faces in the layout of 300-W, one at the border; each has another ION for the tiny network."""
    for index, box in enumerate([(20, 10, 50, 45), (-12, 5, 30, 50), (30, 12, 62, 40)]):
        add_face(Path("faces/helen/testset"), f"h{index}", face(*box), seed=index)
    return Path("faces")


def test_the_worst_faces_are_drawn_first_and_listed_with_their_files(cli: Cli, small: Path, faces: Path) -> None:
    ran = cli("draw", faces, small / "onnx-fp32", small / "openvino-fp32", "--json")
    assert ran.code == 0, ran.err
    drawings = ran.document["drawings"]
    assert [drawing["folder"] for drawing in drawings] == [
        f"portraits/tiny/{name}-fp32" for name in ("onnx", "openvino")
    ]
    for drawing in drawings:
        rows = drawing["faces"]
        assert [row["rank"] for row in rows] == [1, 2, 3]
        assert rows[0]["ion"] > rows[1]["ion"] > rows[2]["ion"]
        assert drawing["mean"] == pytest.approx(np.mean([row["ion"] for row in rows]))
        assert {row["subset"] for row in rows} == {"common"}
        folder = Path(drawing["folder"])
        assert sorted(contents(folder)) == sorted([*(row["file"] for row in rows), "faces.csv", "overview.jpg"])
        assert all(row["file"].startswith(f"{row['rank']:04d}-helen_testset_h") for row in rows)
        table = list(csv.DictReader((folder / "faces.csv").open(encoding="utf-8")))
        assert [row["name"] for row in table] == [row["name"] for row in rows]


def test_ion_agrees_with_verify(cli: Cli, small: Path, tiny: Path, faces: Path) -> None:
    options = ("--normaliser", "box-side", "--json")
    (drawing,) = cli("draw", faces, small / "onnx-fp32", *options).document["drawings"]
    (row,) = cli("verify", small / "onnx-fp32", "--weights", tiny, "--data", faces, *options).document["artifacts"]
    assert drawing["normaliser"] == "box-side"
    assert drawing["mean"] == pytest.approx(row["ion"]["common"]["mean"])


def test_a_picture_shows_annotated_and_predicted_points(cli: Cli, small: Path, faces: Path) -> None:
    cli("draw", faces, small / "onnx-fp32", "--worst", "1")
    (path,) = Path("portraits/tiny/onnx-fp32").glob("0001-*")
    picture = cv2.imread(str(path))
    assert picture is not None
    assert picture.shape == (480, 480, 3)
    blue, green, red = picture.astype(int).transpose(2, 0, 1)
    assert ((green > red + 80) & (green > blue + 80)).sum() > 200, "annotated"
    assert ((red > green + 120) & (red > blue + 120)).sum() > 200, "predicted"


def test_without_artefacts_only_the_annotation_is_drawn_for_each_number_of_points(cli: Cli) -> None:
    builders.menpo(Path("menpo"))
    ran = cli("draw", "menpo", "--split", "all", "--out", "seen", "--json")
    assert [drawing["folder"] for drawing in ran.document["drawings"]] == ["seen/annotated-39", "seen/annotated-68"]
    assert [row["ion"] for drawing in ran.document["drawings"] for row in drawing["faces"]] == [None] * 4
    assert cli("draw", "menpo", "--out", "table").out.splitlines()[2].startswith("annotation")


def test_a_folder_of_drawn_faces_is_drawn_again_unless_an_artefact_is_given(cli: Cli, small: Path) -> None:
    assert "1 test faces" in cli("draw", "new", "--faces", "1", "--train", "0").out
    assert "1 test faces" in cli("draw", "new", "--faces", "1", "--train", "0").out
    ran = cli("draw", "new", small / "onnx-fp32", "--json")
    assert ran.document["drawings"][0]["faces"][0]["name"] == "drawn/testset/00000.png"


def test_existing_pictures_are_replaced_only_with_force_and_other_files_never(
    cli: Cli, small: Path, faces: Path
) -> None:
    arguments = ("draw", faces, small / "onnx-fp32")
    cli(*arguments)
    cli(*arguments, "--worst", "1").refused(4, "has pictures already", "--force")
    assert cli(*arguments, "--worst", "1", "--force").code == 0
    folder = Path("portraits/tiny/onnx-fp32")
    assert len(list(folder.glob("0*"))) == 1
    (folder / "mine.png").touch()
    cli(*arguments, "--force").refused(4, "mine.png is not a file of lmconv draw")
    assert (folder / "mine.png").exists()


def test_one_broken_artefact_does_not_stop_the_others(cli: Cli, small: Path, faces: Path) -> None:
    ran = cli("draw", faces, "gone", small / "onnx-fp32", "--json")
    assert ran.code == 4
    assert [error["path"] for error in ran.document["errors"]] == ["gone"]
    assert len(ran.document["drawings"]) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (("faces", "--seed", "1"), 2, ("--seed is for new faces only",)),
        (("fresh", "--worst", "3"), 2, ("--worst is for annotated faces only", "fresh")),
        (("faces", "--normaliser", "ipd"), 2, ("unknown normaliser 'ipd'",)),
        (("nothing", "build/tiny/onnx-fp32"), 4, ("nothing does not exist",)),
        (("faces", "flat/flat-Flat/onnx-fp32"), 2, ("ION is not defined for 4 points",)),
    ],
)
def test_refuses_arguments_that_it_cannot_draw(
    cli: Cli, small: Path, faces: Path, own_build: Path, arguments: tuple[str, ...], code: int, parts: tuple[str, ...]
) -> None:
    Path("flat").symlink_to(own_build)
    cli("draw", *arguments).refused(code, *parts)
    assert not Path("portraits").exists()


def test_a_broken_annotation_file_is_refused(cli: Cli) -> None:
    Path("empty.xml").write_text("")
    cli("draw", "empty.xml", "--out", "found").refused(4, "empty.xml", "annotation file")
