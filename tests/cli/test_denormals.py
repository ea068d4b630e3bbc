"""No artefact holds a denormal number, whatever its target and precision; the plain graph is as published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from onnx import numpy_helper
from tests.helpers import Cli, add_face, face, tiny_onnx

from lmconv.graph.denormals import count, is_denormal
from lmconv.store import artifact as artifacts
from lmconv.types import Artifact

PRECISIONS = [word for precision in ("fp32", "fp16", "bf16", "int8") for word in ("--precision", precision)]
PLANTED = 5 * 8 * 8 + 2 * 68


def held(artifact: Artifact) -> int:
    """Counts the denormal numbers, float16 ones excepted, in the model file of an artefact."""
    if artifact.target == "onnx":
        return count(onnx.load(artifact.path / "model.onnx"))
    constants = [op for op in openvino.Core().read_model(artifact.path / "model.xml").get_ops() if hasattr(op, "data")]
    return sum(
        int(is_denormal(np.array(op.data)).sum()) for op in constants if op.data.dtype in (np.float32, np.float64)
    )


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """An ONNX file with denormal numbers in five filters of the convolution and in a column of the last layer."""
    model = tiny_onnx(dead=1)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name == "conv.weight":
            values[3:, 1] = np.float32(1e-40)
        if tensor.name == "fc.weight":
            values[:, 70] = np.float32(-1e-42)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    assert count(model) == PLANTED
    path = tmp_path / "planted.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.slow
def test_no_artefact_of_a_network_with_denormal_weights_holds_one(cli: Cli, planted: Path, tmp_path: Path) -> None:
    for index in range(4):
        add_face(tmp_path / "faces", f"face{index}", face(10, 10, 50, 50), seed=index)
    arguments = ("--to", "onnx", "--to", "openvino", *PRECISIONS, "--calibration", tmp_path / "faces", "--no-guard")
    ran = cli("export", planted, *arguments, "--json")
    assert ran.code == 0, ran.err
    made = [artifacts.read(Path(row["path"])) for row in ran.document["artifacts"]]
    assert len(made) == 7, ran.err
    assert {artifact.path.name: held(artifact) for artifact in made} == {artifact.path.name: 0 for artifact in made}
    assert held(artifacts.read(Path("build/planted/plain"))) == PLANTED


def test_inspect_and_explain_count_the_denormal_numbers(cli: Cli, planted: Path) -> None:
    assert f"denormals  {PLANTED} weights" in cli("inspect", planted).out
    explained = cli("export", planted, "--explain").out
    words = f"{PLANTED} of {PLANTED} denormal numbers"
    assert words in next(line for line in explained.splitlines() if line.startswith("denormals"))
    shown = cli("inspect", "build/planted/onnx-fp32").out
    assert f"denormals  {PLANTED} weights of the source" in shown
    assert f"zero       {words}" in shown


def test_no_denormals_leaves_the_numbers_as_they_are(cli: Cli, planted: Path) -> None:
    assert cli("export", planted, "--no-denormals", "--no-compact").code == 0
    assert held(artifacts.read(Path("build/planted/onnx-fp32"))) == PLANTED


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("model", ["pfld", "mobilefacenet"])
def test_no_artefact_of_a_trained_network_holds_a_denormal_number(trained_build: Path, model: str) -> None:
    counts = {path.name: held(artifacts.read(path)) for path in sorted((trained_build / model).glob("[!.]*"))}
    plain = {"pfld": 249_547, "mobilefacenet": 5_244}[model]
    assert counts == {"onnx-fp32": 0, "openvino-fp32": 0, "plain": plain}
