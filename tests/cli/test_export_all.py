"""`lmconv export --all`, random weights, and other numbers of points."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.helpers import Cli, add_face, built, face

from lmconv.plugins import BACKBONES
from lmconv.store import artifact as artifacts

SMALL = ("drawn68", "pfld")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers only two small networks: eleven networks would take minutes (benchmarks/zoo.py converts all)."""
    monkeypatch.setattr(BACKBONES, "names", lambda: list(SMALL))


@pytest.mark.slow
def test_all_converts_networks_with_weights_and_lists_the_others(cli: Cli, few: None, weights: Path) -> None:
    ran = cli("export", "--all", "--json", "--weights", weights)
    assert ran.code == 0, ran.err
    assert "pfld" in {row["model"] for row in ran.document["artifacts"]}
    left_out = [row["model"] for row in ran.document["skipped"]]
    assert all(f"left out: {model}: no trained weights here" in ran.err for model in left_out)


@pytest.mark.slow
def test_all_with_random_weights_converts_every_network(cli: Cli, few: None) -> None:
    ran = cli("export", "--all", "--random-weights", "--json")
    assert ran.code == 0, ran.err
    rows = {row["model"]: row["weights"] for row in ran.document["artifacts"]}
    assert rows.keys() == set(SMALL)
    assert rows["pfld"] == "random weights, seed 0"
    assert ran.document["skipped"] == []


@pytest.mark.slow
def test_all_continues_after_a_failure_and_ends_with_a_table_of_failures(cli: Cli, few: None, tmp_path: Path) -> None:
    (tmp_path / "drawn68.pth").write_bytes(b"not a checkpoint")
    ran = cli("export", "--all", "--random-weights", "--weights", tmp_path)
    assert ran.code == 4
    assert Path("build/pfld/onnx-fp32/manifest.json").exists()
    table = ran.out.split("\n\n")[1].splitlines()
    assert table[0].split() == ["failed", "as", "why"]
    assert table[2].startswith("drawn68")
    assert "drawn68.pth is truncated or not a checkpoint" in table[2]


@pytest.mark.slow
def test_a_network_with_weights_keeps_them_and_its_row_has_its_size(cli: Cli, weights: Path) -> None:
    row = cli("export", "pfld", "--random-weights", "--json").document["artifacts"][0]
    assert row["weights"] == "pfld_model_best.pth.tar"
    assert "seed" not in artifacts.read(Path("build/pfld/onnx-fp32")).parents["source"]
    assert row["source_parameters"] == 730_472
    assert row["parameters"] < row["source_parameters"]  # BatchNorms are folded, bn8 is never called
    assert row["flops"] < row["source_flops"] == 306_146_560  # two linear layers in a row are one


@pytest.mark.slow
def test_a_network_of_random_weights_has_no_ion(cli: Cli, tmp_path: Path) -> None:
    assert cli("draw", tmp_path / "faces", "--faces", "6", "--train", "1").code == 0
    assert cli("export", "pfld", "--random-weights", "--seed", "3").code == 0
    ran = cli("verify", "build/pfld/onnx-fp32", "--data", tmp_path / "faces")
    assert ran.code == 0, ran.err
    assert "no trained weights: ION is not judged" in ran.err
    assert "no trained weights" in ran.out
    row = cli("verify", "build/pfld/onnx-fp32", "--data", tmp_path / "faces", "--json").document["artifacts"][0]
    assert (row["ion"], row["source_ion"], row["delta_ion"]) == (None, None, None)
    assert row["parity"]["against"] == "torch"
    assert row["parity"]["max_px_faces"] is not None
    assert artifacts.read(Path("build/pfld/onnx-fp32")).parents["source"]["seed"] == 3
    assert "no trained weights" in cli("report", "build").out


@pytest.mark.slow
def test_faces_with_another_number_of_points_calibrate_with_a_note(cli: Cli, tmp_path: Path) -> None:
    assert cli("draw", tmp_path / "faces", "--faces", "3", "--train", "3").code == 0
    ran = cli(
        "export",
        "drawn68",
        "--landmarks",
        "98",
        "--weights",
        saved("drawn68", 98, tmp_path),
        "--calibration",
        tmp_path / "faces",
    )
    assert ran.code == 0, ran.err
    assert "have 68: they calibrate, and ION is not judged" in ran.err
    ran = cli("verify", "build/drawn68/onnx-fp32", "--data", tmp_path / "faces", "--weights", tmp_path, "--json")
    assert ran.code == 0, ran.err
    assert "have 68: they are left out" in ran.err
    assert ran.document["artifacts"][0]["ion"] is None


def test_a_folder_with_drawn_faces_and_photographs_is_refused(cli: Cli, tmp_path: Path) -> None:
    assert cli("draw", tmp_path / "faces", "--faces", "2", "--train", "1").code == 0
    add_face(tmp_path / "faces" / "ibug", "a", face(10, 10, 50, 50))
    arguments = ("--random-weights", "--calibration", tmp_path / "faces")
    cli("export", "pfld", *arguments).refused(4, "holds faces of drawn and ibug300w", "name a folder with one data set")


def saved(model: str, landmarks: int, folder: Path) -> Path:
    torch.manual_seed(0)
    path = folder / f"some_{model}.pth"
    torch.save(built(model, landmarks).state_dict(), path)
    return path


@pytest.mark.slow
def test_a_checkpoint_of_98_points_is_converted(cli: Cli, tmp_path: Path) -> None:
    path = saved("drawn68", 98, tmp_path)
    assert cli("export", "drawn68", "--weights", path, "--landmarks", "98").code == 0
    spec = artifacts.read(Path("build/drawn68/onnx-fp32")).spec
    assert spec.landmarks == 98
    assert spec.outputs[0].shape == ("N", 98, 2)


@pytest.mark.parametrize(
    ("model", "landmarks", "arguments", "hint"),
    [
        ("pfld", 98, ("pfld", "--landmarks", "68"), "this network has 98 points: use --landmarks 98"),
        ("resnet18", 68, ("res2net50_v1b",), "these are the weights of resnet18, 68 points"),
        ("mobilenet_v2_se_56", 106, ("mobilenet_v2_56",), "these are the weights of mobilenet_v2_se_56, 106 points"),
    ],
)
def test_a_checkpoint_of_another_network_or_number_of_points_is_named(
    cli: Cli, tmp_path: Path, model: str, landmarks: int, arguments: tuple[str, ...], hint: str
) -> None:
    path = saved(model, landmarks, tmp_path)
    cli("export", *arguments, "--weights", path).refused(4, str(path), hint)


def test_an_onnx_file_with_another_number_of_points_is_refused(cli: Cli, tiny: Path) -> None:
    cli("export", tiny, "--landmarks", "98").refused(2, "no output of 98 points", "(use --landmarks 68)")
