from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.goldens import make
from tests.helpers import SIZE, tiny_onnx

from lmconv.building.plain import plain_graph
from lmconv.errors import InputError, UsageError
from lmconv.graph import naming
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import landmarks, noise
from lmconv.pipeline import convert
from lmconv.plugins import TARGETS
from lmconv.sources import export
from lmconv.sources import resolve as source
from lmconv.store import artifact as artifacts
from lmconv.store.files import sha256
from lmconv.types import OpenOptions, Precision, Session, Source, TensorSpec


def shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def opened(path: Path) -> Session:
    artifact = artifacts.read(path)
    session: Session = TARGETS.load(artifact.target).open(artifact, OpenOptions())
    return session


TARGET_NAMES = ["onnx-fp32", "openvino-fp32"]


# The graph of a PyTorch network


@pytest.fixture(scope="module")
def graph(pfld_build: Path) -> onnx.ModelProto:
    return onnx.load(pfld_build / "pfld" / "onnx-fp32" / "model.onnx")


def test_the_graph_has_opset_18_and_passes_the_checker(graph: onnx.ModelProto) -> None:
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 18)]
    onnx.checker.check_model(graph, full_check=True)


def test_inputs_and_outputs_have_the_names_types_and_shapes_of_the_spec(graph: onnx.ModelProto) -> None:
    (input_,), (output,) = graph.graph.input, graph.graph.output
    assert (input_.name, shape(input_)) == ("input", ["N", 3, 112, 112])
    assert (output.name, shape(output)) == ("landmarks", ["N", 68, 2])
    for value in (input_, output):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_the_spec_in_the_manifest_has_the_same_inputs_and_outputs(pfld_build: Path) -> None:
    spec = artifacts.read(pfld_build / "pfld" / "onnx-fp32").spec
    assert spec.inputs == (TensorSpec(name="input", dtype="float32", shape=("N", 3, 112, 112), layout="NCHW"),)
    assert spec.outputs == (TensorSpec(name="landmarks", dtype="float32", shape=("N", 68, 2), layout="NLC"),)


def test_weights_are_inside_the_file(pfld_build: Path, graph: onnx.ModelProto) -> None:
    assert [path.name for path in (pfld_build / "pfld" / "onnx-fp32").glob("model*")] == ["model.onnx"]
    assert not any(onnx.external_data_helper.uses_external_data(tensor) for tensor in graph.graph.initializer)


def test_weights_keep_the_names_of_the_network(graph: onnx.ModelProto) -> None:
    names = {tensor.name for tensor in graph.graph.initializer}
    assert {"fc.weight", "fc.bias"} <= names
    assert not [name for name in names if name.startswith("net.")]


def test_bn8_which_is_never_called_is_not_in_the_graph(graph: onnx.ModelProto) -> None:
    assert not [tensor.name for tensor in graph.graph.initializer if tensor.name.startswith("bn8")]


