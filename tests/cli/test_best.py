"""The command `lmconv best`, with a small network, drawn faces and real runtimes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from tests.helpers import Cli, tiny_onnx

POINT = {"target", "name", "mix", "ms", "faster", "loss", "verdict", "why", "front", "chosen"}
WIDE = ("--budget-ion", "5", "--budget-drift", "5")


def test_best_races_all_targets_and_exports_the_winner(cli: Cli, tunable: Path) -> None:
    ran = cli("best", tunable, "--calibration", "faces", *WIDE, "--json")
    assert ran.code == 0, ran.err
    (answered,) = ran.document["answers"]
    points = answered["points"]
    assert {point["target"] for point in points} == {"onnx", "openvino"}
    assert {point["name"] for point in points} >= {"fp32", "int8"}
    assert all(point.keys() == POINT for point in points)
    assert [point["ms"] for point in points] == sorted(point["ms"] for point in points)
    (chosen,) = [point for point in points if point["chosen"]]
    answer = answered["answer"]
    assert (answer["target"], answer["name"]) == (chosen["target"], chosen["name"])
    assert answer["runner_up"]
    assert answer["lead"]["low"] <= answer["lead"]["median"] <= answer["lead"]["high"]
    path = Path(answer["path"])
    assert path == Path("build/tiny") / f"{answer['target']}-{answer['precision']}"
    guard = json.loads((path / "manifest.json").read_text(encoding="utf-8"))["measured"]["guard"]
    assert guard["speed"]["ratio"]["median"] == pytest.approx(1 / chosen["faster"]["median"])
    assert guard["budget"]["verdict"] == "within"


def test_a_second_race_repeats_no_measurement_and_its_command_gives_the_same_model(cli: Cli, tunable: Path) -> None:
    best = ("best", tunable, "--to", "onnx", "--calibration", "faces", *WIDE)
    (first,) = cli(*best, "--json").document["answers"]
    (again,) = cli(*best, "--json").document["answers"]
    assert again["points"] == first["points"]
    model = Path(first["answer"]["path"], "model.onnx").read_bytes()
    program, *words = first["command"].split()
    assert program == "lmconv"
    assert cli(*words, "--out", "again").code == 0
    assert Path("again/tiny", Path(first["answer"]["path"]).name, "model.onnx").read_bytes() == model


def test_best_ends_with_one_answer(cli: Cli, tunable: Path) -> None:
    ran = cli("best", tunable, "--to", "onnx", "--precision", "fp32", "--calibration", "faces")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[-1].startswith("Ship build/tiny/onnx-fp32: ")
    assert "times the plain graph" in ran.out
    assert "plain graph, fp32" in ran.out


@pytest.mark.parametrize(
    ("options", "code", "parts"),
    [
        ((), 2, ("--calibration",)),
        (("--calibration", "nowhere"), 4, ("nowhere", "does not exist")),
        (("--calibration", "faces", "--to", "openvin"), 2, ("openvino",)),
        (("--calibration", "faces", "--precision", "int9"), 2, ("int8",)),
        (("--calibration", "faces", "--precision", "mixed"), 2, ("lmconv tune",)),
    ],
    ids=["no faces", "no folder", "no target", "no precision", "mixed"],
)
def test_a_wrong_request_is_refused_in_one_line(
    cli: Cli, tunable: Path, options: tuple[str, ...], code: int, parts: tuple[str, ...]
) -> None:
    cli("best", tunable, *options).refused(code, *parts)
    assert not Path("build/tiny").exists()


def test_a_network_that_cannot_be_raced_stops_no_other(cli: Cli, tunable: Path) -> None:
    onnx.save(tiny_onnx(points=5), "five.onnx")
    ran = cli("best", "five.onnx", tunable, "--to", "onnx", "--calibration", "faces", *WIDE, "--json")
    assert ran.code == 2
    assert [answer["model"] for answer in ran.document["answers"]] == ["tiny"]
    (error,) = ran.document["errors"]
    assert error["model"] == "five.onnx"


def test_a_target_that_cannot_run_the_network_is_left_out(cli: Cli, tunable: Path) -> None:
    model = tiny_onnx()
    model.graph.node[2].input[0] = "unpooled"
    sides: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    model.graph.node.insert(2, onnx.helper.make_node("MaxUnpool", ["pooled", "indices"], ["unpooled"], **sides))
    model.graph.node.insert(2, onnx.helper.make_node("MaxPool", ["b"], ["pooled", "indices"], **sides))
    onnx.save(model, tunable)
    ran = cli("best", tunable, "--calibration", "faces", *WIDE, "--precision", "fp32", "--json")
    assert ran.code == 0, ran.err
    (answered,) = ran.document["answers"]
    assert "MaxUnpool" in answered["left_out"]["openvino"]
    assert {point["target"] for point in answered["points"]} == {"onnx"}
