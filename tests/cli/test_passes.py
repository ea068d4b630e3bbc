"""Options and output of the command line about passes."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from tests.helpers import Cli, add_face, face, tiny_onnx

from lmconv.plugins import PASSES
from lmconv.store import artifact as artifacts
from lmconv.types import Json, PassContext


@pytest.fixture
def fat(tmp_path: Path) -> Path:
    """An ONNX file whose convolution has 8 channels, 5 of them constant."""
    path = tmp_path / "fat.onnx"
    path.write_bytes(tiny_onnx(dead=5).SerializeToString())
    return path


def compacted(folder: str) -> Json | None:
    return artifacts.decided(artifacts.read(Path(folder)).recipe, "compact")


def test_dead_channels_are_removed_by_default_and_the_plain_graph_keeps_them(cli: Cli, fat: Path) -> None:
    ran = cli("export", fat, "--json")
    assert ran.code == 0, ran.err
    decisions = compacted("build/fat/onnx-fp32")
    assert decisions
    assert decisions["layers"][0]["channels"][0] == 8
    assert decisions["layers"][0]["channels"][1] in (3, 4)
    (row,) = ran.document["artifacts"]
    assert row["parameters"] < artifacts.read(Path("build/fat/plain")).parameters
    assert cli("verify", row["path"], "--weights", fat).code == 0


def test_no_compact_keeps_dead_channels(cli: Cli, fat: Path) -> None:
    ran = cli("export", fat, "--no-compact", "--json")
    assert ran.code == 0, ran.err
    assert compacted("build/fat/onnx-fp32") is None
    assert ran.document["artifacts"][0]["parameters"] == artifacts.read(Path("build/fat/plain")).parameters


def test_a_recipe_repeats_an_export(cli: Cli, fat: Path) -> None:
    assert cli("export", fat, "--out", "one").code == 0
    assert cli("export", fat, "--out", "two", "--recipe", "one/fat/onnx-fp32").code == 0
    one, two = (artifacts.read(Path(out) / "fat" / "onnx-fp32") for out in ("one", "two"))
    assert (one.files, one.digest) == (two.files, two.digest)
    assert "faster than multiple 1" in one.measured["passes"]["compact"]
    assert "faster than multiple 1" not in two.measured["passes"]["compact"]


def test_a_folder_of_recipes_repeats_each_network_and_variant(cli: Cli, fat: Path, tiny: Path) -> None:
    both = ("--to", "onnx", "--to", "openvino", "--no-guard")
    assert cli("export", fat, tiny, "--no-dead", *both, "--out", "one").code == 0
    assert cli("export", fat, tiny, *both, "--recipe", "one", "--out", "two").code == 0
    for name in ("fat/onnx-fp32", "fat/openvino-fp32", "tiny/onnx-fp32", "tiny/openvino-fp32"):
        one, two = (artifacts.read(Path(out) / name) for out in ("one", "two"))
        assert (one.files, one.digest) == (two.files, two.digest)
    ran = cli("export", fat, tiny, *both, "--recipe", "one/fat", "--out", "three")
    assert (ran.code, "--recipe has no artefact of tiny as openvino fp32" in ran.err) == (2, True)
    assert artifacts.read(Path("three/fat/onnx-fp32")).digest == artifacts.read(Path("one/fat/onnx-fp32")).digest


def test_a_pass_runs_on_the_same_graph_once_for_all_targets(cli: Cli, tiny: Path) -> None:
    step, runs = PASSES.load("float16"), []

    def apply(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
        runs.append(model)
        return step.apply(model, context)

    with PASSES.using(float16=replace(step, apply=apply)):
        ran = cli("export", tiny, "--to", "onnx", "--to", "openvino", "--precision", "fp16", "--no-guard")
    assert (ran.code, len(runs)) == (0, 1), ran.err


def test_explain_shows_the_gain_of_each_pass_and_the_passes_left_out(cli: Cli, fat: Path) -> None:
    ran = cli("export", fat, "--to", "onnx", "--to", "openvino", "--explain", "--json")
    assert ran.code == 0, ran.err
    for row in ran.document["artifacts"]:
        explained = row["explained"]
        step = next(step for step in explained["passes"] if step["pass"] == "compact")
        assert step["parameters"][1] < step["parameters"][0]
        assert step["flops"][1] < step["flops"][0]
        assert 0 < step["faster"]["low"] <= step["faster"]["median"] <= step["faster"]["high"]
        assert explained["total"]["parameters"][1] == row["parameters"]
        done = {step["pass"] for step in explained["passes"]}
        assert done.isdisjoint(step["pass"] for step in explained["left_out"])
        assert all(step["why"] for step in explained["left_out"])
    text = cli("export", fat, "--explain", "--no-compact").out
    assert "against the plain graph on this target" in text
    assert "left out: switched off (--no-compact)" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--no-simplify"], "--no-simplify"),
        (["--no-float16"], "--no-float16"),
        (["--compact-px", "0"], "--compact-px"),
        (["--compact-px", "0.1"], "real faces"),
        (["--compact-px", "0.1", "--no-compact"], "contradict"),
        (["--compact-px", "0.1", "--no-freeze"], "contradict"),
        (["--no-such-pass"], "--no-such-pass"),
    ],
)
def test_invalid_options_of_passes_are_refused_before_any_work(
    cli: Cli, fat: Path, options: list[str], message: str
) -> None:
    cli("export", fat, *options).refused(2, message)
    assert not Path("build").exists()


def test_a_recipe_of_another_network_target_or_precision_is_refused(cli: Cli, fat: Path, tiny: Path) -> None:
    assert cli("export", fat, "--no-dead").code == 0
    recipe = ("--recipe", "build/fat/onnx-fp32")
    cli("export", tiny, *recipe).refused(2, "other weights")
    cli("export", fat, *recipe, "--to", "openvino").refused(2, "no artefact of openvino fp32", "has onnx fp32")
    cli("export", fat, *recipe, "--no-compact").refused(2, "determines the passes")
    assert cli("export", fat, *recipe, "--out", "again").code == 0
    first, again = (artifacts.read(Path(out) / "fat" / "onnx-fp32") for out in ("build", "again"))
    assert (first.files, first.digest) == (again.files, again.digest)


def test_a_recipe_that_is_no_artefact_is_refused(cli: Cli, fat: Path, tmp_path: Path) -> None:
    cli("export", fat, "--recipe", tmp_path / "nothing").refused(4, "not an artefact")


def test_inspect_shows_every_layer_as_a_table_and_as_a_picture(cli: Cli, fat: Path) -> None:
    assert cli("export", fat).code == 0
    ran = cli("inspect", "build/fat/onnx-fp32", "--layers", "--picture", "layers.svg")
    assert ran.code == 0, ran.err
    (line,) = (line for line in ran.out.splitlines() if line.startswith("a  "))
    assert "8 -> " in line
    drawn = ElementTree.parse("layers.svg")  # noqa: S314
    texts = [element.text or "" for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "Conv a" in texts
    assert any(text.startswith("8 → ") for text in texts)


def test_inspect_refuses_layers_of_an_artefact_without_compaction(cli: Cli, fat: Path) -> None:
    assert cli("export", fat, "--no-compact").code == 0
    cli("inspect", "build/fat/onnx-fp32", "--layers").refused(4, "not compacted")


def test_int8_can_be_built_for_another_kind_of_cpu_and_the_recipe_keeps_it(
    cli: Cli, tiny: Path, tmp_path: Path
) -> None:
    faces = tmp_path / "faces"
    add_face(faces / "afw", "a1", face(20, 10, 50, 45))
    int8 = ("--precision", "int8", "--calibration", faces, "--no-guard")
    assert cli("export", tiny, *int8, "--cpu", "arm", "--out", "one").code == 0
    assert cli("export", tiny, *int8, "--recipe", "one/tiny/onnx-int8", "--out", "two").code == 0
    for folder in ("one", "two"):
        quantisation = artifacts.read(Path(folder) / "tiny" / "onnx-int8").recipe["quantisation"]
        assert (quantisation["cpu"], quantisation["activations"]) == ("arm", "int8")
    cli("export", tiny, *int8, "--recipe", "one/tiny/onnx-int8", "--cpu", "x86").refused(2, "--cpu")


def test_every_table_states_the_layers_in_int8_and_why_the_others_are_float(
    cli: Cli, tiny: Path, tmp_path: Path
) -> None:
    for number in range(4):
        add_face(tmp_path / "faces", f"face{number}", face(10, 10, 50, 50), seed=number)
    ran = cli("export", tiny, "--precision", "int8", "--calibration", tmp_path / "faces", "--no-guard")
    assert ran.code == 0, ran.err

    share = "1 of 2 layers, 58.5 % of MACs"
    head = "1 layer, 41.5 % of MACs: fully connected head: its errors are errors of the landmarks"
    assert share in ran.out
    assert f"int8 computes only {share}" in ran.err
    assert f"in float: {head}" in ran.err
    inspected = cli("inspect", "build/tiny/onnx-int8").out
    assert f"int8       {share}\n" in inspected
    assert f"float      {head}" in inspected
    assert f"int8 in {share}" in cli("report", "build").out
    row = cli("report", "build", "--json").document["artifacts"]
    figures = next(row["int8"] for row in row if row["precision"] == "int8")
    assert (figures["layers"], figures["of"]) == (1, 2)
    assert figures["int8_macs"] < 0.8 * figures["macs"]