@pytest.mark.parametrize("name", TARGET_NAMES)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_free_batch_runs_at_any_size(pfld_build: Path, name: str, batch: int) -> None:
    images = noise(artifacts.read(pfld_build / "pfld" / name).spec, 5, 3)
    with opened(pfld_build / "pfld" / name) as session:
        points = session.run({"input": images[:batch]})["landmarks"]
        alone = np.concatenate([session.run({"input": image[None]})["landmarks"] for image in images[:batch]])
    assert points.shape == (batch, 68, 2)
    assert points.dtype == np.float32
    np.testing.assert_allclose(points, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", TARGET_NAMES)
def test_artefacts_give_the_recorded_landmarks(pfld_build: Path, name: str) -> None:
    with opened(pfld_build / "pfld" / name) as session:
        points = session.run({"input": make.images()})["landmarks"]
    recorded = np.load(make.FOLDER / "pfld.npz")["landmarks"]
    np.testing.assert_allclose(points, recorded, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGET_NAMES)
def test_mobilefacenets_artefacts_give_the_recorded_landmarks(mobilefacenet_build: Path, name: str) -> None:
    with opened(mobilefacenet_build / "mobilefacenet" / name) as session:
        points = session.run({"input": make.images()})["landmarks"]
    recorded = np.load(make.FOLDER / "mobilefacenet.npz")["landmarks"]
    np.testing.assert_allclose(points, recorded, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_mobilefacenets_features_are_not_exported(mobilefacenet_build: Path) -> None:
    model = onnx.load(mobilefacenet_build / "mobilefacenet" / "onnx-fp32" / "model.onnx")
    assert [value.name for value in model.graph.output] == ["landmarks"]


# No traces of the machine in files


MACHINE = re.compile(rb"/(home|tmp|usr|opt|work|root|mnt|var|Users)/|site-packages|\.py\b|stack_trace|pkg\.torch")


def test_no_file_contains_a_path_or_a_stack_trace(pfld_build: Path) -> None:
    files = [path for path in pfld_build.rglob("*") if path.is_file() and path.name != ".lock"]
    assert len(files) >= 10
    for path in files:
        if path.suffix in (".bin", ".npz"):  # numbers only
            continue
        assert MACHINE.search(path.read_bytes()) is None, path


def test_no_node_weight_or_value_has_metadata_or_a_doc_string(graph: onnx.ModelProto) -> None:
    assert not graph.graph.metadata_props
    assert not graph.doc_string
    assert not graph.graph.doc_string
    parts = [*graph.graph.node, *graph.graph.initializer, *graph.graph.input, *graph.graph.output]
    assert not [part.name for part in parts if part.doc_string or part.metadata_props]


# The module table


@pytest.fixture(scope="module")
def modules(pfld_build: Path) -> dict[str, str]:
    table: dict[str, str] = json.loads((pfld_build / "pfld" / "plain" / "modules.json").read_text(encoding="utf-8"))
    return table


def test_every_weighted_node_has_the_path_of_its_module(pfld_build: Path, modules: dict[str, str]) -> None:
    model = onnx.load(pfld_build / "pfld" / "plain" / "model.onnx")
    nodes = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(nodes) > 40
    for node in nodes:
        # A convolution and its BatchNorm become one node, which has the output name of the BatchNorm.
        prefix = modules[node.output[0]].rpartition(".")[0]
        assert not prefix or any(name.startswith(prefix) for name in node.input), (modules[node.output[0]], node.input)


def test_paths_are_names_of_modules_of_the_network(modules: dict[str, str]) -> None:
    expected = {name for name, _ in make.seeded("pfld").named_modules()}
    assert set(modules.values()) <= expected
    assert {"conv1_extra", "conv3_1.conv.0", "block3_2", "avg_pool1", "fc"} <= set(modules.values())


def test_an_onnx_source_has_an_empty_table(tiny_build: Path) -> None:
    assert json.loads((tiny_build / "tiny" / "plain" / "modules.json").read_text(encoding="utf-8")) == {}


# A fixed batch


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_fixed_batch_is_in_the_graph_and_in_the_spec(tiny: Path, tmp_path: Path, target: str) -> None:
    artifact = convert(source.resolve(str(tiny)), target, Precision.FP32, out=tmp_path, batch=4)
    assert artifact.spec.batch == 4
    assert artifact.recipe["batch"] == 4
    images = noise(artifact.spec, 6, 3)
    with opened(artifact.path) as session:
        assert session.run({"input": images[:4]})["landmarks"].shape == (4, 68, 2)
        with pytest.raises(Exception, match=r"(?i)dimension|shape"):
            session.run({"input": images[:3]})
        points = landmarks(session, artifact.spec, images)
    with source.open_source(source.resolve(str(tiny))) as original:
        expected = landmarks(original, artifact.spec, images)
    np.testing.assert_allclose(points, expected, rtol=0, atol=1e-5)


def test_a_fixed_batch_leaves_the_plain_graph_free(tiny: Path, tmp_path: Path) -> None:
    convert(source.resolve(str(tiny)), "onnx", Precision.FP32, out=tmp_path, batch=4)
    assert artifacts.read(tmp_path / "tiny" / "plain").spec.batch is None


# An ONNX file as the source


def test_an_onnx_file_is_renamed_reshaped_and_freed(tiny: Path) -> None:
    model, _ = export.export(source.resolve(str(tiny)))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert [shape(value) for value in model.graph.input] == [["N", 3, SIZE, SIZE]]
    assert [shape(value) for value in model.graph.output] == [["N", 68, 2]]
    images = noise(source.resolve(str(tiny)).spec, 3, 0)
    with source.open_source(source.resolve(str(tiny))) as original:
        expected = original.run({"input": images})["landmarks"]
    with OrtSession(model.SerializeToString()) as session:
        np.testing.assert_allclose(session.run({"input": images})["landmarks"], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("old", "new"), [("data", "landmarks"), ("points", "input"), ("a", "input"), ("b", "landmarks")]
)
def test_values_of_the_source_may_have_names_of_the_exported_graph(tmp_path: Path, old: str, new: str) -> None:
    model = tiny_onnx()
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    for value in [*model.graph.input, *model.graph.output]:
        value.name = new if value.name == old else value.name
    (tmp_path / "named.onnx").write_bytes(model.SerializeToString())
    resolved = source.resolve(str(tmp_path / "named.onnx"))
    images = noise(resolved.spec, 3, 0)
    with source.open_source(resolved) as original:
        expected = original.run({"input": images})["landmarks"]
    with OrtSession(export.export(resolved)[0].SerializeToString()) as session:
        np.testing.assert_allclose(session.run({"input": images})["landmarks"], expected, rtol=0, atol=1e-6)


def export_like_source(resolved: Source) -> onnx.ModelProto:
    """Exports a source; asserts that the graph computes the outputs of the source in ONNX Runtime."""
    images = noise(resolved.spec, 3, 0)
    with source.open_source(resolved) as original:
        expected = original.run({"input": images})["landmarks"]
    exported, _ = export.export(resolved)
    with OrtSession(exported.SerializeToString()) as session:
        alone = [session.run({"input": image[None]})["landmarks"] for image in images]
    np.testing.assert_allclose(np.concatenate(alone), expected, rtol=0, atol=1e-6)
    return exported


NEW_NAMES = ("landmarks_shape", "landmarks_flat", "landmarks_flat_flat", "landmarks_slice_axes", "landmarks_2")


@pytest.mark.parametrize("name", NEW_NAMES)
@pytest.mark.parametrize("what", ["a", "fc.weight"])
def test_values_of_the_source_may_have_names_of_appended_nodes(tmp_path: Path, what: str, name: str) -> None:
    model = tiny_onnx()
    naming.rename(model.graph, what, name)
    (tmp_path / "named.onnx").write_bytes(model.SerializeToString())
    export_like_source(source.resolve(str(tmp_path / "named.onnx"), output_slice=(0, 100)))


def test_alternative_names_may_be_taken_too(tmp_path: Path) -> None:
    model = tiny_onnx()
    for old, new in (("a", "input"), ("b", "input_"), ("c", "landmarks_"), ("points", "landmarks")):
        naming.rename(model.graph, old, new)
    (tmp_path / "named.onnx").write_bytes(model.SerializeToString())
    export_like_source(source.resolve(str(tmp_path / "named.onnx")))


def test_a_branch_may_read_the_input(tmp_path: Path) -> None:
    model = tiny_onnx(opset=18)
    shape, kind = [1, 3, SIZE, SIZE], onnx.TensorProto.FLOAT
    outputs = [onnx.helper.make_tensor_value_info(name, kind, shape) for name in ("one", "other")]
    one, other = onnx.helper.make_node("Relu", ["data"], ["one"]), onnx.helper.make_node("Neg", ["data"], ["other"])
    branches = [
        onnx.helper.make_graph([node], "branch", [], [out]) for node, out in zip((one, other), outputs, strict=True)
    ]
    model.graph.node[0].input[0] = "chosen"
    for node in (
        onnx.helper.make_node("If", ["more"], ["chosen"], then_branch=branches[0], else_branch=branches[1]),
        onnx.helper.make_node("Greater", ["sum", "fc.bias_0"], ["more"]),
        onnx.helper.make_node("ReduceSum", ["data"], ["sum"], keepdims=0),
    ):
        model.graph.node.insert(0, node)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.float32), "fc.bias_0"))
    (tmp_path / "if.onnx").write_bytes(model.SerializeToString())
    export_like_source(source.resolve(str(tmp_path / "if.onnx")))


