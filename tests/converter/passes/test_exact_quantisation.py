"""Q/DQ pairs as float operators compute the same, and OpenVINO rounds them as ONNX Runtime does."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from tests.converter.opsets.building import computed, copied, in_openvino, model, node, normal, operators

from lmconv.passes import exact_quantisation
from lmconv.types import Float32, PassContext, landmark_spec

SPEC = landmark_spec("small", "small", size=(6, 6), landmarks=2)
IMAGES = normal(2, 4, 6, 6, seed=1)
ZEROS: dict[str, Any] = {
    "uint8": np.uint8(117),
    "int8": np.int8(0),
    "int8 shifted": np.int8(-5),
    "uint16": np.uint16(9),
}


def quantised(zero: Any) -> onnx.ModelProto:
    """Returns two convolutions between Q/DQ pairs, with a sum."""
    kind = np.iinfo(zero.dtype)
    scale = np.float32(8 / (int(kind.max) - int(kind.min)))
    constants = {"s": scale, "z": zero, "w": normal(4, 4, 3, 3) / 6, "v": normal(4, 4, 1, 1, seed=2)}

    def pair(value: str) -> list[onnx.NodeProto]:
        before = node("QuantizeLinear", [value, "s", "z"], [f"{value}_q"])
        return [before, node("DequantizeLinear", [f"{value}_q", "s", "z"], [f"{value}_d"])]

    nodes = [
        *pair("x"),
        node("Conv", ["x_d", "w"], ["a"], pads=[1, 1, 1, 1]),
        *pair("a"),
        node("Conv", ["a_d", "v"], ["b"]),
        *pair("b"),
        node("Add", ["b_d", "x_d"], ["c"]),
        *pair("c"),
        node("Relu", ["c_d"], ["y"]),
    ]
    return model(nodes, opset=21 if zero.dtype == np.uint16 else 18, **constants)


def unfused(file: onnx.ModelProto) -> Float32:
    """Runs a model in ONNX Runtime as it is: the fused integer kernels round some sums otherwise."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(file.SerializeToString(), options)
    result: Float32 = session.run(None, {"x": IMAGES})[0]
    return result


def applied(file: onnx.ModelProto) -> tuple[onnx.ModelProto, Any]:
    return exact_quantisation.plugin.apply(copied(file), PassContext(spec=SPEC))


@pytest.mark.parametrize("name", ZEROS)
def test_pairs_compute_the_same(name: str) -> None:
    file = quantised(ZEROS[name])
    result, decisions = applied(file)
    assert decisions == {"pairs": 4}
    assert not {"QuantizeLinear", "DequantizeLinear"} & {*operators(result)}
    np.testing.assert_allclose(computed(result, IMAGES), unfused(file), atol=1e-6)


def test_openvino_rounds_the_pairs_as_onnx_runtime_does() -> None:
    file = quantised(ZEROS["uint8"])
    result, _ = applied(file)
    np.testing.assert_allclose(in_openvino(result, IMAGES), unfused(file), atol=1e-6)


def test_quantised_weights_stay() -> None:
    file = quantised(ZEROS["int8"])
    weights = np.random.default_rng(0).integers(-99, 99, (4, 4, 3, 3)).astype(np.int8)
    file.graph.initializer.append(onnx.numpy_helper.from_array(weights, "k"))
    file.graph.node.insert(0, node("DequantizeLinear", ["k", "s", "z"], ["kd"]))
    next(item for item in file.graph.node if item.op_type == "Conv").input[1] = "kd"
    result, _ = applied(file)
    assert operators(result).count("DequantizeLinear") == 1
    np.testing.assert_allclose(computed(result, IMAGES), unfused(file), atol=1e-5)


def test_a_pair_with_two_scales_stays() -> None:
    file = quantised(ZEROS["uint8"])
    file.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0.5, np.float32), "other"))
    file.graph.node[1].input[1] = "other"
    result, decisions = applied(file)
    assert decisions == {"pairs": 3}
    np.testing.assert_allclose(computed(result, IMAGES), unfused(file), atol=1e-6)
