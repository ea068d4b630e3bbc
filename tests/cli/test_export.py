from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from tests.helpers import Cli, python, strays

from lmconv.store import artifact as artifacts

KEYS = {"path", "model", "target", "precision", "execution", "bytes", "parameters", "flops", "seconds"}


def test_each_combination_is_written_to_its_own_folder(cli: Cli, tiny: Path) -> None:
    ran = cli("export", tiny, "--to", "onnx", "--to", "openvino", "--precision", "fp32", "--precision", "bf16")
    assert ran.code == 0, ran.err
    folders = sorted(path.name for path in Path("build/tiny").iterdir() if not path.name.startswith("."))
    assert folders == ["onnx-fp32", "openvino-bf16", "openvino-fp32", "plain"]
    assert strays(Path("build")) == []


def test_json_has_the_documented_keys(cli: Cli, tiny: Path) -> None:
    ran = cli("export", tiny, "--to", "openvino", "--out", "out", "--json")
    assert ran.code == 0
    assert {"artifacts", "errors"} <= set(ran.document)
    (row,) = ran.document["artifacts"]
    assert set(row) >= KEYS
    assert (row["path"], row["model"], row["target"]) == ("out/tiny/openvino-fp32", "tiny", "openvino")
    files = [Path(row["path"]) / name for name in ("model.xml", "model.bin")]
    assert row["bytes"] == sum(path.stat().st_size for path in files)


def test_a_combination_that_a_target_lacks_is_left_out_with_a_note(cli: Cli, tiny: Path) -> None:
    ran = cli("export", tiny, "--to", "onnx", "--to", "openvino", "--precision", "bf16", "--json")
    assert ran.code == 0
    assert [row["target"] for row in ran.document["artifacts"]] == ["openvino"]
    assert "onnx bf16" in ran.err


def test_a_repeated_option_counts_once(cli: Cli, tiny: Path) -> None:
    ran = cli("export", tiny, "--to", "onnx", "--to", "onnx", "--precision", "fp32", "--precision", "fp32", "--json")
    assert len(ran.document["artifacts"]) == 1


def test_a_fixed_batch_is_in_the_model(cli: Cli, tiny: Path) -> None:
    assert cli("export", tiny, "--batch", "4").code == 0
    assert artifacts.read(Path("build/tiny/onnx-fp32")).spec.batch == 4
    model = onnx.load("build/tiny/onnx-fp32/model.onnx")
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4


def test_the_preprocessing_option_is_in_the_spec(cli: Cli, tiny: Path) -> None:
    assert cli("export", tiny, "--preprocess", "RGB,1/255,0.485:0.456:0.406,0.229:0.224:0.225").code == 0
    preprocess = artifacts.read(Path("build/tiny/onnx-fp32")).spec.preprocess
    assert preprocess.colour == "RGB"
    assert preprocess.scale == pytest.approx(1 / 255)
    assert preprocess.mean == (0.485, 0.456, 0.406)
    assert preprocess.std == (0.229, 0.224, 0.225)


def test_a_second_export_gives_the_same_document_and_digest(cli: Cli, tiny: Path) -> None:
    first = cli("export", tiny, "--json").document
    digest = artifacts.read(Path("build/tiny/onnx-fp32")).digest
    second = cli("export", tiny, "--json").document
    for row in (*first["artifacts"], *second["artifacts"]):
        del row["seconds"]
    assert first == second
    assert artifacts.read(Path("build/tiny/onnx-fp32")).digest == digest


def test_only_the_document_is_on_standard_output(cli: Cli, tiny: Path) -> None:
    assert cli("export", tiny, "--json").document["errors"] == []


def test_quiet_prints_only_the_result(cli: Cli, tiny: Path) -> None:
    ran = cli("export", tiny, "--to", "onnx", "--to", "openvino", "--precision", "bf16", "--quiet")
    assert ran.code == 0
    assert ran.err == ""
    assert "build/tiny/openvino-bf16" in ran.out


@pytest.mark.slow
def test_a_checkpoint_is_exported_for_both_targets(cli: Cli, weights: Path) -> None:
    ran = cli("export", "pfld", "--to", "onnx", "--to", "openvino", "--json")
    assert ran.code == 0, ran.err
    assert ran.err == ""
    assert [row["target"] for row in ran.document["artifacts"]] == ["onnx", "openvino"]
    assert cli("verify", "build/pfld/onnx-fp32", "build/pfld/openvino-fp32").code == 0


def test_an_onnx_file_is_converted_without_pytorch(tiny: Path, tmp_path: Path) -> None:
    code = """
import sys
from lmconv.cli import run
run(["export", sys.argv[1], "--out", sys.argv[2], "--no-guard", "--no-compact", "--quiet"])
print([name for name in ("torch", "openvino", "cv2") if name in sys.modules], file=sys.stderr)
"""
    assert python(code, str(tiny), str(tmp_path)).err.strip() == "[]"
