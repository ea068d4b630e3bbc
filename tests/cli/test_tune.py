"""The command `lmconv tune`, with a small network, drawn faces and real runtimes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import onnx
import pytest
from tests.helpers import Cli, contents, tiny_onnx

POINT = {"target", "name", "mix", "ms", "faster", "loss", "verdict", "why", "front", "chosen"}
LAYER = {"layer", "output", "drift", "cost_ms", "int8"}


@pytest.mark.parametrize("target", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_tune_searches_and_judges_and_writes_the_result(cli: Cli, tunable: Path, target: str) -> None:
    ran = cli(
        "tune",
        tunable,
        "--to",
        target,
        "--calibration",
        "faces",
        "--budget-ion",
        "1",
        "--budget-drift",
        "1",
        "--layers",
        "--json",
    )
    assert ran.code == 0, ran.err
    (row,) = ran.document["artifacts"]
    assert Path(row["path"]) == Path("build/tiny") / f"{target}-mixed"
    tuned = row["tuned"]
    assert tuned["faces"] == 30
    names = [point["name"] for point in tuned["points"]]
    assert "fp32" in names
    assert any(name.startswith("int8") for name in names)
    assert all(point.keys() == POINT for point in tuned["points"])
    assert all(layer.keys() == LAYER and layer["drift"] > 0 for layer in tuned["layers"])
    assert [point["verdict"] for point in tuned["points"] if point["chosen"]] == ["within"]
    folder = Path(tuned["folder"])
    assert json.loads((folder / "tuned.json").read_text(encoding="utf-8"))["points"] == tuned["points"]
    for picture in ("front.svg", "layers.svg"):
        assert ElementTree.parse(folder / picture).getroot().tag.endswith("svg")  # noqa: S314  written by lmconv
    assert cli("verify", row["path"], "--data", "faces", "--max-ion-loss", "50%", "--json").code == 0


@pytest.mark.slow
def test_a_second_search_measures_nothing_and_gives_the_same_bytes(cli: Cli, tunable: Path) -> None:
    first = cli("tune", tunable, "--calibration", "faces", "--budget-drift", "5", "--budget-ion", "5", "--json")
    before = contents(Path("build/tiny/onnx-mixed"))
    measured = json.loads(Path("build/tiny/tune-onnx/measured.json").read_text(encoding="utf-8"))
    again = cli("tune", tunable, "--calibration", "faces", "--budget-drift", "5", "--budget-ion", "5", "--json")
    tuned = [ran.document["artifacts"][0]["tuned"] for ran in (first, again)]
    assert tuned[0]["points"] == tuned[1]["points"]
    assert json.loads(Path("build/tiny/tune-onnx/measured.json").read_text(encoding="utf-8")) == measured
    after = contents(Path("build/tiny/onnx-mixed"))
    assert {k: v for k, v in before.items() if k != "manifest.json"} == {
        k: v for k, v in after.items() if k != "manifest.json"
    }


@pytest.mark.slow
def test_several_targets_run_in_one_race_with_one_answer(cli: Cli, tunable: Path) -> None:
    targets = ("--to", "onnx", "--to", "openvino")
    ran = cli("tune", tunable, *targets, "--calibration", "faces", "--json")
    assert ran.code == 0, ran.err
    rows = {row["target"]: row for row in ran.document["artifacts"]}
    assert [*rows] == ["onnx", "openvino"]
    answered = ran.document["answer"]
    assert answered["path"] == rows[answered["target"]]["path"]
    assert answered["runner_up"]["target"] != answered["target"]
    again = cli("tune", tunable, *targets, "--calibration", "faces", "--json")
    assert "an earlier search is reused" in again.err
    assert again.document["answer"] == answered


@pytest.mark.slow
def test_export_of_mixed_and_its_recipe_give_the_tuned_artefact(cli: Cli, tunable: Path) -> None:
    assert cli("tune", tunable, "--calibration", "faces").code == 0
    tuned = Path("build/tiny/onnx-mixed/model.onnx").read_bytes()
    export = ("export", tunable, "--precision", "mixed", "--calibration", "faces")
    assert cli(*export).code == 0
    assert Path("build/tiny/onnx-mixed/model.onnx").read_bytes() == tuned
    assert cli(*export, "--recipe", "build/tiny/onnx-mixed", "--out", "again").code == 0
    assert Path("again/tiny/onnx-mixed/model.onnx").read_bytes() == tuned


@pytest.mark.slow
def test_all_inputs_of_mixed_share_one_search(cli: Cli, tunable: Path) -> None:
    export = ("export", tunable, "--precision", "mixed", "--calibration", "faces", "--json")
    ran = cli(*export, "--io", "tensor", "--io", "image")
    assert ran.code == 0, ran.err
    first, second = ran.document["artifacts"]
    assert first["tuned"] == second["tuned"]
    assert ran.err.count("the plain graph in turn") == 1
    again = cli(*export, "--io", "frame")
    assert "an earlier search is reused" in again.err
    assert "in turn" not in again.err
    assert again.document["artifacts"][0]["tuned"]["points"] == first["tuned"]["points"]


@pytest.mark.slow
def test_fp32_is_chosen_for_a_budget_of_zero(cli: Cli, tunable: Path) -> None:
    ran = cli("tune", tunable, "--calibration", "faces", "--budget-ion", "0", "--budget-drift", "0", "--json")
    assert ran.code == 0, ran.err
    (chosen,) = [point for point in ran.document["artifacts"][0]["tuned"]["points"] if point["chosen"]]
    assert chosen["mix"]["precision"] == "fp32"


@pytest.mark.slow
def test_tune_prints_the_choice_and_the_layers(cli: Cli, tunable: Path) -> None:
    ran = cli("tune", tunable, "--calibration", "faces", "--layers")
    assert ran.code == 0, ran.err
    assert "tiny for onnx: 30 faces in 3 folds; budget 0.03 ION points, drift 0.4" in ran.out
    assert ran.out.splitlines()[-1].startswith("Ship build/tiny/onnx-mixed: ")
    assert "drift, only this layer int8" in ran.out


@pytest.mark.parametrize(
    ("options", "code", "parts"),
    [
        ((), 2, ("real faces", "--calibration")),
        (("--calibration", "nowhere"), 4, ("nowhere", "does not exist")),
        (("--calibration", "faces", "--time", "soon"), 2, ("'soon'", "90s")),
        (("--calibration", "faces", "--to", "tensorrt"), 2, ("tensorrt",)),
        (("--calibration", "faces", "--to", "openvin"), 2, ("openvino",)),
        (("--calibration", "few", "--split", "all"), 4, ("8 faces", "10")),
    ],
    ids=["no faces", "no folder", "no time", "not tunable", "no target", "too few faces"],
)
def test_missing_arguments_are_reported_in_one_line(
    cli: Cli, tunable: Path, options: tuple[str, ...], code: int, parts: tuple[str, ...]
) -> None:
    shutil.copytree("faces/drawn/testset", "few/drawn/testset", ignore=shutil.ignore_patterns("*[89].*"))
    cli("tune", tunable, *options).refused(code, *parts)
    assert not Path("build/tiny/onnx-mixed").exists()


def test_points_without_ion_cannot_be_tuned(cli: Cli, tunable: Path) -> None:
    onnx.save(tiny_onnx(points=5), tunable)
    cli("tune", "tiny.onnx", "--landmarks", "5", "--calibration", "faces").refused(2, "ION is not defined for 5 points")


@pytest.mark.realdata
@pytest.mark.parametrize(
    "limit", [pytest.param("40s", marks=pytest.mark.slow), pytest.param("3m", marks=pytest.mark.exhaustive)]
)
def test_a_trained_network_is_tuned_within_its_budget(cli: Cli, real_weights: Path, shared: Path, limit: str) -> None:
    faces = shared / "faces"
    ran = cli(
        "tune",
        "pfld",
        "--to",
        "openvino",
        "--calibration",
        faces / "300w_train_sample",
        "--time",
        limit,
        "--layers",
        "--json",
    )
    assert ran.code == 0, ran.err
    (row,) = ran.document["artifacts"]
    (chosen,) = [point for point in row["tuned"]["points"] if point["chosen"]]
    assert chosen["loss"]["n"] == row["tuned"]["faces"] == 102
    assert chosen["loss"]["ion"]["mean"] <= 0.03
    assert chosen["loss"]["drift"]["mean"] <= 0.4
    assert chosen["faster"]["high"] >= 1.0
    assert {layer["layer"] for layer in row["tuned"]["layers"]} >= {"conv1", "block3_2.conv.0", "conv8"}
    verified = cli("verify", row["path"], "--data", faces / "300w_common", "--max-drift", "0.4", "--json")
    assert verified.code == 0, verified.err
    (row,) = verified.document["artifacts"]
    assert row["delta_ion"]["common"]["mean"] <= 0.03


@pytest.mark.slow
def test_a_larger_budget_measures_faces_that_a_smaller_budget_left_out(cli: Cli, tunable: Path) -> None:
    faces = []
    for drift in ("0.000001", "50"):
        budget = ("--budget-ion", "50", "--budget-drift", drift)
        ran = cli("tune", tunable, "--calibration", "faces", *budget, "--json")
        points = ran.document["artifacts"][0]["tuned"]["points"]
        faces.append([point["loss"]["n"] for point in points if point["name"].startswith("int8")])
    assert min(faces[0]) < 30
    assert set(faces[1]) == {30}
