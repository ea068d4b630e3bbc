"""`lmconv blame`, the error of a failed export, and operators that are rewritten exactly."""

from __future__ import annotations

import json
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.helpers import Cli, python, tiny_onnx

from lmconv.store import artifact as artifacts


def _sealed_again(folder: Path) -> None:
    """Makes the manifest fit the changed files."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    content = {key: value for key, value in manifest.items() if key not in ("digest", "seal", "files", "format")}
    artifacts.write(folder, content)


def _change_onnx(folder: Path, name: str) -> None:
    model = onnx.load(folder / "model.onnx")
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    changed = numpy_helper.to_array(tensor).copy()
    changed.flat[0] += 0.5
    tensor.CopyFrom(numpy_helper.from_array(changed, name))
    onnx.save(model, folder / "model.onnx")
    _sealed_again(folder)


def _change_openvino(folder: Path, shape: str) -> None:
    """Adds 0.5 to the first number of the constant of this shape."""
    layers = ElementTree.parse(folder / "model.xml").iter("data")  # noqa: S314  our own file
    (offset,) = [
        int(data.attrib["offset"]) for data in layers if data.attrib.get("shape", "").replace(" ", "") == shape
    ]
    weights = bytearray((folder / "model.bin").read_bytes())
    (value,) = struct.unpack_from("<f", weights, offset)
    struct.pack_into("<f", weights, offset, value + 0.5)
    (folder / "model.bin").write_bytes(weights)
    _sealed_again(folder)


def test_an_artefact_that_agrees_blames_no_node(cli: Cli, small: Path) -> None:
    ran = cli("blame", small / "openvino-fp32", "--json")
    assert ran.code == 0, ran.err
    assert ran.document["disagreement"] == ""
    assert ran.document["first"] is None
    assert ran.document["compared"] >= 3
    assert not (small / "why").exists()


@pytest.mark.parametrize(("weight", "value"), [("conv.weight", "a"), ("fc.weight", "points")])
def test_a_changed_weight_of_an_onnx_file_names_its_node(cli: Cli, small: Path, weight: str, value: str) -> None:
    _change_onnx(small / "onnx-fp32", weight)
    ran = cli("blame", small / "onnx-fp32", "--json")
    assert ran.code == 1, ran.err
    assert "landmarks are" in ran.document["disagreement"]
    assert ran.document["first"]["name"] == value
    assert ran.document["alone"] > 0
    assert {path.name for path in (small / "why").iterdir()} == {"model.onnx", "source.onnx", "inputs.npz", "run.py"}


def test_a_changed_weight_of_an_ir_names_its_node(cli: Cli, small: Path) -> None:
    _change_openvino(small / "openvino-fp32", "136,128")
    ran = cli("blame", small / "openvino-fp32", "--json")
    assert ran.code == 1, ran.err
    assert ran.document["first"]["name"] == "points"
    assert ran.document["alone"] < 1e-5, "the network's node is right on OpenVINO"


def test_the_text_names_node_and_folder(cli: Cli, small: Path) -> None:
    _change_onnx(small / "onnx-fp32", "conv.weight")
    ran = cli("blame", small / "onnx-fp32")
    assert ran.code == 1
    assert "first      Conv a" in ran.out
    assert str(small / "why") in ran.out


def test_below_fp32_the_nodes_that_add_most_are_listed(cli: Cli, small: Path) -> None:
    ran = cli("blame", small / "openvino-bf16", "--json")
    assert ran.code in (0, 3), ran.err
    growths = [row["growth"] for row in ran.document["growths"]]
    assert growths == sorted(growths, reverse=True)


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("plain", 4, "has no plain graph to be compared with"),
        (".", 4, "is not an artefact"),
    ],
)
def test_other_folders_are_refused(cli: Cli, small: Path, path: str, code: int, words: str) -> None:
    cli("blame", small / path).refused(code, words)


@pytest.fixture
def antialiased(tmp_path: Path) -> Path:
    """A network that reduces its input with antialias, which OpenVINO computes differently."""
    model = tiny_onnx(opset=18)
    sizes = numpy_helper.from_array(np.array([1, 3, 20, 20]), "size")
    back = numpy_helper.from_array(np.array([1, 3, 32, 32]), "back")
    model.graph.initializer.extend([sizes, back])
    reduced = onnx.helper.make_node("Resize", ["data", "", "", "size"], ["reduced"], mode="linear", antialias=1)
    enlarged = onnx.helper.make_node("Resize", ["reduced", "", "", "back"], ["enlarged"], mode="nearest")
    model.graph.node[0].input[0] = "enlarged"
    nodes = [reduced, enlarged, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    path = tmp_path / "antialiased.onnx"
    onnx.save(model, path)
    return path


def test_an_inexact_operator_is_rewritten_and_the_recipe_repeats(cli: Cli, antialiased: Path) -> None:
    ran = cli("export", antialiased, "--to", "openvino", "--no-guard")
    assert ran.code == 0, ran.err
    assert "exact_resampling rewrites Resize, because" in ran.err
    one = artifacts.read(Path("build/antialiased/openvino-fp32"))
    assert artifacts.decided(one.recipe, "exact_resampling")
    again = cli("export", antialiased, "--to", "openvino", "--no-guard", "--recipe", one.path, "--out", "two")
    assert again.code == 0, again.err
    assert artifacts.read(Path("two/antialiased/openvino-fp32")).files == one.files


def test_exact_rewrites_without_a_failure(cli: Cli, antialiased: Path) -> None:
    ran = cli("export", antialiased, "--to", "openvino", "--to", "onnx", "--exact", "--no-guard")
    assert ran.code == 0, ran.err
    assert "because" not in ran.err
    assert artifacts.decided(artifacts.read(Path("build/antialiased/openvino-fp32")).recipe, "exact_resampling")
    assert artifacts.decided(artifacts.read(Path("build/antialiased/onnx-fp32")).recipe, "exact_resampling") is None


def test_a_failed_export_names_the_node_and_writes_it_alone(cli: Cli, antialiased: Path) -> None:
    ran = cli("export", antialiased, "--to", "openvino", "--no-exact_resampling", "--no-guard")
    ran.refused(1, "Resize reduced", "differs first", "the node alone is", "build/antialiased/why")
    result = python("import runpy; runpy.run_path('build/antialiased/why/run.py')")
    assert result.code == 0, result.err
    assert "off by" in result.out
    assert float(result.out.split()[-1]) > 1e-3
    assert not Path("build/antialiased/openvino-fp32").exists()
