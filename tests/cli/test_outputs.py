"""Networks with several outputs, other units, three coordinates and SimCC, from the command to the artefact."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tests.helpers import Cli

from lmconv.store import artifact as artifacts

Shape: TypeAlias = list[int | str]
SIDE = 16
TARGETS = ("--to", "onnx", "--to", "openvino")


def file(path: Path, **outputs: tuple[Shape, float, float]) -> Path:
    """Writes a network: `data` (N, 3, 16, 16) to outputs of a shape, with values from low to high about the middle."""
    random, nodes, tensors = np.random.default_rng(0), [], []
    for name, (shape, low, high) in outputs.items():
        count = math.prod(size for size in shape if isinstance(size, int))
        weight = random.normal(size=(3 * SIDE * SIDE, count)).astype(np.float32) * (high - low) / 200
        tensors += [
            numpy_helper.from_array(weight, f"{name}.weight"),
            numpy_helper.from_array(random.uniform(low, high, count).astype(np.float32), f"{name}.bias"),
            numpy_helper.from_array(np.array([-1 if size == "N" else size for size in shape]), f"{name}.shape"),
        ]
        nodes += [
            helper.make_node("Gemm", ["flat", f"{name}.weight", f"{name}.bias"], [f"{name}.flat"]),
            helper.make_node("Reshape", [f"{name}.flat", f"{name}.shape"], [name]),
        ]
    graph = helper.make_graph(
        [
            helper.make_node("Sub", ["data", "half"], ["around"]),
            helper.make_node("Flatten", ["around"], ["flat"]),
            *nodes,
        ],
        "outputs",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, (shape, _, _) in outputs.items()],
        [numpy_helper.from_array(np.array(0.5, np.float32), "half"), *tensors],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def outputs(path: Path, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: images}), strict=True))


@pytest.fixture
def images() -> NDArray[np.float32]:
    return np.random.default_rng(1).random((3, 3, SIDE, SIDE), dtype=np.float32)


def test_the_second_output_is_taken_and_the_first_is_named(cli: Cli, images: NDArray[np.float32]) -> None:
    path = file(Path("net.onnx"), features=(["N", 8, 4, 4], 0, 3), points=(["N", 20], 0.1, 0.9))
    ran = cli("export", path)
    assert ran.code == 0, ran.err
    assert "the landmarks are in points; left out: features float32 (N, 8, 4, 4)" in ran.err
    artefact = Path("build/net/onnx-fp32")
    actual = outputs(artefact / "model.onnx", images)
    assert list(actual) == ["landmarks"]
    np.testing.assert_allclose(actual["landmarks"].reshape(3, 20), outputs(path, images)["points"], atol=1e-5)
    assert "left out: features float32" in cli("inspect", artefact).out
    assert cli("verify", artefact, "--weights", path).code == 0


def test_outputs_that_can_be_points_are_asked_for(cli: Cli) -> None:
    path = file(Path("net.onnx"), score=(["N", 8, 1, 1], 0, 1), y=(["N", 20], 0.1, 0.9))
    cli("export", path).refused(2, "score float32 (N, 8, 1, 1)", "y float32 (N, 20)", "--output score or --output y")
    assert cli("export", path, "--output", "y").code == 0


def test_pixels_are_found_by_the_range_and_converted_for_frames(cli: Cli, images: NDArray[np.float32]) -> None:
    path = file(Path("net.onnx"), y=(["N", 20], 3, 13))
    ran = cli("export", path, *TARGETS, "--io", "tensor", "--io", "image", "--io", "frame")
    assert ran.code == 0, ran.err
    assert "the unit of the landmarks is pixels: x and y are" in ran.err
    built = {folder.name: folder for folder in Path("build/net").glob("*-fp32*")}
    assert len(built) == 6
    tensor = outputs(built["onnx-fp32"] / "model.onnx", images)["landmarks"]
    np.testing.assert_allclose(tensor.reshape(3, 20), outputs(path, images)["y"], atol=1e-4)
    assert artifacts.read(built["onnx-fp32"]).spec.decode == "pixels"
    verified = cli("verify", *built.values(), "--weights", path, "--json")
    assert verified.code == 0, verified.err


def test_coordinates_from_minus_one_to_one_are_converted_for_crops_and_frames(cli: Cli) -> None:
    path = file(Path("net.onnx"), y=(["N", 20], -0.9, 0.9))
    ran = cli("export", path, "--unit", "[-1,1]", "--io", "image", "--io", "frame", "--io", "tensor")
    assert ran.code == 0, ran.err
    crops = np.random.default_rng(2).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    tensor = crops.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    pixels = outputs(Path("build/net/onnx-fp32-image/model.onnx"), crops)["landmarks"]
    expected = (outputs(path, tensor)["y"].reshape(2, 10, 2) + 1) / 2 * SIDE
    np.testing.assert_allclose(pixels, expected, atol=1e-4)
    verified = cli("verify", "build/net/onnx-fp32-image", "build/net/onnx-fp32-frame", "--weights", path)
    assert verified.code == 0, verified.err


@pytest.mark.parametrize(("axes", "count"), [("xyz", 3), pytest.param("xy", 2, marks=pytest.mark.slow)])
def test_the_third_coordinate_is_kept_or_dropped(cli: Cli, images: NDArray[np.float32], axes: str, count: int) -> None:
    path = file(Path("net.onnx"), y=(["N", 1, 1, 204], 3, 13))
    ran = cli("export", path, *TARGETS, "--coordinates", axes, "--io", "tensor", "--io", "image", "--io", "frame")
    assert ran.code == 0, ran.err
    points = outputs(Path("build/net/onnx-fp32/model.onnx"), images)["landmarks"]
    expected = outputs(path, images)["y"].reshape(3, 68, 3)[..., :count]
    np.testing.assert_allclose(points, expected, atol=1e-4)
    frames = [f"build/net/{target}-fp32-frame" for target in ("onnx", "openvino")]
    verified = cli("verify", *frames, "build/net/openvino-fp32-image", "--weights", path)
    assert verified.code == 0, verified.err


@pytest.mark.parametrize("decode", [pytest.param("simcc", marks=pytest.mark.slow), "simcc:2"])
def test_simcc_is_decoded_in_the_graph(cli: Cli, images: NDArray[np.float32], decode: str) -> None:
    path = file(Path("net.onnx"), simcc_x=(["N", 10, 32], -1, 1), simcc_y=(["N", 10, 48], -1, 1))
    cli("export", path).refused(2, "simcc_x float32 (N, 10, 32)", "--decode simcc")
    ran = cli("export", path, *TARGETS, "--decode", decode, "--precision", "fp32", "--precision", "fp16", "--no-guard")
    assert ran.code == 0, ran.err
    actual = outputs(Path("build/net/onnx-fp32/model.onnx"), images)
    vectors = outputs(path, images)
    cells = np.stack([vectors["simcc_x"].argmax(2), vectors["simcc_y"].argmax(2)], 2)
    spans = (32, 48) if decode == "simcc" else (2 * SIDE, 2 * SIDE)
    np.testing.assert_allclose(actual["landmarks"], cells / np.array(spans), atol=1e-6)
    np.testing.assert_allclose(actual["heatmaps"], np.concatenate([*vectors.values()], 2), atol=1e-5)
    verified = cli("verify", "build/net/onnx-fp32", "build/net/openvino-fp32", "--weights", path)
    assert verified.code == 0, verified.err


OWN = """
from collections import namedtuple
from dataclasses import dataclass
import torch
from torch import nn

