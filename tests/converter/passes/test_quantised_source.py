"""Networks that are quantised already: float16 keeps their integers, and int8 is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from tests.converter.opsets.building import model, node, normal

from lmconv.building.feasibility import check_float
from lmconv.errors import UsageError
from lmconv.passes import float16
from lmconv.types import PassContext, Precision, landmark_spec

SPEC = landmark_spec("small", "small", size=(8, 8), landmarks=2)


def quantised() -> onnx.ModelProto:
    """Returns a network with a quantised first part and two float layers."""
    nodes = [
        node("Conv", ["input", "w"], ["a"], name="quantised"),
        node("QuantizeLinear", ["a", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("Conv", ["d", "v"], ["b"], name="float"),
        node("GlobalAveragePool", ["b"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "k"], ["p"], name="last"),
        node("Reshape", ["p", "to"], ["landmarks"]),
    ]
    result = model(
        nodes, ("N", 3, 8, 8), w=normal(4, 3, 3, 3), v=normal(4, 4, 3, 3), k=normal(4, 4), to=np.array([-1, 2, 2]),
        s=np.float32(0.02), z=np.uint8(128),
    )  # fmt: skip
    result.graph.input[0].name = "input"
    result.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info("landmarks", onnx.TensorProto.FLOAT, ["N", 2, 2])
    )
    return result


def test_float16_keeps_everything_before_a_quantiser() -> None:
    result, decisions = float16.plugin.apply(quantised(), PassContext(spec=SPEC))
    assert "quantised" in decisions["quantised"]
    kinds = {tensor.name.split("_")[0]: tensor.data_type for tensor in result.graph.initializer}
    assert kinds["w"] == onnx.TensorProto.FLOAT
    assert kinds["v"] == onnx.TensorProto.FLOAT16


def test_int8_of_a_quantised_network_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError) as refused:
        check_float("small", quantised(), Precision.INT8)
    message = "small is quantised already: its graph has DequantizeLinear, QuantizeLinear (ask for fp32"
    assert str(refused.value).startswith(message)
    check_float("small", quantised(), Precision.FP32)
