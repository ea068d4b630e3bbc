"""ONNX files that are unusual, broken or random: read, or refused in one line with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.helpers import Cli, tiny_onnx

from lmconv.errors import InputError
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import noise
from lmconv.sources import export
from lmconv.sources import resolve as source
from lmconv.sources.onnx_files import reading

Change = Callable[[onnx.ModelProto], object]


def saved(folder: Path, change: Change) -> Path:
    """Writes the tiny network after a change."""
    model, path = tiny_onnx(opset=13), folder / "file.onnx"
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def reverse_nodes(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def repeat_initializer(model: onnx.ModelProto) -> None:
    zeros = np.zeros(8, np.float32)
    model.graph.initializer.insert(0, numpy_helper.from_array(zeros, "conv.bias"))


def add_text(model: onnx.ModelProto) -> None:
    model.doc_string = "x" * 100_000
    model.training_info.add().algorithm.name = "algorithm"


def make_sparse(model: onnx.ModelProto) -> None:
    dense = model.graph.initializer[2]
    values = numpy_helper.to_array(dense)
    places = np.stack(np.nonzero(values), 1)
    model.graph.initializer.remove(dense)
    sparse = numpy_helper.from_array(values[values != 0], "fc.weight"), numpy_helper.from_array(places, "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(*sparse, values.shape))


UNUSUAL: dict[str, Change] = {
    "nodes out of order": reverse_nodes,
    "an initializer twice": repeat_initializer,
    "a sparse initializer": make_sparse,
    "no name of the graph": lambda model: model.graph.ClearField("name"),
    "no shape of the output": lambda model: model.graph.output[0].type.tensor_type.ClearField("shape"),
    "no type of the output": lambda model: model.graph.output[0].ClearField("type"),
    "a wrong shape of the output": lambda model: model.graph.output[0].type.tensor_type.shape.dim.add(dim_value=7),
    "text and training": add_text,
}


@pytest.mark.parametrize("change", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_what_onnx_runtime_runs_is_read(tmp_path: Path, change: Change) -> None:
    resolved = source.resolve(str(saved(tmp_path, change)))
    images = noise(resolved.spec, 2, 0)
    with source.open_source(resolved) as original:
        expected = original.run({"input": images})["landmarks"]
    with OrtSession(export.export(resolved)[0].SerializeToString()) as session:
        np.testing.assert_allclose(session.run({"input": images})["landmarks"], expected, rtol=0, atol=1e-6)


BROKEN: dict[str, tuple[Change, str]] = {
    "no IR version": (lambda model: model.ClearField("ir_version"), "Missing model IR version"),
    "a newer IR version": (lambda model: setattr(model, "ir_version", 99), "Unsupported model IR version: 99, max"),
    "no opset": (lambda model: model.ClearField("opset_import"), "Missing opset in the model"),
    "no output": (lambda model: model.graph.ClearField("output"), "has no output"),
    "no input": (lambda model: model.graph.ClearField("input"), "Node input 'data' is not a graph input"),
    "a type that is wrong": (
        lambda model: setattr(model.graph.output[0].type.tensor_type, "elem_type", TensorProto.DOUBLE),
        "does not match expected type",
    ),
    "an unknown operator": (lambda model: setattr(model.graph.node[1], "op_type", "Rellu"), "Rellu"),
    "a group that no run can have": (
        lambda model: model.graph.node[0].attribute.append(helper.make_attribute("group", 3)),
        "channels",
    ),
}


@pytest.mark.parametrize(("change", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_what_onnx_runtime_refuses_is_refused_with_its_reason(
    tmp_path: Path, change: Change, reason: str, cli: Cli
) -> None:
    ran = cli("export", saved(tmp_path, change))
    ran.refused(4, "file.onnx", reason)
    assert "onnxruntime/core" not in ran.err


# Weights in other files


def outside(path: Path, *locations: str) -> Path:
    """Writes the tiny network; the numbers of its first initializers are in the files `locations`."""
    model = tiny_onnx()
    for tensor, location in zip(model.graph.initializer, locations, strict=False):
        file = path.parent / location
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(numpy_helper.to_array(tensor).tobytes())
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_in_several_files_and_folders_are_read(tmp_path: Path) -> None:
    read = reading.load_onnx(outside(tmp_path / "x.onnx", "a.bin", "b.bin", "more/c.bin"))
    arrays = [numpy_helper.to_array(tensor) for tensor in read.graph.initializer]
    for array, tensor in zip(arrays, tiny_onnx().graph.initializer, strict=True):
        np.testing.assert_array_equal(array, numpy_helper.to_array(tensor))


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    path = outside(tmp_path / "x.onnx", "a.bin")
    (tmp_path / "a.bin").unlink()
    with pytest.raises(InputError, match=r"has its weights in a\.bin, which does not exist"):
        reading.load_onnx(path)


def test_weights_that_are_too_short_are_refused(tmp_path: Path) -> None:
    path = outside(tmp_path / "x.onnx", "a.bin")
    (tmp_path / "a.bin").write_bytes(b"short")
    with pytest.raises(InputError, match=r"x\.onnx"):
        reading.load_onnx(path)


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for location in ("../up.bin", str(tmp_path / "absolute.bin")):
        path = outside(tmp_path / "in" / "x.onnx", location)
        with pytest.raises(InputError, match="outside its folder"):
            reading.load_onnx(path)


def test_more_weights_than_protobuf_can_write_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = outside(tmp_path / "x.onnx", "a.bin")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].dims[:] = [3 << 18, 3, 16, 16]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"has 2\.3 GiB with its weights, and lmconv converts models up to 2 GiB"):
        reading.load_onnx(path)


# Random numbers


def noisy(op: str, inputs: list[str]) -> Change:
    """A change that puts an operator between the network's layers."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.node[2].input[0] = "noisy"
        model.graph.node.insert(2, helper.make_node(op, inputs, ["noisy"], name="noise"))

    return change


