"""Errors of all commands: one line, the right exit code, one JSON document."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.helpers import Cli, contents, python, tiny_onnx

from lmconv.console import Console, Outcome, attempt
from lmconv.errors import Bug, GateFailed, InputError, LmconvError, MissingRuntime, UsageError, worst
from lmconv.plugins import TARGETS
from lmconv.store import artifact as artifacts

# Exit codes


@pytest.mark.parametrize(
    ("kind", "code"), [(GateFailed, 1), (UsageError, 2), (MissingRuntime, 3), (InputError, 4), (Bug, 70)]
)
def test_every_error_has_its_exit_code(kind: type[LmconvError], code: int) -> None:
    error = kind("what", hint="do this")
    assert str(error) == "what (do this)"
    assert error.to_json() == {"kind": kind.kind, "message": "what", "hint": "do this", "exit_code": code}


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([], 0), ([0], 0), ([1, 0], 1), ([1, 3], 3), ([3, 4, 1], 4), ([1, 4, 70, 3], 70), ([70], 70)],
)
def test_several_outcomes_give_the_highest_ranking_exit_code(codes: list[int], expected: int) -> None:
    assert worst(codes) == expected


def test_an_error_caused_by_an_interrupt_is_an_interrupt() -> None:
    """For example an error of zipfile whose file is open at Ctrl-C."""

    def clean_up() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise ValueError("there is an open writing handle")

    errors: list[dict[str, object]] = []
    with pytest.raises(KeyboardInterrupt):
        attempt(Console(), clean_up, errors)
    assert errors == []


def test_a_failed_gate_ranks_below_every_error() -> None:
    assert Outcome(document={}, failed=True).exit_code == 1
    assert Outcome(document={}, failed=True, errors=[{"exit_code": 3}]).exit_code == 3
    assert Outcome(document={}).exit_code == 0


# Unknown names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["exprot"], "unknown command 'exprot' (did you mean export?)"),
        (["export", "pfl"], "unknown model 'pfl' (did you mean pfld?)"),
        (["export", "mobilefacenet", "mobilfacenet"], "unknown model 'mobilfacenet' (did you mean mobilefacenet?)"),
        (["export", "pfld", "--to", "openvin"], "unknown target 'openvin' (did you mean openvino?)"),
        (["export", "pfld", "--precision", "fp61"], "unknown precision 'fp61' (did you mean fp16?)"),
        (["weights", "add", "x.pth", "--model", "pfdl"], "unknown model 'pfdl' (did you mean pfld?)"),
    ],
)
def test_an_unknown_name_is_refused_with_a_suggestion(cli: Cli, arguments: list[str], message: str) -> None:
    cli(*arguments).refused(2, message)


def test_a_name_without_a_similar_name_lists_the_known_names(cli: Cli) -> None:
    cli("export", "zzzzzz").refused(2, "unknown model 'zzzzzz'", "mobilefacenet", "pfld")


@pytest.mark.parametrize(
    "arguments",
    [
        ["export"],
        ["export", "pfld", "--batch", "0"],
        ["export", "pfld", "--batch", "many"],
        ["export", "pfld", "--batch", "-1"],
        ["export", "pfld", "--nonsense"],
        ["export", "pfld", "--output-slice", "5"],
        ["export", "pfld", "--preprocess", "CMYK"],
        ["export", "pfld", "--preprocess", "BGR,1/0"],
        ["export", "pfld", "--preprocess", "BGR,1,2,0"],
        ["export", "pfld", "--preprocess", "BGR,1,1:2,1"],
        ["export", "pfld", "--preprocess", "BGR,1,1,1,1"],
        ["export", "pfld", "--preprocess", "BGR,1e300"],
        ["export", "pfld", "--preprocess", "BGR,1e-60"],
        ["export", "pfld", "--preprocess", "BGR,1,1e400"],
        ["export", "pfld", "--preprocess", "BGR,1,nan"],
        ["export", "pfld", "--preprocess", "BGR,1,1,inf"],
        ["export", "pfld", "--preprocess", "BGR,1e999999999"],
        ["export", "pfld", "--batch", "99999999999999999999"],
        ["export", "pfld", "--random-weights", "--seed", "99999999999999999999"],
        ["export", "pfld", "--compact-px", "nan", "--calibration", "faces"],
        ["export", "pfld", "--compact-px", "inf", "--calibration", "faces"],
        ["export", "pfld", "--compact-px", "0", "--calibration", "faces"],
        ["export", "hourglass2", "--random-weights", "--decode", "soft-argmax:1e300"],
        ["export", "pfld", "--split", "tset"],
        ["verify"],
        ["verify", "x", "--max-abs", "little"],
        *(["verify", "x", f"--max-{name}", "nan"] for name in ("abs", "px", "mean-px", "map", "ion-loss", "drift")),
        *(["verify", "x", f"--max-{name}", "-1"] for name in ("abs", "px", "mean-px", "map", "drift")),
        ["verify", "x", "--max-px", "inf"],
        ["bench", "--threads", "0"],
        ["bench", "--device", "tpu"],
        ["bench", "--samples", "10"],
        ["inspect"],
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_wrong_usage_is_refused_before_any_work(cli: Cli, weights: Path, arguments: list[str]) -> None:
    cli(*arguments).refused(2)
    assert list(Path().iterdir()) == []


def test_a_precision_that_no_target_has_is_refused(cli: Cli) -> None:
    cli("export", "pfld", "--precision", "bf16").refused(2, "onnx cannot be built in bf16")


def test_int8_without_faces_is_refused_before_any_work(cli: Cli, tiny: Path) -> None:
    ran = cli("export", tiny, "--precision", "int8", "--precision", "fp32")
    ran.refused(2, "--calibration", "int8 is calibrated on real faces")
    assert list(Path().iterdir()) == []


def test_int8_with_a_folder_without_faces_is_refused_before_any_work(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = cli("export", tiny, "--precision", "int8", "--calibration", tmp_path / "empty", "--out", "out")
    ran.refused(4, "no annotated faces")
    assert not Path("out").exists()


def test_one_checkpoint_for_two_models_is_refused(cli: Cli, weights: Path) -> None:
    file = weights / "pfld_model_best.pth.tar"
    cli("export", "pfld", "mobilefacenet", "--weights", file).refused(2, "checkpoint of 2 models")


# JSON


@pytest.mark.parametrize(
    ("arguments", "kind", "code"),
    [
        (["export", "pfl", "--json"], "usage", 2),
        (["exprot", "--json"], "usage", 2),
        (["export", "--json", "--nonsense"], "usage", 2),
        (["inspect", "nothing", "--json"], "input", 4),
        (["bench", "--json"], "input", 4),
        (["weights", "add", "gone.pth", "--json"], "input", 4),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_an_error_is_one_json_document_on_standard_output(cli: Cli, arguments: list[str], kind: str, code: int) -> None:
    ran = cli(*arguments)
    ran.refused(code)
    assert set(ran.document) == {"error"}
    assert set(ran.document["error"]) == {"kind", "message", "hint", "exit_code"}
    assert (ran.document["error"]["kind"], ran.document["error"]["exit_code"]) == (kind, code)
    assert ran.document["error"]["message"] in ran.err


def test_without_json_an_error_leaves_standard_output_empty(cli: Cli) -> None:
    assert cli("inspect", "nothing").out == ""


def test_quiet_does_not_silence_an_error(cli: Cli, small: Path) -> None:
    cli("verify", small / "nothing", "--quiet").refused(4, "is not an artefact")


# Several items


def test_all_artefacts_are_tried_and_the_highest_ranking_code_is_returned(cli: Cli, small: Path, tiny: Path) -> None:
    (small / "openvino-fp32" / "model.bin").write_bytes(b"")
    paths = [small / "nothing", small / "onnx-fp32", small / "openvino-fp32"]
    ran = cli("verify", *paths, "--weights", tiny, "--max-abs", "0", "--json")
    assert ran.code == 4
    assert [row["path"] for row in ran.document["artifacts"]] == [str(small / "onnx-fp32")]
    assert [error["path"] for error in ran.document["errors"]] == [str(paths[0]), str(paths[2])]
    assert {error["exit_code"] for error in ran.document["errors"]} == {4}
    assert len([line for line in ran.err.splitlines() if line.startswith("error: ")]) == 2


def test_bench_continues_after_a_broken_artefact(cli: Cli, small: Path) -> None:
    ran = cli("bench", small / "nothing", small / "onnx-fp32", "--samples", "64", "--json")
    assert ran.code == 4
    assert [row["path"] for row in ran.document["rows"]] == [str(small / "onnx-fp32")]
    assert len(ran.document["errors"]) == 1


@pytest.mark.slow
def test_export_continues_after_a_broken_model(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"broken")
    ran = cli("export", tmp_path / "broken.onnx", tiny, "--out", "out", "--json")
    assert ran.code == 4
    assert [row["model"] for row in ran.document["artifacts"]] == ["tiny"]
    assert [error["model"] for error in ran.document["errors"]] == [str(tmp_path / "broken.onnx")]


def test_a_bug_ranks_highest_and_the_other_artefacts_are_tried(
    cli: Cli, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmconv.store import artifact as artifacts

    read = artifacts.read

    def broken(path: Path) -> object:
        if path.name == "onnx-fp32":
            raise ZeroDivisionError("our mistake")
        return read(path)

    monkeypatch.setattr(artifacts, "read", broken)
    ran = cli("verify", small / "onnx-fp32", small / "nothing", small / "openvino-fp32", "--json")
    assert ran.code == 70
    assert sorted(error["exit_code"] for error in ran.document["errors"]) == [4, 70]
    assert [row["path"] for row in ran.document["artifacts"]] == [str(small / "openvino-fp32")]


# A missing runtime

TENSORRT = TARGETS.load("tensorrt").requires()


@pytest.mark.skipif(TENSORRT is None, reason="TensorRT and a GPU are here")
def test_a_missing_runtime_ends_with_exit_code_3_and_other_targets_are_built(cli: Cli, tiny: Path) -> None:
    ran = cli("export", tiny, "--to", "tensorrt", "--to", "onnx", "--to", "openvino", "--json")
    ran.refused(3, "tensorrt", str(TENSORRT))
    assert [row["target"] for row in ran.document["artifacts"]] == ["onnx", "openvino"]
    assert [error["target"] for error in ran.document["errors"]] == ["tensorrt"]
    assert sorted(path.name for path in Path("build/tiny").glob("[a-z]*")) == ["onnx-fp32", "openvino-fp32", "plain"]


@pytest.mark.skipif(TENSORRT is None, reason="TensorRT and a GPU are here")
def test_a_missing_runtime_as_only_target_writes_nothing(cli: Cli, tiny: Path) -> None:
    cli("export", tiny, "--to", "tensorrt").refused(3, "tensorrt")
    assert list(Path().iterdir()) == []


@pytest.mark.skipif(TENSORRT is None, reason="TensorRT and a GPU are here")
def test_an_artefact_of_a_missing_runtime_ends_with_exit_code_3_and_others_are_verified(
    cli: Cli, small: Path, tiny: Path
) -> None:
    from lmconv.store import artifact as artifacts

    engine = small / "tensorrt-fp32"
    (small / "onnx-fp32").rename(engine)
    (engine / "model.onnx").rename(engine / "model.engine")
    document = json.loads((engine / "manifest.json").read_text(encoding="utf-8"))
    artifacts.write(engine, document | {"target": "tensorrt", "machine": {"gpu": "other"}})
    ran = cli("verify", engine, small / "openvino-fp32", "--weights", tiny, "--trust", "--json")
    ran.refused(3, "tensorrt")
    assert [row["passed"] for row in ran.document["artifacts"]] == [True]


# Bugs

BUG = """
import sys
import lmconv.sources.checkpoints
from lmconv.cli import run
def broken():
    raise ZeroDivisionError("our mistake")
