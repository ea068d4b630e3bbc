"""Static shapes: the file has batch size 1; a session accepts any batch size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from onnx.helper import make_node
from tests.converter.passes.building import node, normal, small

from lmconv.building.target_graph import with_batch
from lmconv.errors import GateFailed, InputError
from lmconv.graph.facts import set_batch
from lmconv.inference.ort import OrtSession
from lmconv.targets.openvino import SIZES, STATIC, OpenVinoSession, OpenVinoStreams, build, free_inputs
from lmconv.types import Float32, ModelSpec, Precision, TensorSpec, landmark_spec

SPEC = landmark_spec("small", "onnx", size=(6, 6), landmarks=4)
SPEC = replace(SPEC, outputs=(TensorSpec(name="y", dtype="float32", shape=("N", 4, 4, 4), layout="NCHW"),))
SPEC = replace(SPEC, inputs=(TensorSpec(name="x", dtype="float32", shape=("N", 8, 6, 6), layout="NCHW"),))


def network(bias: Float32 | None = None) -> onnx.ModelProto:
    nodes = [node("Conv", "x weight", "a"), node("Add", "a bias", "y")]
    return small(nodes, {"weight": normal(4, 8, 3, 3), "bias": normal(4, 1, 1) if bias is None else bias})


def written(model: onnx.ModelProto, folder: Path, spec: ModelSpec = SPEC) -> tuple[Path, bool]:
    """Writes the model file; returns its path, and True if its batch size is fixed to 1."""
    built = build(model, folder, spec, Precision.FP32)
    return folder / "model.xml", STATIC in built.execution


def shapes(path: Path) -> list[str]:
    return [str(value.get_partial_shape()) for value in openvino.Core().read_model(path).inputs]


def test_a_free_batch_is_fixed_to_1_in_the_file(tmp_path: Path) -> None:
    path, static = written(network(), tmp_path)
    assert static
    assert shapes(path) == ["[1,8,6,6]"]


@pytest.mark.parametrize("sizes", [[1, 64, 1], [2, 3, 4, 5, 6, 1, 2], [64, 9, 64, 9]])
def test_a_session_accepts_any_batch_size_and_keeps_few_networks(sizes: list[int], tmp_path: Path) -> None:
    model = network()
    path, _ = written(model, tmp_path)
    with OpenVinoSession(path, "f32", 1, free_inputs(SPEC)) as session, OrtSession(model.SerializeToString()) as ort:
        for size in sizes:
            x = normal(size, 8, 6, 6)
            np.testing.assert_allclose(session.run({"x": x})["y"], ort.run({"x": x})["y"], rtol=1e-5, atol=1e-5)
        assert len(session._requests) <= SIZES + 1


def test_results_are_arrays_of_their_own_also_after_an_input_of_another_type(tmp_path: Path) -> None:
    model = network()
    path, _ = written(model, tmp_path)
    one, two = normal(1, 8, 6, 6), normal(1, 8, 6, 6) + 1
    with OpenVinoSession(path, "f32", 1, free_inputs(SPEC)) as session, OrtSession(model.SerializeToString()) as ort:
        first = session.run({"x": one})["y"]
        session.run({"x": one.astype(np.float64)})
        second = session.run({"x": two})["y"]
        np.testing.assert_allclose(first, ort.run({"x": one})["y"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(second, ort.run({"x": two})["y"], rtol=1e-5, atol=1e-5)


def test_several_runs_at_the_same_time_end_one_after_the_other(tmp_path: Path) -> None:
    path, _ = written(network(), tmp_path)
    session = OpenVinoSession(path, "f32", 1, free_inputs(SPEC), streams=2)
    with OpenVinoStreams(session, 2) as streams:
        for size in (1, 3):
            ends = streams.run({"x": normal(size, 8, 6, 6)}, 7)
            assert len(ends) == 7
            assert ends == sorted(ends)


def test_a_network_that_openvino_reads_and_cannot_run_is_refused_by_node(tmp_path: Path) -> None:
    nodes = [node("GlobalAveragePool", "x", "a"), node("Squeeze", "a", "b"), node("MatMul", "b weight", "y")]
    model = small(nodes, {"weight": normal(8, 4)}, shape=(1, 8, 6, 6))
    set_batch(model, "N")
    path, _ = written(model, tmp_path)
    with OpenVinoSession(path, "f32", 1, free_inputs(SPEC)) as session:
        for size in range(1, SIZES + 1):
            session.run({"x": normal(size, 8, 6, 6)})
        with pytest.raises(GateFailed, match=r"cannot run the network: .*Squeeze.* Operation name"):
            session.run({"x": normal(SIZES + 1, 8, 6, 6)})


def test_a_fixed_batch_stays_fixed(tmp_path: Path) -> None:
    model = network()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    path, static = written(model, tmp_path, with_batch(SPEC, 4))
    assert not static
    assert shapes(path) == ["[4,8,6,6]"]


def test_a_network_that_cannot_be_reshaped_keeps_its_free_batch(tmp_path: Path) -> None:
    model = network(normal(3, 4, 1, 1))
    path, static = written(model, tmp_path)
    assert not static
    assert shapes(path) == ["[?,8,6,6]"]
    with OpenVinoSession(path, "f32", 1) as session:
        assert session.run({"x": normal(3, 8, 6, 6)})["y"].shape == (3, 4, 4, 4)


def test_a_network_that_computes_with_its_batch_size_accepts_any_batch_size(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x weight", "a"),
        node("Shape", "a", "shape", start=0, end=1),
        node("Concat", "shape rest", "sizes", axis=0),
        node("Reshape", "a sizes", "y"),
    ]
    model = small(nodes, {"weight": normal(4, 8, 3, 3), "rest": np.array([4, 16])})
    path, static = written(model, tmp_path)
    free = free_inputs(SPEC) if static else ()
    with OpenVinoSession(path, "f32", 1, free) as session:
        for size in (1, 3):
            assert session.run({"x": normal(size, 8, 6, 6)})["y"].shape == (size, 4, 16)


def test_only_the_batch_is_fixed_and_other_axes_stay_free(tmp_path: Path) -> None:
    frame = TensorSpec(name="frame", dtype="float32", shape=("H", "W"), layout="HW")
    spec = replace(SPEC, inputs=(*SPEC.inputs, frame))
    nodes = [node("Conv", "x weight", "a"), node("ReduceMean", "frame", "b"), node("Mul", "a b", "y")]
    model = small(nodes, {"weight": normal(4, 8, 3, 3)}, others={"frame": ("H", "W")})
    path, static = written(model, tmp_path, spec)
    assert static
    assert shapes(path) == ["[1,8,6,6]", "[?,?]"]


def test_an_operator_that_openvino_lacks_is_named_in_one_line(tmp_path: Path) -> None:
    nodes = [
        make_node("MaxPool", ["x"], ["a", "places"], kernel_shape=[2, 2], strides=[2, 2]),
        make_node("MaxUnpool", ["a", "places"], ["b"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "b weight", "y"),
    ]
    with pytest.raises(InputError, match=r"^OpenVINO cannot convert small: [^\n;]*: MaxUnpool-18 \(use another"):
        build(small(nodes, {"weight": normal(4, 8, 3, 3)}), tmp_path, SPEC, Precision.FP32)


def test_a_network_that_never_reads_its_input_is_refused(tmp_path: Path) -> None:
    model = small([node("Conv", "given weight", "y")], {"weight": normal(4, 8, 3, 3), "given": normal(1, 8, 6, 6)})
    with pytest.raises(InputError, match="small never reads its x"):
        build(model, tmp_path, SPEC, Precision.FP32)