def test_weights_may_be_inputs_as_in_ir_version_3(tmp_path: Path) -> None:
    model = tiny_onnx()
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    (tmp_path / "old.onnx").write_bytes(model.SerializeToString())
    exported = export_like_source(source.resolve(str(tmp_path / "old.onnx")))
    assert [value.name for value in exported.graph.input] == ["input"]


def with_external_weights(path: Path, seed: int) -> Path:
    """Writes the tiny network with its weights in a second file."""
    path.with_suffix(".data").unlink(missing_ok=True)  # ONNX would append to an existing file
    onnx.save(tiny_onnx(seed), path, save_as_external_data=True, location=f"{path.stem}.data", size_threshold=0)
    return path


def test_a_file_without_external_weights_is_identified_by_its_sha256(tiny: Path) -> None:
    assert source.resolve(str(tiny)).sha256 == sha256(tiny)


def test_external_weights_are_part_of_the_identity_of_a_source(tmp_path: Path) -> None:
    path = with_external_weights(tmp_path / "beside.onnx", 0)
    before, own = source.resolve(str(path)), sha256(path)
    first = plain_graph(before, tmp_path / "build")
    assert source.recover(first.artifact, tmp_path) == before
    with_external_weights(path, 1)
    assert sha256(path) == own
    after = source.resolve(str(path))
    assert after.sha256 != before.sha256
    second = plain_graph(after, tmp_path / "build")
    assert second.artifact.files["model.onnx"] != first.artifact.files["model.onnx"]
    assert source.recover(first.artifact, tmp_path) is None
    path.with_suffix(".data").unlink()
    assert source.recover(second.artifact, tmp_path) is None


