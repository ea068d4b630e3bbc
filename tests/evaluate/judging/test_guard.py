"""The guard of `lmconv export`: artefacts that are refused, written by force, or not judged."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tests.helpers import Cli, add_face, contents, face, tiny_onnx

from lmconv import machine
from lmconv.building.effort import Effort
from lmconv.plugins import PASSES
from lmconv.store import artifact as artifacts
from lmconv.targets import openvino
from lmconv.types import Json, PassContext

WIDE = 96


def burden(model: onnx.ModelProto) -> onnx.ModelProto:
    """Makes a graph much slower without a change of outputs: adds two wide convolutions whose result is zero."""
    name = model.graph.input[0].name
    up, down = np.full((WIDE, 3, 5, 5), 0.01, np.float32), np.zeros((3, WIDE, 5, 5), np.float32)
    model.graph.initializer.extend([numpy_helper.from_array(up, "up"), numpy_helper.from_array(down, "down")])
    for node in model.graph.node:
        node.input[:] = ["burdened" if value == name else value for value in node.input]
    nodes = [
        helper.make_node("Conv", [name, "up"], ["wide"], pads=[2] * 4),
        helper.make_node("Conv", ["wide", "down"], ["zero"], pads=[2] * 4),
        helper.make_node("Add", [name, "zero"], ["burdened"]),
        *model.graph.node,
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def shift(model: onnx.ModelProto) -> onnx.ModelProto:
    """Moves every point by 0.01 of the input."""
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "fc.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.01), "fc.bias"))
    return model


def same(model: onnx.ModelProto) -> onnx.ModelProto:
    return model


@pytest.fixture
def effort() -> Effort:
    """Effort with enough runs and a limit high enough that a busy machine does not affect the verdict."""
    return Effort(slower=2.0, guard_rounds=10)


@pytest.fixture
def passes() -> Iterator[Json]:
    """Mapping from the name of a pass to the function that replaces the pass in this test."""
    with ExitStack() as stack:

        class Replaced(dict[str, Any]):
            def __setitem__(self, name: str, function: Callable[[onnx.ModelProto], onnx.ModelProto]) -> None:
                def apply(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
                    return function(model), {"activations": "uint8"}

                step = replace(PASSES.load(name), apply=apply, tolerance=0.5)
                stack.enter_context(PASSES.using(**{name: step}))

        yield Replaced()


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Folder with six training faces and two test faces."""
    for index in range(6):
        add_face(tmp_path / "faces" / "afw", f"t{index}", face(20, 10, 50 + index, 45), seed=index)
    for index in range(2):
        add_face(tmp_path / "faces" / "ibug", f"i{index}", face(15, 15, 45, 50 + index), seed=10 + index)
    return tmp_path / "faces"


def guard(path: str) -> Json:
    verdict: Json = artifacts.read(Path(path)).measured["guard"]
    return verdict


# Speed


def test_an_artefact_slower_than_fp32_is_refused_with_the_figures(
    cli: Cli, tiny: Path, passes: Json, faces: Path
) -> None:
    passes["int8"] = burden
    ran = cli("export", tiny, "--precision", "int8", "--calibration", faces, "--json")
    ran.refused(1, "tiny as onnx int8 takes", "times as long as fp32, allowed 2", "build/tiny/onnx-fp32", "--force")
    (error,) = ran.document["errors"]
    assert error["kind"] == "refused"
    speed = error["guard"]["speed"]
    assert 2 < speed["ratio"]["low"] <= speed["ratio"]["median"] <= speed["ratio"]["high"]
    assert not Path("build/tiny/onnx-int8").exists()