lmconv.sources.checkpoints.known = broken
sys.exit(run(sys.argv[1:]))
"""


def test_a_bug_ends_with_exit_code_70_and_asks_for_a_report() -> None:
    ran = python(BUG, "weights", "list", "--json")
    ran.refused(70, "ZeroDivisionError: our mistake", "please report")
    assert ran.document["error"]["kind"] == "bug"
    assert ran.document["error"]["exit_code"] == 70


@pytest.mark.parametrize("option", ["-v", "--verbose"])
def test_a_bug_shows_its_traceback_with_verbose(option: str) -> None:
    ran = python(BUG, "weights", "list", option)
    assert ran.code == 70
    assert "Traceback (most recent call last)" in ran.err
    assert "in broken" in ran.err


def test_a_closed_standard_output_is_no_bug() -> None:
    code = """
import os, subprocess, sys
read, write = os.pipe()
os.close(read)
line = [sys.executable, "-c", "from lmconv.cli import main; main()", "weights", "list"]
process = subprocess.run(line, stdout=write, stderr=subprocess.PIPE, text=True)
print(process.returncode, "Traceback" in process.stderr, "bug" in process.stderr)
"""
    assert python(code).out.split()[1:] == ["False", "False"]


# Broken sources


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<html>Not found</html>", "is a web page"),
        (b"PK\x03\x04" + bytes(64), "truncated or not a checkpoint"),
        (b"\x80\x04\x95cos\nsystem\n", "c"),
    ],
    ids=["empty", "html", "truncated", "code"],
)
def test_a_broken_checkpoint_is_refused_and_nothing_is_written(
    cli: Cli, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    cli("export", "pfld", "--weights", tmp_path / "x.pth").refused(4, "x.pth", message)
    assert contents(Path("build")) == {}


class Attack:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickled_code_is_refused_in_one_line_and_not_run(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(pickle.dumps(Attack(tmp_path / "was_here")))
    ran = cli("export", "pfld", "--weights", tmp_path / "x.pth")
    ran.refused(4, "x.pth")
    assert not (tmp_path / "was_here").exists()
    assert ran.err.count("\n") == 1


def test_weights_of_another_network_are_refused_with_its_name(cli: Cli, weights: Path) -> None:
    file = weights / "mobilefacenet_model_best.pth.tar"
    cli("export", "pfld", "--weights", file).refused(4, "these are the weights of mobilefacenet")


def test_a_missing_checkpoint_is_refused_with_its_file_name(cli: Cli) -> None:
    cli("export", "pfld").refused(4, "no checkpoint of pfld", "pfld_model_best.pth.tar")


def test_a_network_for_a_fixed_batch_only_is_refused_in_one_line(cli: Cli, tmp_path: Path) -> None:
    model = tiny_onnx()
    model.graph.node[2].op_type = "Reshape"
    model.graph.node[2].input.append("shape")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 128], np.int64), "shape"))
    (tmp_path / "fixed.onnx").write_bytes(model.SerializeToString())
    ran = cli("export", tmp_path / "fixed.onnx", "--batch", "4")
    assert ran.code in (2, 4)
    assert ran.err.count("\n") == 1


def custom_operator() -> onnx.ModelProto:
    model = tiny_onnx()
    model.graph.node[1].domain = "someone.else"
    model.opset_import.append(onnx.helper.make_opsetid("someone.else", 1))
    return model


def double_input() -> onnx.ModelProto:
    model = tiny_onnx()
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    return model


def fixed_at_two() -> onnx.ModelProto:
    model = tiny_onnx()
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    return model


@pytest.mark.parametrize("make", [custom_operator, double_input])
def test_an_onnx_file_that_cannot_be_run_is_refused(
    cli: Cli, tmp_path: Path, make: Callable[[], onnx.ModelProto]
) -> None:
    (tmp_path / "strange.onnx").write_bytes(make().SerializeToString())
    cli("export", tmp_path / "strange.onnx").refused(4, "strange.onnx")
    assert contents(Path("build")) == {}


def test_an_onnx_file_with_a_fixed_batch_is_converted_or_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "two.onnx").write_bytes(fixed_at_two().SerializeToString())
    assert cli("export", tmp_path / "two.onnx").code in (0, 4)


def test_two_sources_for_one_folder_are_refused_before_any_work(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "tiny.onnx"
    other.parent.mkdir()
    other.write_bytes(tiny_onnx(seed=1).SerializeToString())
    cli("export", tiny, other).refused(2, "tiny")


def test_an_option_for_onnx_files_is_refused_for_a_backbone(cli: Cli, weights: Path) -> None:
    cli("export", "pfld", "--output-slice", "0:100000").refused(2, "--output-slice")


def pickled(folder: Path) -> None:
    np.savez(folder / "reference.npz", input=np.array([{}], object), landmarks=np.zeros(1))


@pytest.mark.parametrize(
    ("target", "damage", "name"),
    [
        ("onnx", lambda folder: (folder / "model.onnx").write_bytes(b"\x08\x0a"), "model.onnx"),
        ("openvino", lambda folder: (folder / "model.xml").write_text("<net>"), "model.xml"),
        ("onnx", lambda folder: (folder / "model.onnx").unlink(), "model.onnx"),
        ("onnx", pickled, "reference.npz"),
        ("onnx", lambda folder: (folder / "reference.npz").write_bytes(b"PK"), "reference.npz"),
        ("onnx", lambda folder: (folder / "reference.npz").unlink(), "reference.npz"),
    ],
)
def test_a_damaged_file_with_a_matching_manifest_is_refused(
    cli: Cli, small: Path, target: str, damage: Callable[[Path], object], name: str
) -> None:
    folder = small / f"{target}-fp32"
    damage(folder)
    document = json.loads((folder / "manifest.json").read_text())
    artifacts.write(folder, document)
    cli("verify", folder).refused(4, name)


def test_a_manifest_that_names_a_file_elsewhere_is_refused(cli: Cli, small: Path) -> None:
    folder = small / "onnx-fp32"
    document = json.loads((folder / "manifest.json").read_text())
    document["files"]["../plain/model.onnx"] = document["files"]["model.onnx"]
    (folder / "manifest.json").write_text(artifacts._sealed(document))
    cli("verify", folder).refused(4, "outside the artefact")


def test_more_threads_than_cores_are_refused(cli: Cli, small: Path) -> None:
    cli("bench", small / "onnx-fp32", "--threads", "999").refused(2, "--threads 999")