def test_weights_with_the_prefix_net_keep_their_names(tmp_path: Path) -> None:
    model = tiny_onnx()
    for old in ("a", "fc.weight"):
        naming.rename(model.graph, old, f"net.{old}")
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    export_like_source(source.resolve(str(tmp_path / "net.onnx")))


def test_an_exported_model_can_be_a_source(tiny_build: Path) -> None:
    export_like_source(source.resolve(str(tiny_build / "tiny" / "onnx-fp32" / "model.onnx"), name="again"))


def test_an_output_slice_selects_the_points_of_a_longer_output(tmp_path: Path) -> None:
    path = tmp_path / "long.onnx"
    path.write_bytes(tiny_onnx(points=74).SerializeToString())
    whole, part = source.resolve(str(path), landmarks=74), source.resolve(str(path), output_slice=(4, 140))
    assert (whole.spec.landmarks, part.spec.landmarks) == (74, 68)
    images = noise(part.spec, 3, 0)
    with source.open_source(whole) as session:
        expected = session.run({"input": images})["landmarks"].reshape(3, -1)[:, 4:140]
    with OrtSession(export.export(part)[0].SerializeToString()) as session:
        points = session.run({"input": images})["landmarks"]
    np.testing.assert_allclose(points.reshape(3, -1), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("part", [(0, 135), (4, 4), (10, 8), (0, 138)])
def test_refuses_a_slice_without_points(tiny: Path, part: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="are not points"):
        source.resolve(str(tiny), output_slice=part)


def test_a_batch_that_cannot_be_freed_stays_fixed_to_1(tmp_path: Path) -> None:
    model = tiny_onnx()
    flatten = model.graph.node[2]
    flatten.op_type = "Reshape"
    flatten.input.append("shape")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 128], np.int64), "shape"))
    (tmp_path / "fixed.onnx").write_bytes(model.SerializeToString())
    resolved = source.resolve(str(tmp_path / "fixed.onnx"))
    artifact = convert(resolved, "onnx", Precision.FP32, out=tmp_path / "out")
    assert artifact.spec.batch == 1
    images = noise(artifact.spec, 3, 0)
    with opened(artifact.path) as session, source.open_source(resolved) as original:
        expected = original.run({"input": images})["landmarks"]
        np.testing.assert_allclose(landmarks(session, artifact.spec, images), expected, rtol=0, atol=1e-6)


def test_a_batch_that_cannot_be_freed_cannot_be_fixed_to_another_size(tmp_path: Path) -> None:
    model = tiny_onnx()
    flatten = model.graph.node[2]
    flatten.op_type = "Reshape"
    flatten.input.append("shape")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 128], np.int64), "shape"))
    (tmp_path / "fixed.onnx").write_bytes(model.SerializeToString())
    resolved = source.resolve(str(tmp_path / "fixed.onnx"))
    with pytest.raises((UsageError, InputError)):
        convert(resolved, "onnx", Precision.FP32, out=tmp_path / "out", batch=4)


@pytest.mark.parametrize("content", [b"", b"not onnx", bytes(100)], ids=["empty", "text", "zeros"])
def test_refuses_a_file_that_is_not_onnx(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.onnx"):
        source.resolve(str(tmp_path / "x.onnx"))


def test_refuses_a_truncated_onnx_file(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(tiny.read_bytes()[:-500])
    with pytest.raises(InputError, match=r"x\.onnx is not a valid ONNX model"):
        source.resolve(str(tmp_path / "x.onnx"))


def test_refuses_an_onnx_network_without_a_picture_as_input(tmp_path: Path) -> None:
    model = tiny_onnx()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.zeros((8, 1, 8, 8), np.float32), "conv.weight"))
    (tmp_path / "grey.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"none is an image of three channels"):
        source.resolve(str(tmp_path / "grey.onnx"))


def test_an_onnx_network_may_use_the_names_input_and_landmarks_for_other_values(tmp_path: Path) -> None:
    model = tiny_onnx()
    first, last = model.graph.node[0], model.graph.node[-1]
    names = {model.graph.input[0].name: "landmarks", first.output[0]: "input", last.output[0]: "landmarks_"}
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (model.graph.input[0], model.graph.output[0]):
        value.name = names[value.name]
    (tmp_path / "names.onnx").write_bytes(model.SerializeToString())
    resolved = source.resolve(str(tmp_path / "names.onnx"))
    exported, _ = export.export(resolved)
    images = noise(resolved.spec, 2, 0)
    with source.open_source(resolved) as original, OrtSession(exported.SerializeToString()) as session:
        expected = original.run({"input": images})["landmarks"]
        np.testing.assert_allclose(session.run({"input": images})["landmarks"], expected, rtol=0, atol=1e-6)
