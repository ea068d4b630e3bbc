"""The pass `denormals` on planted networks: weights that cannot matter, weights that do, computed denormal numbers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from lmconv.compaction.compact import compact
from lmconv.graph.denormals import count
from lmconv.graph.facts import copied
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import noise
from lmconv.passes.denormals import plugin
from lmconv.types import Float32, Json, PassContext, landmark_spec

SPEC = landmark_spec("planted", "onnx", size=(8, 8), landmarks=4)
RANDOM = np.random.default_rng(3)
CONV = "Conv<pads = [1, 1, 1, 1]>"
HEAD = "f = ReduceMean<keepdims = 0>(u, spatial) g = Gemm(f, head) landmarks = Reshape(g, points)"


def normal(*shape: int) -> Float32:
    return RANDOM.normal(0, 0.3, shape).astype(np.float32)


def network(body: str, **constants: NDArray[np.generic]) -> onnx.ModelProto:
    """Builds a network with 4 channels `u` before its head."""
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18]> g (float[N, 3, 8, 8] input) => (float[N, 4, 2] landmarks) {'
        f"{body} {HEAD} }}"
    )
    usual = {
        "first": normal(4, 3, 3, 3),
        "spatial": np.array([2, 3]),
        "head": normal(4, 8),
        "points": np.array([-1, 4, 2]),
    }
    arrays = usual | constants
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    onnx.checker.check_model(model, full_check=True)
    return model


def applied(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Json]:
    return plugin.apply(copied(model), PassContext(spec=SPEC))


def values(model: onnx.ModelProto, name: str) -> NDArray[np.generic]:
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    return numpy_helper.to_array(tensor)


def landmarks(model: onnx.ModelProto) -> NDArray[np.generic]:
    with OrtSession(model.SerializeToString()) as session:
        return session.run({"input": noise(SPEC, 4, 0)})["landmarks"]


def scaled(weights: Float32, row: int, factor: float) -> Float32:
    """Weights with one filter multiplied by a factor."""
    result = weights.copy()
    result[row] *= np.float32(factor)
    return result


def test_a_channel_of_denormal_weights_becomes_dead_and_is_removed() -> None:
    model = network(f"u = {CONV}(input, first)", first=scaled(normal(4, 3, 3, 3), 1, 1e-39))
    result, decisions = applied(model)
    assert (decisions["denormal"], decisions["zero"]) == (27, 27)
    assert count(result) == 0
    np.testing.assert_array_equal(landmarks(result), landmarks(model))
    widths = [compact(each, size=(8, 8)).layers[0].channels[1] for each in (model, result)]
    assert widths == [4, 3]


def test_weights_whose_products_are_lost_in_the_rounding_of_the_sum_become_zero() -> None:
    first = normal(4, 3, 3, 3)
    first[:, 2] *= np.float32(1e-25)
    model = network(f"u = {CONV}(input, first, bias)", first=first, bias=np.full(4, 9, np.float32))
    result, decisions = applied(model)
    assert (decisions["denormal"], decisions["further"]) == (0, 4 * 9)
    assert not values(result, "first")[:, 2].any()
    np.testing.assert_array_equal(values(result, "first")[:, :2], first[:, :2])
    np.testing.assert_array_equal(landmarks(result), landmarks(model))


def test_small_weights_that_make_a_small_sum_stay_and_the_reader_of_the_sum_loses_its_weights() -> None:
    first = scaled(normal(4, 3, 3, 3), 2, 1e-25)
    model = network(f"u = {CONV}(input, first)", first=first)
    result, decisions = applied(model)
    assert decisions["further"] == 8
    np.testing.assert_array_equal(values(result, "first"), first)
    assert not values(result, "head")[2].any()
    assert compact(result, size=(8, 8)).layers[0].channels == (4, 3)


def test_the_smallest_weights_count_together() -> None:
    """Each alone is below half a unit in the last place of the sum, all together are above."""
    first = np.zeros((4, 3, 3, 3), np.float32)
    first[:] = 2.0**-24 / 1024 / 9
    model = network(f"u = {CONV}(input, first, bias)", first=first, bias=np.full(4, 1, np.float32))
    further = applied(model)[1]["further"]
    assert 0 < further < first.size


def test_a_weight_shared_by_two_layers_stays() -> None:
    first = scaled(normal(3, 3, 3, 3), 0, 1e-30)
    body = f"a = {CONV}(input, shared, bias) b = {CONV}(a, shared, bias) c = Relu(b) u = {CONV}(c, first)"
    model = network(body, shared=first, bias=np.full(3, 9, np.float32))
    assert applied(model)[1]["further"] == 0


SLOPES = np.array([0.1, 1e-20, 0.2, 1e-20], np.float32).reshape(4, 1, 1)


def test_a_tiny_constant_through_a_prelu_is_flushed_through() -> None:
    """A channel that is always -1e-20 becomes -1e-40 behind a slope of 1e-20."""
    first, bias = scaled(normal(4, 3, 3, 3), 1, 0), np.array([0.1, -1e-20, 0.1, 0.1], np.float32)
    model = network(f"c = {CONV}(input, first, bias) u = PRelu(c, slopes)", first=first, bias=bias, slopes=SLOPES)
    result, decisions = applied(model)
    assert values(result, "slopes").ravel()[1] == 0
    np.testing.assert_array_equal(np.delete(values(result, "slopes").ravel(), 1), np.delete(SLOPES.ravel(), 1))
    assert decisions["computed"] == {}
    np.testing.assert_array_equal(landmarks(result), landmarks(model))


def test_a_node_that_computes_denormal_numbers_is_named() -> None:
    """Squares of numbers around 1e-20: no constant of the graph is to blame."""
    model = network(f"c = {CONV}(input, first) s = Mul(c, c) u = Relu(s)", first=normal(4, 3, 3, 3) * np.float32(1e-20))
    _, decisions = applied(model)
    assert decisions["computed"]["s (Mul)"] > 0.5
    assert "s (Mul)" in decisions["warnings"][0]
    assert "slow on Intel CPUs" in decisions["warnings"][0]


def test_a_chain_of_small_slopes_is_named() -> None:
    chain = " ".join(f"p{index + 1} = LeakyRelu<alpha = 1e-10>(p{index})" for index in range(4))
    model = network(f"p0 = {CONV}(input, first) {chain} u = Relu(p4)")
    assert list(applied(model)[1]["computed"]) == ["p4 (LeakyRelu)"]


def test_a_denormal_divisor_stays_and_is_named() -> None:
    model = network(
        f"c = {CONV}(input, first) r = Abs(c) d = Add(r, eps) u = Div(c, d)", eps=np.array(1e-40, np.float32)
    )
    result, decisions = applied(model)
    assert result == model
    assert decisions["kept"] == {"eps": "u (Div)"}
    assert "u (Div)" in decisions["warnings"][0]


@pytest.mark.parametrize("place", ["weights", "bias"])
def test_a_network_of_normal_numbers_is_unchanged(place: str) -> None:
    bias = np.zeros(4, np.float32) if place == "weights" else normal(4)
    model = network(f"u = {CONV}(input, first, bias)", bias=bias)
    result, decisions = applied(model)
    assert result == model
    assert decisions == {"denormal": 0, "zero": 0, "further": 0, "kept": {}, "computed": {}, "warnings": []}
