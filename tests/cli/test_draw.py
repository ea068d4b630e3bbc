from __future__ import annotations

from pathlib import Path

import pytest
from tests.helpers import Cli, contents


def test_draw_writes_both_splits_and_reports_them(cli: Cli, tmp_path: Path) -> None:
    ran = cli("draw", tmp_path / "faces", "--faces", "2", "--train", "1", "--seed", "7", "--json")
    assert ran.code == 0, ran.err
    document = ran.document
    assert len(document.pop("sha256")) == 64
    assert document == {
        "folder": str(tmp_path / "faces" / "drawn"),
        "testset": 2,
        "trainset": 1,
        "landmarks": 68,
        "seed": 7,
        "errors": [],
    }
    assert len(contents(tmp_path / "faces" / "drawn")) == 6


def test_draw_prints_a_summary_as_text(cli: Cli) -> None:
    ran = cli("draw", "faces", "--faces", "1", "--train", "0", "--landmarks", "98")
    assert ran.out == f"{Path('faces/drawn')}: 1 test faces, 0 training faces, 98 points\n"
    assert Path("faces/drawn/testset/00000.pts").read_text(encoding="utf-8").startswith("version: 1\nn_points: 98\n{\n")
    assert not Path("faces/drawn/trainset").exists()


def test_the_seed_determines_the_bytes(cli: Cli) -> None:
    digests = []
    for folder, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        ran = cli("draw", folder, "--faces", "2", "--train", "1", "--seed", seed, "--json")
        digests.append(ran.document["sha256"])
    assert contents(Path("a")) == contents(Path("b"))
    assert digests[0] == digests[1] != digests[2]


def test_a_face_does_not_depend_on_the_number_of_faces(cli: Cli) -> None:
    cli("draw", "few", "--faces", "1", "--train", "0")
    cli("draw", "more", "--faces", "2", "--train", "0")
    assert contents(Path("few")).items() <= contents(Path("more")).items()


def test_drawing_again_changes_nothing_and_completes_an_interrupted_run(cli: Cli) -> None:
    cli("draw", "faces", "--faces", "2", "--train", "0")
    first = contents(Path("faces"))
    Path("faces/drawn/testset/00001.png").rename("faces/drawn/testset/.00001.png")
    assert cli("draw", "faces", "--faces", "2", "--train", "0").code == 0
    assert contents(Path("faces")) == first


@pytest.mark.parametrize(
    ("options", "named"),
    [(("--seed", "1"), "00000.png"), (("--landmarks", "98"), "00000.pts"), (("--faces", "1"), "00001.png")],
    ids=["another seed", "another scheme", "fewer"],
)
def test_refuses_to_mix_two_drawings(cli: Cli, options: tuple[str, str], named: str) -> None:
    cli("draw", "faces", "--faces", "2", "--train", "0")
    before = contents(Path("faces"))
    cli("draw", "faces", "--faces", "2", "--train", "0", *options).refused(4, named, "--force")
    assert contents(Path("faces")) == before
    assert cli("draw", "faces", "--faces", "2", "--train", "0", *options, "--force").code == 0
    cli("draw", "fresh", "--faces", "2", "--train", "0", *options)
    assert contents(Path("faces")) == contents(Path("fresh"))


def test_draw_never_removes_other_files(cli: Cli) -> None:
    folder = Path("faces/drawn/testset")
    folder.mkdir(parents=True)
    (folder / "mine.jpg").touch()
    cli("draw", "faces", "--force").refused(4, "mine.jpg", "was not drawn by lmconv")
    assert [path.name for path in folder.iterdir()] == ["mine.jpg"]


def test_refuses_a_file_as_output_folder(cli: Cli) -> None:
    Path("faces").touch()
    cli("draw", "faces", "--faces", "1").refused(4, "cannot write faces")


@pytest.mark.parametrize(
    "options", [("--faces", "0", "--train", "0"), ("--faces", "-1"), ("--landmarks", "39"), ("--seed", "-1")]
)
def test_refuses_invalid_options(cli: Cli, options: tuple[str, ...]) -> None:
    cli("draw", "faces", *options).refused(2)
    assert not Path("faces").exists()


def test_an_unneeded_split_is_removed_only_with_force(cli: Cli, tmp_path: Path) -> None:
    assert cli("draw", tmp_path / "f", "--faces", "2", "--train", "1").code == 0
    ran = cli("draw", tmp_path / "f", "--faces", "0", "--train", "1")
    ran.refused(4, "is from a draw with other options", "--force")
    assert cli("draw", tmp_path / "f", "--faces", "0", "--train", "1", "--force").code == 0
    assert sorted(path.name for path in (tmp_path / "f" / "drawn").iterdir()) == ["trainset"]
