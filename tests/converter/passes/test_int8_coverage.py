"""Coverage of int8: no operator stops the quantiser, and every layer in float has a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper, parser

from lmconv.building.optimise import optimise
from lmconv.errors import GateFailed
from lmconv.passes.int8 import plugin
from lmconv.types import Float32, Json, PassContext, QuantScheme, landmark_spec

SPEC = landmark_spec("small", "onnx", size=(16, 16), landmarks=4)
UINT8 = QuantScheme(activations="uint8", bracket=True, reason="ONNX Runtime")
OPEN = QuantScheme(activations="uint8", bracket=False, reason="OpenVINO", deconvolutions=True)
SCHEMES = pytest.mark.parametrize("scheme", [UINT8, OPEN], ids=["bracketed", "open"])

BETWEEN = {
    "sub_of_a_mean": "m = ReduceMean <keepdims: int = 1> (a, axes)  z = Sub(a, m)",
    "div": "s = Add(a, three)  c = Clip(s, zero, six)  d = Div(c, six)  z = Mul(a, d)",
    "reflect_pad": 'p = Pad <mode: string = "reflect"> (a, pads)  z = Slice(p, start, end, both)',
    "pad_with_ones": "p = Pad(a, pads, one)  z = Slice(p, start, end, both)",
    "pad_of_two_axes": "p = Pad(a, four, , both)  z = Slice(p, start, end, both)",
    "resize_of_two_axes": """r = Resize <mode: string = "nearest", axes: ints = [2, 3]> (a, , double)
        z = MaxPool <kernel_shape: ints = [2, 2], strides: ints = [2, 2]> (r)""",
    "resize_to_sizes": """r = Resize <axes: ints = [3, 2], keep_aspect_ratio_policy: string = "not_larger">
            (a, , , sides)
        z = Resize <axes: ints = [-2, -1]> (r, , , start_sides)""",
    "center_crop_pad": """p = CenterCropPad <axes: ints = [2, 3]> (a, sides)
        z = CenterCropPad <axes: ints = [3, 2]> (p, start_sides)""",
    "split": "s, t = Split <axis: int = 1, num_outputs: int = 2> (a)  z = Concat <axis: int = 1> (t, s)",
    "chunk_and_sum": """s, t = Split <axis: int = 1, num_outputs: int = 2> (a)
        u = Add(s, t)  z = Concat <axis: int = 1> (u, t)""",
    "elu": "z = Elu(a)",
    "tanh": "z = Tanh(a)",
    "mish": "z = Mish(a)",
    "gelu": "r = Div(a, two)  e = Erf(r)  f = Add(e, one)  z = Mul(a, f)",
    "softmax": "z = Softmax <axis: int = 1> (a)",
    "layer_norm": """t = Transpose <perm: ints = [0, 2, 3, 1]> (a)  n = LayerNormalization(t, gain)
        z = Transpose <perm: ints = [0, 3, 1, 2]> (n)""",
    "pixel_shuffle": "d = DepthToSpace <blocksize: int = 2> (a)  z = SpaceToDepth <blocksize: int = 2> (d)",
    "min": "z = Min(a, one)",
    "half_precision": "i = Cast <to: int = 10> (a)  z = Cast <to: int = 1> (i)",
    "computed_shape": "s = Shape(a)  z = Reshape(a, s)",
    "sequence": """q = SplitToSequence <axis: int = 1, keepdims: int = 1> (a)
        z = ConcatFromSequence <axis: int = 1> (q)""",
    "branch": """c = Greater(one, zero)  z = If (c) <
        then_branch = then () => (float[N,8,16,16] u) { u = Relu(a) },
        else_branch = other () => (float[N,8,16,16] v) { v = Neg(a) }>""",
    "half_weights": """i = Cast <to: int = 10> (a)  v = Cast <to: int = 10> (w2)
        o = Conv <pads: ints = [1, 1, 1, 1]> (i, v)  z = Cast <to: int = 1> (o)""",
    "quantised": "q = QuantizeLinear(a, a_scale, a_zero_point)  z = DequantizeLinear(q, a_scale, a_zero_point)",
}
"""Nodes from `a` to `z`, both (N, 8, 16, 16) float32, between two convolutions."""


def network(between: str, *, last: str = "y = Conv <pads: ints = [1, 1, 1, 1]> (z, w2, b2)") -> onnx.ModelProto:
    """Builds a network: a convolution, the nodes `between`, the layer `last`, and a fully connected head."""
    rng = np.random.default_rng(7)

    def weights(*shape: int) -> Float32:
        return (rng.normal(size=shape) * np.prod(shape[1:]) ** -0.5).astype(np.float32)

    constants: dict[str, Any] = {
        "w1": weights(8, 3, 3, 3), "b1": weights(8), "w2": weights(8, 8, 3, 3), "b2": weights(8),
        "wh": weights(8, 8), "bh": weights(8), "shape": [-1, 4, 2], "axes": [2, 3], "zero": np.float32(0),
        "one": np.float32(1), "two": np.float32(2), "three": np.float32(3), "six": np.float32(6),
        "pads": [0, 0, 1, 1, 0, 0, 1, 1], "start": [1, 1], "end": [17, 17], "both": [2, 3],
        "gain": np.ones(8, np.float32), "a_scale": np.float32(0.05), "a_zero_point": np.uint8(128),
        "matrix": weights(16, 16), "w3": weights(8, 8, 3), "sequence": [0, 8, 256], "three1": [3],
        "one1": [1], "four": [1, 1, 1, 1], "double": np.ones(2, np.float32) * 2, "sides": [9, 23],
        "start_sides": [16, 16], "nine": [9], "rows": [0, 8, 1, 256],
        "cube": weights(8, 16, 64),
    }  # fmt: skip
    graph = parser.parse_graph(
        f"""small (float[N,3,16,16] input) => (float[N,4,2] landmarks) {{
            a = Conv <pads: ints = [1, 1, 1, 1]> (input, w1, b1)  {between}  {last}
            pool = GlobalAveragePool(y)  flat = Flatten(pool)  h = Gemm <transB: int = 1> (flat, wh, bh)
            landmarks = Reshape(h, shape) }}"""
    )
    used = {name for node in graph.node for name in node.input}
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used
    )
    for node in graph.node:
        node.name = node.output[0]
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture(scope="module")
def crops() -> Float32:
    return np.random.default_rng(3).random((20, 3, 16, 16), np.float32)


def quantised(model: onnx.ModelProto, crops: Float32, scheme: QuantScheme = UINT8) -> tuple[onnx.ModelProto, Json]:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return plugin.apply(copy, PassContext(spec=SPEC, crops=crops, scheme=scheme))


def run(model: onnx.ModelProto, x: Float32) -> Float32:
    output: Float32 = ort.InferenceSession(model.SerializeToString()).run(None, {"input": x})[0]
    return output


def reasons(decisions: Json) -> dict[str, list[str]]:
    return {reason: group["layers"] for reason, group in decisions["float"].items()}


@SCHEMES
@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
def test_layers_behind_any_operator_are_int8(between: str, scheme: QuantScheme, crops: Float32) -> None:
    model = network(between)
    result, decisions = quantised(model, crops, scheme)

    onnx.checker.check_model(result, full_check=True)
    assert decisions["float_layers"] == ["h"]
    exact = run(model, crops)
    assert np.abs(run(result, crops) - exact).mean() < 0.03 * exact.std()


def test_the_decisions_count_multiply_accumulates(crops: Float32) -> None:
    _, decisions = quantised(network("z = Tanh(a)"), crops)

    convolutions = 16 * 16 * 9 * (3 * 8 + 8 * 8)
    assert (decisions["int8_macs"], decisions["macs"]) == (convolutions, convolutions + 8 * 8)
    assert decisions["float_layers"] == ["h"]
    assert reasons(decisions) == {"fully connected head: its errors are errors of the landmarks": ["h"]}
    assert decisions["warnings"] == []


FLOAT_LAYERS = {
    "weights are computed": """g = ReduceMax <keepdims: int = 1> (z)  w = Mul(w2, g)
        y = Conv <pads: ints = [1, 1, 1, 1]> (z, w, b2)""",
    "weights on the left": "y = MatMul(matrix, z)",
    "the target has no integer kernel for ConvTranspose": "y = ConvTranspose <pads: ints = [1, 1, 1, 1]> (z, w2, b2)",
    "weights have 3 axes": "y = MatMul(z, cube)",
}
"""The last layer before the head, by the reason why it stays in float."""


@pytest.mark.parametrize(("reason", "last"), FLOAT_LAYERS.items(), ids=FLOAT_LAYERS)
def test_a_layer_that_cannot_be_int8_stays_float_with_a_reason(reason: str, last: str, crops: Float32) -> None:
    _, decisions = quantised(network("z = Tanh(a)", last=last), crops)

    assert len(reasons(decisions)[reason]) == 1
    assert "1 of 3 layers" in decisions["warnings"][0]
    assert any(reason in line for line in decisions["warnings"])


@pytest.mark.parametrize(("activation", "layers"), [("Relu", 2), ("Tanh", 1)])
def test_openvino_has_an_integer_convtranspose_for_values_that_are_never_negative(
    activation: str, layers: int, crops: Float32
) -> None:
    last = "y = ConvTranspose <strides: ints = [2, 2]> (z, w2, b2)"
    model = network(f"z = {activation}(a)", last=last)
    result, decisions = quantised(model, crops, OPEN)

    assert decisions["layers"] == layers
    assert np.abs(run(result, crops) - run(model, crops)).mean() < 0.03 * run(model, crops).std()


@pytest.mark.parametrize("gain", [1.0, 1e-5])
def test_a_layer_that_feeds_an_arg_max_stays_float_if_int8_moves_the_landmarks(gain: float, crops: Float32) -> None:
    last = f"""t = Constant <value_float: float = {gain:f}> ()
        m = Conv <pads: ints = [1, 1, 1, 1]> (z, w2, b2)  r = Reshape(m, rows)
        c = ArgMax <axis: int = 3> (r)
        f = Cast <to: int = 1> (c)  g = Mul(f, t)  y = Add(z, g)"""
    _, decisions = quantised(network("z = Tanh(a)", last=last), crops)

    kept = [layers for reason, layers in reasons(decisions).items() if "feeds an arg-max" in reason]
    assert kept == ([["m"]] if gain == 1.0 else [])


def test_layers_inside_a_branch_are_counted(crops: Float32) -> None:
    between = """c = Greater(one, zero)  z = If (c) <
        then_branch = then () => (float[N,8,16,16] u) { u = Conv <pads: ints = [1, 1, 1, 1]> (a, w2, b2) },
        else_branch = other () => (float[N,8,16,16] v) { v = Neg(a) }>"""
    _, decisions = quantised(network(between), crops)

    assert (decisions["layers"], decisions["of"]) == (2, 4)
    assert "inside If" in decisions["float"]


def test_a_network_without_int8_layers_is_refused(crops: Float32) -> None:
    model = network("z = Tanh(a)", last="y = MatMul(matrix, z)")
    nodes = [node for node in model.graph.node if node.op_type not in ("Conv", "Gemm")]
    nodes[0].input[0] = "input"
    nodes[-1].input[0] = "flat"
    del model.graph.node[:]
    model.graph.node.extend(nodes)

    with pytest.raises(GateFailed, match=r"int8 would leave every layer of small in float: 1 layer, .*on the left"):
        quantised(model, crops[:16])


def test_names_of_the_network_do_not_collide_with_names_of_the_quantiser(crops: Float32) -> None:
    model = network("a_dequantized = Tanh(a)  a_quantized = Neg(a_dequantized)  z = Add(a_dequantized, a_quantized)")
    result, _ = quantised(model, crops)

    onnx.checker.check_model(result, full_check=True)
    np.testing.assert_allclose(run(result, crops), run(model, crops), atol=0.05)


WEIGHTS = {
    "dequantised": "v = Mul(w2, six)  i = Cast <to: int = 3> (v)  w = DequantizeLinear(i, a_scale)",
    "transposed": "w = Transpose <perm: ints = [1, 0, 3, 2]> (w2)",
    "of_a_constant_node": "w = Identity(w2)",
    "widened": "i = Cast <to: int = 10> (w2)  w = Cast <to: int = 1> (i)",
}
"""Nodes that compute the weights `w` from `w2`, constants alone."""


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_nodes_compute_from_constants_are_int8(weights: str, crops: Float32) -> None:
    model = network(f"z = Tanh(a)  {weights}", last="y = Conv <pads: ints = [1, 1, 1, 1]> (z, w, b2)")
    result, decisions = quantised(model, crops)

    assert decisions["layers"] == 2
    exact = run(model, crops)
    assert np.abs(run(result, crops) - exact).mean() < 0.03 * max(exact.std(), 0.1)


def test_alpha_and_beta_of_a_gemm_move_into_its_constants(crops: Float32) -> None:
    last = """pool0 = GlobalAveragePool(z)  flat0 = Flatten(pool0)
        g = Gemm <alpha: float = 0.5, beta: float = 2.0> (flat0, wh, bh)  r = Relu(g)  y = Unsqueeze(r, both)"""
    model = network("z = Tanh(a)", last=last)
    result, decisions = quantised(model, crops)

    assert decisions["float_layers"] == ["h"]
    assert np.abs(run(result, crops) - run(model, crops)).mean() < 0.03


@pytest.mark.parametrize("layer", ["Conv", "MatMul"])
def test_channels_are_on_the_axis_of_the_layer(layer: str, crops: Float32) -> None:
    """A convolution of (N, C, L) and a linear layer of (N, H, W, C) values correct the bias of the right channel."""
    flat = "i = Reshape(z, sequence)  j = Conv <pads: ints = [1, 1]> (i, w3, b2)  y = Unsqueeze(j, three1)"
    last = "t = Transpose <perm: ints = [0, 2, 3, 1]> (z)  l = MatMul(t, wh)  m = Add(l, b2)  r = Relu(m)"
    last += "  y = Transpose <perm: ints = [0, 3, 1, 2]> (r)"
    model = network("z = Tanh(a)", last=flat if layer == "Conv" else last)
    result, decisions = quantised(model, crops)

    assert decisions["layers"] == 2
    exact = run(model, crops)
    assert np.abs((run(result, crops) - exact).mean(axis=0)).max() < 0.01 * exact.std()


def test_warnings_of_a_pass_reach_the_user(crops: Float32) -> None:
    model = network("z = Tanh(a)", last="y = MatMul(matrix, z)")
    result = optimise(model, ["int8"], PassContext(spec=SPEC, crops=crops, scheme=UINT8))

    assert "int8 computes only" in result.warnings[0]
    assert "warnings" not in result.recipe[0]["decisions"]


def test_openvino_averages_integers_without_rounding_the_averages_to_their_scale(crops: Float32) -> None:
    openvino = pytest.importorskip("openvino")
    between = "s, t = Split <axis: int = 1, num_outputs: int = 2> (a)  z = Concat <axis: int = 1> (t, s)"
    last = "v = Conv <pads: ints = [1, 1, 1, 1]> (z, w2, b2)  k = AveragePool <kernel_shape: ints = [16, 16]> (z)"
    model = network(between, last=f"{last}  n = Mul(k, six)  y = Add(v, n)")
    result, _ = quantised(model, crops, OPEN)

    (after,) = (node.op_type for node in result.graph.node if "k" in node.input)
    assert after == "QuantizeLinear"
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(openvino.Core().read_model(result.SerializeToString()), "CPU", settings)
    np.testing.assert_allclose(compiled([crops])[0], run(result, crops), atol=0.02)


@SCHEMES
def test_a_slice_of_int8_values_has_a_second_pair_only_if_layers_are_bracketed(
    scheme: QuantScheme, crops: Float32
) -> None:
    between = "c = Concat <axis: int = 1> (a, a)  z = Slice(c, one1, nine, one1)"
    model = network(between)
    result, decisions = quantised(model, crops, scheme)

    assert decisions["layers"] == 2
    (conv,) = (node for node in result.graph.node if node.output[0] == "y")
    assert conv.input[0] == ("z_dequantized" if scheme.bracket else "z")
    exact = run(model, crops)
    assert np.abs(run(result, crops) - exact).mean() < 0.03 * exact.std()