class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 16 * 16, 20)
        self.vectors = nn.Linear(3 * 16 * 16, 10 * 24)
    def points(self, x):
        return self.fc(x.flatten(1))

@dataclass
class Result:
    score: torch.Tensor
    landmarks: torch.Tensor

class Data(Flat):
    def forward(self, x):
        return Result(score=x.mean((1, 2, 3)), landmarks=self.points(x))

class Words(Flat):
    def forward(self, x):
        return {"stages": [{"lmk": self.points(x)}], "features": x.flatten(1)[:, :20]}

class Named(Flat):
    def forward(self, x):
        return namedtuple("R", "features points")(x[:, :, ::4, ::4], self.points(x).view(-1, 10, 2))

class Pair(Flat):
    def forward(self, x):
        return self.points(x), self.points(x) * 2

class Simcc(Flat):
    def forward(self, x):
        y = self.vectors(x.flatten(1)).view(-1, 10, 24)
        return y, y.flip(2)
"""


@pytest.mark.parametrize(("name", "chosen"), [("Data", "landmarks"), ("Words", "stages.0.lmk"), ("Named", "points")])
def test_the_name_of_an_output_of_an_own_network_decides(cli: Cli, name: str, chosen: str) -> None:
    Path("own.py").write_text(OWN, encoding="utf-8")
    options = ("--input", "3x16x16", "--landmarks", "10", "--random-weights")
    ran = cli("export", f"own.py:{name}", *options)
    assert ran.code == 0, ran.err
    spec = artifacts.read(Path(f"build/own-{name}/onnx-fp32")).spec
    assert spec.chosen
    assert spec.chosen.names == (chosen,)
    assert len(spec.chosen.left_out) == 1
    verified = cli("verify", f"build/own-{name}/onnx-fp32", "--model", f"own.py:{name}", "--json")
    assert verified.code == 0, verified.err
    assert verified.document["artifacts"][0]["parity"]["against"] == "torch"


def test_two_equal_outputs_of_an_own_network_are_asked_for(cli: Cli) -> None:
    Path("own.py").write_text(OWN, encoding="utf-8")
    options = ("--input", "3x16x16", "--landmarks", "10", "--random-weights")
    cli("export", "own.py:Pair", *options).refused(2, "2 outputs that can be landmarks", "--output 0 or --output 1")
    assert cli("export", "own.py:Pair", *options, "--output", "1").code == 0


def test_a_slice_of_an_own_networks_output_holds_the_points(cli: Cli) -> None:
    Path("own.py").write_text(OWN, encoding="utf-8")
    options = ("--input", "3x16x16", "--landmarks", "5", "--random-weights", "--output", "0", "--output-slice", "2:12")
    ran = cli("export", "own.py:Pair", *options)
    assert ran.code == 0, ran.err
    assert artifacts.read(Path("build/own-Pair/onnx-fp32")).spec.landmarks == 5


def test_simcc_of_an_own_network_is_decoded(cli: Cli) -> None:
    Path("own.py").write_text(OWN, encoding="utf-8")
    options = ("--input", "3x16x16", "--landmarks", "10", "--random-weights")
    ran = cli("export", "own.py:Simcc", *options, "--decode", "simcc")
    assert ran.code == 0, ran.err
    assert artifacts.read(Path("build/own-Simcc/onnx-fp32")).spec.outputs[1].shape == ("N", 10, 48)


# inspect


def test_inspect_shows_all_outputs_of_a_file_and_the_choice(cli: Cli) -> None:
    path = file(Path("net.onnx"), features=(["N", 8, 4, 4], 0, 3), points=(["N", 20], 0.1, 0.9))
    out = cli("inspect", path).out
    for part in (
        "takes      data float32 (N, 3, 16, 16) NCHW",
        "features float32 (N, 8, 4, 4)",
        "points float32 (N, 20)",
    ):
        assert part in out
    assert "landmarks  10 points in points, unit fraction, xy" in out
    document = cli("inspect", path, "--json").document
    assert [row["name"] for row in document["outputs"]] == ["features", "points"]
    assert document["spec"]["chosen"]["names"] == ["points"]


def test_inspect_says_why_there_is_no_choice(cli: Cli) -> None:
    path = file(Path("net.onnx"), score=(["N", 8, 1, 1], 0, 1), y=(["N", 20], 0.1, 0.9))
    ran = cli("inspect", path)
    assert ran.code == 0
    assert "no choice" in ran.out
    assert "--output score or --output y" in ran.out
    assert ran.out.count("score float32") == 1


def test_inspect_shows_the_outputs_of_an_own_network(cli: Cli) -> None:
    Path("own.py").write_text(OWN, encoding="utf-8")
    out = cli("inspect", "own.py:Data", "--input", "3x16x16").out
    assert "gives      score float32 (N,)" in out
    assert "landmarks  10 points in landmarks" in out
    cli("inspect", "own.py:Data").refused(2, "own.py:Data needs --input")
    cli("inspect", "own.py").refused(2, "own.py is a file", "own.py:build")
    cli("inspect", "own.py/no").refused(4, "own.py/no is not an artefact")
    cli("blame", "own.py").refused(4, "own.py is not an artefact: it is a file")


def test_options_of_networks_are_refused_for_an_artefact(cli: Cli, tiny_build: Path) -> None:
    artefact = tiny_build / "tiny" / "onnx-fp32"
    cli("inspect", artefact, "--input", "3x8x8").refused(2, "--input is for networks")
    cli("inspect", file(Path("net.onnx"), y=(["N", 20], 0, 1)), "--layers").refused(2, "for artefacts")


def test_the_outputs_of_a_backbone_are_known(cli: Cli) -> None:
    cli("export", "pfld", "--output", "0", "--random-weights").refused(2, "the outputs of pfld are known")


def test_a_checkpoint_in_place_of_a_network_is_refused_with_the_command(cli: Cli) -> None:
    Path("face.pth").write_bytes(b"")
    cli("export", "face.pth").refused(2, "face.pth is a file", "FILE.py:NAME --weights face.pth")