def noisy_branch(model: onnx.ModelProto) -> None:
    shape = [1, 8, 4, 4]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("one", "other")]
    random = helper.make_node("RandomUniform", [], ["one"], name="noise", shape=shape)
    same = helper.make_node("Identity", ["b"], ["other"])
    branches = [
        helper.make_graph([node], "branch", [], [out]) for node, out in zip((random, same), outputs, strict=True)
    ]
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "chosen"))
    model.graph.node[2].input[0] = "noisy"
    node = helper.make_node("If", ["chosen"], ["noisy"], then_branch=branches[0], else_branch=branches[1])
    model.graph.node.insert(2, node)


def noisy_function(model: onnx.ModelProto) -> None:
    opsets = [helper.make_opsetid("", 13)]
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["r"], name="noise"),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    model.functions.append(helper.make_function("own", "Noisy", ["x"], ["y"], nodes, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.ir_version = 8
    noisy("Noisy", ["b"])(model)
    model.graph.node[2].domain = "own"


@pytest.mark.parametrize(
    ("change", "op"),
    [
        (noisy("RandomNormalLike", ["b"]), "RandomNormalLike"),
        (noisy_branch, "RandomUniform"),
        (noisy_function, "RandomNormalLike"),
    ],
    ids=["graph", "branch", "function"],
)
def test_random_numbers_are_refused_with_the_node(tmp_path: Path, change: Change, op: str) -> None:
    with pytest.raises(InputError, match=rf"computes random numbers: node noise \({op}\)"):
        source.resolve(str(saved(tmp_path, change)))


def test_random_numbers_that_the_landmarks_do_not_read_are_allowed(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("RandomNormalLike", ["b"], ["noise"]))
        model.graph.output.append(helper.make_tensor_value_info("noise", TensorProto.FLOAT, None))

    exported, _ = export.export(source.resolve(str(saved(tmp_path, change)), output="points"))
    assert "RandomNormalLike" not in {node.op_type for node in exported.graph.node}
