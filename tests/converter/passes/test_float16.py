from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from tests.helpers import SIZE, tiny_onnx

from lmconv import export, plugins, source
from lmconv.errors import GateFailed
from lmconv.runtime import OrtSession
from lmconv.session import landmarks, noise
from lmconv.types import PassContext, landmark_spec

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
WEIGHTED = ("Conv", "Gemm", "MatMul")


def halved(model: onnx.ModelProto, points: int = 68, size: int = SIZE) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    spec = landmark_spec("x", "onnx", size=(size, size), landmarks=points)
    result, _ = plugins.load("passes", "float16").apply(copy, PassContext(spec=spec))
    assert isinstance(result, onnx.ModelProto)
    return result


@pytest.fixture(scope="module")
def graph(pfld_build: Path) -> onnx.ModelProto:
    return onnx.load(pfld_build / "pfld" / "plain" / "model.onnx")


@pytest.fixture(scope="module")
def half(graph: onnx.ModelProto) -> onnx.ModelProto:
    return halved(graph, size=112)


def test_inputs_and_outputs_stay_float32(half: onnx.ModelProto) -> None:
    kinds = [value.type.tensor_type.elem_type for value in [*half.graph.input, *half.graph.output]]
    assert kinds == [TensorProto.FLOAT, TensorProto.FLOAT]


def test_the_weights_are_half_but_those_of_the_last_layer(half: onnx.ModelProto) -> None:
    kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    weighted = [node for node in half.graph.node if node.op_type in WEIGHTED]
    assert kinds[weighted[-1].input[1]] == TensorProto.FLOAT
    halves = sum(kinds[node.input[1]] == TensorProto.FLOAT16 for node in weighted[:-1])
    assert halves > len(weighted) / 2


def test_the_file_is_about_half_as_large(graph: onnx.ModelProto, half: onnx.ModelProto) -> None:
    assert half.ByteSize() < 0.7 * graph.ByteSize()


def test_the_graph_is_valid_and_its_types_agree(half: onnx.ModelProto) -> None:
    onnx.checker.check_model(half, full_check=True)


def test_landmarks_stay_close_and_are_not_the_same(graph: onnx.ModelProto, half: onnx.ModelProto) -> None:
    spec = landmark_spec("pfld", "pfld", size=(112, 112), landmarks=68)
    images = noise(spec, 4, 0)
    found = []
    for model in (graph, half):
        with OrtSession(model.SerializeToString()) as session:
            found.append(landmarks(session, spec, images))
    gap = np.abs(found[0] - found[1]).max()
    assert 0 < gap < 2e-3


def test_the_same_graph_gives_the_same_bytes(graph: onnx.ModelProto, half: onnx.ModelProto) -> None:
    again = halved(graph, size=112)
    assert again.SerializeToString(deterministic=True) == half.SerializeToString(deterministic=True)


def test_a_weight_beyond_its_range_is_refused_by_name(tmp_path: Path) -> None:
    model = tiny_onnx()
    values = numpy_helper.to_array(model.graph.initializer[0]).copy()
    values[3, 1, 2, 2] = 7e4
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "conv.weight"))
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    exported, _ = export.export(source.resolve(str(tmp_path / "x.onnx")))
    with pytest.raises(GateFailed, match=r"conv\.weight reaches 7e\+04"):
        halved(exported)


def test_a_graph_without_a_layer_is_refused() -> None:
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Relu", ["input"], ["landmarks"])],
            "g",
            [onnx.helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 68, 2])],
            [onnx.helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, ["N", 68, 2])],
        )
    )
    with pytest.raises(GateFailed, match="no convolution or linear layer"):
        halved(model)