def test_the_fp32_parent_of_a_refused_artefact_is_kept(cli: Cli, tiny: Path, passes: Json, faces: Path) -> None:
    passes["int8"] = burden
    options = ("--precision", "int8", "--calibration", faces, "--json")
    (row,) = cli("export", tiny, *options).document["artifacts"]
    assert (row["path"], row["kept_for"]) == ("build/tiny/onnx-fp32", "onnx-int8")
    assert cli("verify", row["path"], "--weights", tiny).code == 0
    before = contents(Path("build"))
    assert cli("export", tiny, *options).document["artifacts"] == [], "it was there"
    assert contents(Path("build")) == before
    ran = cli("export", tiny, "--precision", "fp32", *options)
    assert [row.get("kept_for") for row in ran.document["artifacts"]] == [None], "it was asked for"


def test_a_refusal_keeps_the_previous_artefact(cli: Cli, tiny: Path, passes: Json, faces: Path) -> None:
    options = ("--precision", "int8", "--calibration", faces)
    assert cli("export", tiny, *options).code == 0
    before = contents(Path("build/tiny/onnx-int8"))
    passes["int8"] = burden
    assert cli("export", tiny, *options).code == 1
    assert contents(Path("build/tiny/onnx-int8")) == before


def test_fp32_is_compared_with_its_plain_graph(cli: Cli, tiny: Path, passes: Json) -> None:
    passes["dead"] = burden
    for target in ("onnx", "openvino"):
        ran = cli("export", tiny, "--to", target, "--json")
        ran.refused(1, f"tiny as {target} fp32 takes", "as long as its plain graph", "--explain")
        assert ran.document["artifacts"] == []


@pytest.mark.parametrize("io", ["image", "frame"])
def test_artefacts_for_crops_or_frames_are_timed_on_crops_or_frames(
    cli: Cli, tiny: Path, passes: Json, io: str
) -> None:
    passes["dead"] = burden
    cli("export", tiny, "--io", io, "--batch", "3").refused(1, "as long as its plain graph")
    passes["dead"] = same
    assert cli("export", tiny, "--io", io, "--batch", "3").code == 0


def test_an_artefact_that_is_not_slower_passes_and_its_manifest_records_the_speed(
    cli: Cli, tiny: Path, passes: Json, faces: Path
) -> None:
    passes["int8"] = same
    assert cli("export", tiny, "--precision", "int8", "--calibration", faces).code == 0
    assert guard("build/tiny/onnx-int8")["speed"]["verdict"] == "passed"
    assert "forced" not in guard("build/tiny/onnx-int8")


def test_the_plain_graph_itself_needs_no_timing(cli: Cli, tiny: Path) -> None:
    options = ("--to", "onnx", "--to", "openvino")
    assert cli("export", tiny, *options).code == 0
    assert cli("export", tiny, *options, "--io", "image").code == 0
    for name in ("onnx-fp32", "openvino-fp32", "onnx-fp32-image"):
        assert guard(f"build/tiny/{name}")["speed"]["reason"] == "it is the same"


def test_graphs_that_a_pass_has_timed_are_not_timed_again(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fat.onnx"
    path.write_bytes(tiny_onnx(dead=5).SerializeToString())
    monkeypatch.setattr("lmconv.judging.guard.paced", None)
    ran = cli("export", path, "--to", "onnx", "--to", "openvino")
    assert ran.code == 0, ran.err
    speed = guard("build/fat/onnx-fp32")["speed"]
    assert speed["verdict"] == "passed"
    assert 0 < speed["ratio"]["low"] <= speed["ratio"]["high"]
    assert speed["samples"] >= 9


BF16 = ("--to", "openvino", "--precision", "bf16")


@pytest.fixture
def without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes OpenVINO compute in f32 with any precision hint, as on a CPU without bf16."""
    opened = openvino.OpenVinoSession.__init__

    def init(self: openvino.OpenVinoSession, path: Path, hint: str, *options: Any, **named: Any) -> None:
        opened(self, path, "f32", *options, **named)
        self._hint = hint

    monkeypatch.setattr(openvino.OpenVinoSession, "__init__", init)


def test_an_artefact_that_this_machine_computes_in_another_precision_is_not_judged(
    cli: Cli, tiny: Path, passes: Json, faces: Path, without_bf16: None
) -> None:
    passes["dead"] = burden
    assert cli("export", tiny, *BF16, "--calibration", faces).code == 0
    recorded = guard("build/tiny/openvino-bf16")
    for part, verdict in (("speed", "not judged here"), ("budget", "not judged")):
        assert recorded[part]["verdict"] == verdict
        assert "this CPU computes in f32" in recorded[part]["reason"]
    assert "speed: not judged here" in cli("inspect", "build/tiny/openvino-bf16").out


@pytest.mark.skipif(not {"avx512_bf16", "amx_bf16"} & {*machine.describe()["features"]}, reason="no bf16 in this CPU")
def test_bf16_is_judged_where_the_cpu_computes_in_bf16(cli: Cli, tiny: Path, passes: Json, faces: Path) -> None:
    ran = cli("export", tiny, *BF16, "--calibration", faces, "--budget-ion", "100", "--budget-drift", "100")
    assert ran.code == 0, ran.err
    recorded = guard("build/tiny/openvino-bf16")
    assert (recorded["speed"]["verdict"], recorded["budget"]["verdict"]) == ("passed", "within")
    assert recorded["speed"]["ratio"]["median"] > 0
    assert recorded["budget"]["loss"]["drift"]["mean"] > 0


def test_int8_for_another_cpu_is_not_timed_on_this_one(small: Path) -> None:
    from lmconv.judging import guard as guards

    made = artifacts.read(small / "onnx-fp32")
    for cpu, judged in (("x86", "x86_64"), ("arm", "aarch64")):
        for_cpu = replace(made, recipe=made.recipe | {"quantisation": {"cpu": cpu}})
        reason = guards._elsewhere(for_cpu)
        assert (reason == "") == (platform.machine() == judged)
    assert guards._elsewhere(made) == ""


# Size


def test_fp16_is_judged_by_its_size(cli: Cli, tiny: Path, passes: Json) -> None:
    passes["dead"] = same
    assert cli("export", tiny, "--precision", "fp16").code == 0
    recorded = guard("build/tiny/onnx-fp16")
    assert recorded["size"]["verdict"] == "passed"
    assert recorded["size"]["bytes"][0] < recorded["size"]["bytes"][1]
    assert recorded["speed"]["verdict"] == "not judged here"


def test_fp16_that_is_not_smaller_is_refused(cli: Cli, tiny: Path, passes: Json) -> None:
    passes["float16"] = burden
    cli("export", tiny, "--precision", "fp16").refused(1, "bytes, not fewer than the", "of fp32")
    assert Path("build/tiny/onnx-fp32").exists()


# Budget


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_an_artefact_outside_its_budget_is_refused(
    cli: Cli, tiny: Path, passes: Json, faces: Path, target: str
) -> None:
    passes["int8"] = shift
    options = ("--to", target, "--precision", "int8", "--calibration", faces)
    cli("export", tiny, *options).refused(1, f"tiny as {target} int8 is outside its budget", "allowed")
    ran = cli("export", tiny, *options, "--budget-ion", "100", "--budget-drift", "100")
    assert ran.code == 0, ran.err
    recorded = guard(f"build/tiny/{target}-int8")["budget"]
    assert recorded["verdict"] == "within"
    assert recorded["allowed"] == {"ion": 100, "drift": 100, "strict": False}
    assert recorded["loss"]["drift"]["mean"] > 0.4


def test_a_refusal_names_every_reason(cli: Cli, tiny: Path, passes: Json, faces: Path) -> None:
    passes["int8"] = lambda model: shift(burden(model))
    ran = cli("export", tiny, "--precision", "int8", "--calibration", faces)
    ran.refused(1, "is outside its budget", "takes", "times as long as fp32")


def test_too_few_faces_are_reported_without_a_refusal(cli: Cli, tiny: Path, passes: Json, tmp_path: Path) -> None:
    passes["int8"] = shift
    for index in range(6):  # a move to the right improves every second face and worsens the other faces
        points = face(20, 10, 60, 50)
        points[2:, 0] = 55 if index % 2 else 25
        points[36], points[45] = (30, 30), (50, 30)
        add_face(tmp_path / "others" / "afw", f"t{index}", points, seed=index)
    options = ("--precision", "int8", "--calibration", tmp_path / "others")
    ran = cli("export", tiny, *options, "--budget-ion", "0.5", "--budget-drift", "100")
    assert ran.code == 0, ran.err
    assert "not enough faces to judge it" in ran.err
    assert guard("build/tiny/onnx-int8")["budget"]["verdict"] == "too few faces"


def test_the_number_of_judged_faces_and_of_calibration_faces_is_recorded(
    cli: Cli, tiny: Path, passes: Json, faces: Path
) -> None:
    passes["int8"] = same
    for precision, seen in (("int8", 6), ("fp32", 0)):
        assert cli("export", tiny, "--precision", precision, "--calibration", faces).code == 0
        recorded = guard(f"build/tiny/onnx-{precision}")["budget"]["faces"]
        assert (recorded["n"], recorded["pictures"], recorded["calibrated"]) == (6, 6, seen)


def test_held_out_faces_are_judged_alone_if_there_are_enough(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmconv.faces import calibration
    from lmconv.sources import resolve as source

    (faces / "tiny.onnx").write_bytes(tiny_onnx().SerializeToString())
    spec = source.resolve(str(faces / "tiny.onnx")).spec
    monkeypatch.setattr(calibration, "MIN_HELD_OUT_FACES", 2)
    used = calibration.calibration_pictures(faces, spec, count=4)
    held_out = calibration.evaluation_crops(faces, spec, count=4)
    assert (len(used), len(held_out.images)) == (4, 2)
    assert set(used).isdisjoint(held_out.pictures())
    assert len(calibration.evaluation_crops(faces, spec, count=5).images) == 6, "one is not enough"


def test_a_budget_without_faces_is_not_judged(cli: Cli, tiny: Path) -> None:
    assert cli("export", tiny).code == 0
    reason = "no annotated faces were given"
    assert guard("build/tiny/onnx-fp32")["budget"] == {"verdict": "not judged", "reason": reason}


def test_faces_with_another_number_of_points_calibrate_and_judge_the_drift_alone(
    cli: Cli, tmp_path: Path, faces: Path
) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(tiny_onnx(points=70).SerializeToString())
    options = ("--precision", "int8", "--calibration", faces)

    ran = cli("export", path, *options)
    assert ran.code == 0, ran.err
    assert "finds 70 points" in ran.err
    assert "they calibrate, and ION is not judged" in ran.err
    budget = guard("build/x/onnx-int8")["budget"]
    assert budget["reason"] == "drift only: the network finds 70 points, the faces have 68"
    assert (budget["verdict"], "loss" in budget) == ("within", False)
    assert 0 < budget["drift"]["mean"] < 0.4
    assert (
        f"drift {budget['drift']['mean']:.3f} on {budget['faces']['n']} faces"
        in cli("inspect", "build/x/onnx-int8").out
    )
    cli("export", path, *options, "--budget-drift", "1e-3").refused(1, "is outside its budget: drift")


# Force, and no guard


def test_force_writes_a_refused_artefact_and_every_command_reports_the_refusal(
    cli: Cli, tiny: Path, passes: Json, faces: Path
) -> None:
    passes["int8"] = burden
    ran = cli("export", tiny, "--precision", "int8", "--calibration", faces, "--force", "--json")
    assert ran.code == 0, ran.err
    assert "written by --force although it takes" in ran.err
    path = "build/tiny/onnx-int8"
    recorded = guard(path)
    assert recorded["forced"] is True
    assert "times as long as fp32" in recorded["reason"]
    said = "written by --force although it takes"
    assert said in cli("verify", path, "--weights", tiny).err
    assert said in cli("bench", path, "--samples", "64").err
    assert said in cli("report", "build").out
    assert "written despite the refusal (--force)" in cli("inspect", path).out


def test_force_does_not_mark_an_artefact_that_passes(cli: Cli, tiny: Path) -> None:
    assert cli("export", tiny, "--force").code == 0
    assert "forced" not in guard("build/tiny/onnx-fp32")


def test_no_guard_judges_nothing_and_is_recorded(cli: Cli, tiny: Path, passes: Json, faces: Path) -> None:
    passes["int8"] = lambda model: shift(burden(model))
    assert cli("export", tiny, "--precision", "int8", "--calibration", faces, "--no-guard").code == 0
    assert guard("build/tiny/onnx-int8") == {"skipped": "--no-guard"}
    assert "not judged: --no-guard" in cli("inspect", "build/tiny/onnx-int8").out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--force", "--no-guard"), "omit one of the two"),
        (("--budget-ion", "0.1"), "real faces"),
        (("--budget-drift", "0.1", "--no-guard", "--calibration", "faces"), "contradict"),
        (("--budget-ion", "-1"), "--budget-ion"),
    ],
)
def test_contradictory_options_are_refused_before_any_work(
    cli: Cli, tiny: Path, faces: Path, options: tuple[str, ...], said: str
) -> None:
    given = [str(faces) if part == "faces" else part for part in options]
    cli("export", tiny, *given).refused(2, said)
    assert not Path("build").exists()


# Faces of the calibration


def test_the_recipe_of_int8_lists_the_calibration_pictures(cli: Cli, tiny: Path, faces: Path) -> None:
    from lmconv.store.files import sha256

    options = ("--precision", "int8", "--calibration", faces, "--no-guard")
    assert cli("export", tiny, *options, "--precision", "fp32").code == 0
    used = sorted(sha256(path)[:16] for path in (faces / "afw").glob("*.png"))
    assert artifacts.read(Path("build/tiny/onnx-int8")).recipe["faces"] == used
    assert "faces" not in artifacts.read(Path("build/tiny/onnx-fp32")).recipe
    digest = artifacts.read(Path("build/tiny/onnx-int8")).digest
    assert cli("export", tiny, *options).code == 0
    assert artifacts.read(Path("build/tiny/onnx-int8")).digest == digest


def test_verify_refuses_the_calibration_faces(cli: Cli, tiny: Path, faces: Path) -> None:
    options = ("--precision", "int8", "--precision", "fp32", "--calibration", faces, "--no-guard")
    assert cli("export", tiny, *options).code == 0
    paths = ("build/tiny/onnx-int8", "build/tiny/onnx-fp32")
    ran = cli("verify", *paths, "--data", faces, "--split", "all", "--weights", tiny, "--json")
    ran.refused(4, "build/tiny/onnx-int8 was calibrated on 6 of the 8 pictures", "--split")
    assert [row["path"] for row in ran.document["artifacts"]] == ["build/tiny/onnx-fp32"]
    ran = cli("verify", *paths, "--data", faces, "--weights", tiny, "--json")
    assert ran.code in (0, 1)
    assert len(ran.document["artifacts"]) == 2


def test_verify_recognises_a_calibration_picture_under_another_name(cli: Cli, tiny: Path, faces: Path) -> None:
    assert cli("export", tiny, "--precision", "int8", "--calibration", faces, "--no-guard").code == 0
    for ending in (".png", ".pts"):
        (faces / "ibug" / f"copied{ending}").write_bytes((faces / "afw" / f"t0{ending}").read_bytes())
    cli("verify", "build/tiny/onnx-int8", "--data", faces).refused(4, "calibrated on 1 of the 3 pictures")
