"""The int8 pass, on small networks built here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lmconv.errors import UsageError
from lmconv.graph.index import Graph
from lmconv.passes.int8 import plugin
from lmconv.quantise.equalise import equalise
from lmconv.quantise.observe import observe
from lmconv.quantise.plan import QuantiserOptions, plan
from lmconv.quantise.rounding import make_affine, round_weights, weight_scale
from lmconv.quantise.static import quantise
from lmconv.types import Float32, PassContext, QuantScheme, landmark_spec

SPEC = landmark_spec("small", "onnx", size=(16, 16), landmarks=4)
UINT8 = QuantScheme(activations="uint8", bracket=True, reason="x86")
INT8 = QuantScheme(activations="int8", bracket=False, reason="ARM")
FUSED = QuantScheme(activations="int8", bracket=False, reason="TensorRT", weights="float32", fuse_sums=True)


class Network:
    """Builds a small graph with seeded weights, operator by operator."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(7)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[np.float32]] = {}

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node; returns the name of its output."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, *shape: int, scale: float = 1.0) -> str:
        """Adds normally distributed weights; returns their name."""
        self.constants[name] = (self.rng.normal(size=shape) * scale).astype(np.float32)
        return name

    def conv(self, x: str, fan_in: int, outputs: int, *, kernel: int = 3, group: int = 1) -> str:
        """Adds a convolution whose output channels differ in range by a factor of ten."""
        name = f"w{len(self.nodes)}"
        self.constant(name, outputs, fan_in // group, kernel, kernel, scale=(fan_in // group * kernel**2) ** -0.5)
        self.constants[name] *= np.geomspace(0.3, 3, outputs, dtype=np.float32).reshape(-1, 1, 1, 1)
        bias = self.constant(f"{name}b", outputs, scale=0.3)
        return self.add("Conv", x, name, bias, group=group, kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4)

    def model(self, output: str, features: int) -> onnx.ModelProto:
        """Adds global pooling and a linear head to (N, 4, 2); returns the graph."""
        flat = self.add("Flatten", self.add("GlobalAveragePool", output))
        head = self.add("Gemm", flat, self.constant("head", 8, features), self.constant("headb", 8), transB=1)
        self.nodes.append(helper.make_node("Reshape", [head, "shape"], ["landmarks"], name="landmarks"))
        initializers = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        initializers.append(numpy_helper.from_array(np.array([-1, 4, 2]), "shape"))
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["N", 3, 16, 16])],
            [helper.make_tensor_value_info("landmarks", onnx.TensorProto.FLOAT, ["N", 4, 2])],
            initializers,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def residual() -> onnx.ModelProto:
    net = Network()
    start = net.conv("input", 3, 8)
    branch = net.conv(net.add("Relu", net.conv(start, 8, 16, kernel=1)), 16, 8)
    return net.model(net.add("Add", start, branch), 8)


def depthwise() -> onnx.ModelProto:
    net = Network()
    wide = net.add("Relu", net.conv("input", 3, 16))
    deep = net.add("Relu", net.conv(wide, 16, 16, group=16))
    return net.model(net.add("Relu", net.conv(deep, 16, 8, kernel=1)), 8)


def prelu() -> onnx.ModelProto:
    net = Network()
    net.constants["slope"] = np.linspace(0.1, 1.5, 16, dtype=np.float32).reshape(16, 1, 1)
    wide = net.add("PRelu", net.conv("input", 3, 16), "slope")
    return net.model(net.conv(wide, 16, 8), 8)


def unknown() -> onnx.ModelProto:
    net = Network()
    odd = net.add("Erf", net.conv("input", 3, 8))
    return net.model(net.conv(odd, 8, 8), 8)


def branching() -> onnx.ModelProto:
    """A network with a layer that an int8 layer and float operators read."""
    net = Network()
    start = net.add("Relu", net.conv("input", 3, 8))
    pooled = net.add("AveragePool", start, kernel_shape=[3, 3], pads=[1] * 4)
    return net.model(net.add("Add", net.add("Abs", pooled), net.conv(start, 8, 8)), 8)


NETWORKS = [residual, depthwise, prelu, unknown]


@pytest.fixture(scope="module")
def crops() -> Float32:
    return np.random.default_rng(3).random((24, 3, 16, 16), np.float32)


def apply(model: onnx.ModelProto, crops: Float32, scheme: QuantScheme = UINT8) -> onnx.ModelProto:
    return plugin.apply(model, PassContext(spec=SPEC, crops=crops, scheme=scheme))[0]


def run(model: onnx.ModelProto, x: Float32) -> Float32:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    output: Float32 = session.run(None, {"input": x})[0]
    return output


def constants(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def relative_error(model: onnx.ModelProto, quantised: onnx.ModelProto, x: Float32) -> float:
    exact = run(model, x)
    return float(np.abs(run(quantised, x) - exact).mean() / exact.std())


@pytest.mark.parametrize("scheme", [UINT8, INT8], ids=["uint8", "int8"])
@pytest.mark.parametrize("build", NETWORKS)
def test_outputs_stay_within_three_percent(
    build: Callable[[], onnx.ModelProto], scheme: QuantScheme, crops: Float32
) -> None:
    unseen = np.random.default_rng(4).random((8, 3, 16, 16), np.float32)

    assert relative_error(build(), apply(build(), crops, scheme), unseen) < 0.03


@pytest.mark.parametrize("build", NETWORKS)
def test_the_graph_is_valid_and_has_standard_operators_only(
    build: Callable[[], onnx.ModelProto], crops: Float32
) -> None:
    model = apply(build(), crops)

    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]


def test_weights_are_symmetric_int8_with_a_scale_per_output_channel(crops: Float32) -> None:
    model = apply(depthwise(), crops)
    values = constants(model)
    restored = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in values]

    assert len(restored) == 3
    for node in restored:
        weights, scale, zero = (values[name] for name in node.input)
        assert weights.dtype == zero.dtype == np.int8
        assert scale.shape == zero.shape == (weights.shape[0],)
        assert not zero.any()


def test_an_int8_scheme_has_no_unsigned_tensor_and_no_zero_point(crops: Float32) -> None:
    values = constants(apply(residual(), crops, INT8))

    assert all(value.dtype != np.uint8 for value in values.values())
    assert all(not value.any() for name, value in values.items() if name.endswith("zero_point"))


def test_a_uint8_scheme_uses_the_whole_range_for_outputs_of_a_relu(crops: Float32) -> None:
    values = constants(apply(depthwise(), crops))
    zero_points = {name: value for name, value in values.items() if name.startswith("relu") and "zero" in name}

    assert zero_points
    assert all(value.dtype == np.uint8 and value == 0 for value in zero_points.values())


def test_the_activation_function_stays_next_to_its_convolution(crops: Float32) -> None:
    model = apply(residual(), crops)
    readers = {name: node.op_type for node in model.graph.node for name in node.input}
    branch = next(node for node in model.graph.node if node.op_type == "Relu")

    assert readers[branch.input[0]] == "Relu"
    assert readers[branch.output[0]] == "QuantizeLinear"


def test_both_inputs_of_a_residual_sum_are_quantised(crops: Float32) -> None:
    model = apply(_pooled_twice(residual()), crops)
    total = next(node for node in model.graph.node if node.op_type == "Add")

    assert all(name.endswith("_dequantized") for name in total.input)


def test_a_layer_fused_with_a_sum_keeps_a_float_output(crops: Float32) -> None:
    model = apply(_pooled_twice(residual()), crops, FUSED)
    total = next(node for node in model.graph.node if node.op_type == "Add")
    makers = {node.output[0]: node.op_type for node in model.graph.node}

    assert sorted(makers[name] for name in total.input) == ["Conv", "DequantizeLinear"]


def test_float_weights_pass_a_qdq_pair_that_restores_the_integers(crops: Float32) -> None:
    whole, paired = (apply(residual(), crops, replace(INT8, weights=kind)) for kind in ("int8", "float32"))
    values, floats = constants(whole), constants(paired)
    quantised = [node for node in paired.graph.node if node.op_type == "QuantizeLinear" and node.input[0] in floats]

    assert len(quantised) == sum(value.dtype == np.int8 and value.ndim == 4 for value in values.values()) > 0
    for node in quantised:
        real, scale, zero = (floats[name] for name in node.input)
        steps = np.rint(real.astype(np.float32) / scale.astype(np.float32).reshape(-1, 1, 1, 1))
        assert [real.dtype.name, zero.dtype.name] == ["float32", "int8"]
        assert np.array_equal(steps, values[node.input[0]])
    assert np.array_equal(run(whole, crops[:4]), run(paired, crops[:4]))


def _pooled_twice(model: onnx.ModelProto) -> onnx.ModelProto:
    """Adds a convolution after the sum, because only inputs of int8 operators are quantised."""
    add = next(node for node in model.graph.node if node.op_type == "Add")
    pool = next(node for node in model.graph.node if node.op_type == "GlobalAveragePool")
    weights = numpy_helper.from_array(np.eye(8, dtype=np.float32).reshape(8, 8, 1, 1), "last")
    model.graph.initializer.append(weights)
    index = list(model.graph.node).index(pool)
    model.graph.node.insert(index, helper.make_node("Conv", [add.output[0], "last"], ["last_out"], name="last"))
    pool.input[0] = "last_out"
    return model


@pytest.mark.parametrize(("scheme", "bracketed"), [(UINT8, True), (INT8, False)], ids=["uint8", "int8"])
def test_a_prelu_reads_int8_only_if_layers_are_bracketed(scheme: QuantScheme, bracketed: bool, crops: Float32) -> None:
    node = next(node for node in apply(prelu(), crops, scheme).graph.node if node.op_type == "PRelu")

    assert node.input[0].endswith("_dequantized") is bracketed


def test_an_unknown_operator_stays_float(crops: Float32) -> None:
    node = next(node for node in apply(unknown(), crops, INT8).graph.node if node.op_type == "Erf")

    assert not node.input[0].endswith("_dequantized")


@pytest.mark.parametrize("build", [residual, depthwise, prelu, branching])
def test_onnx_runtime_has_an_integer_kernel_for_every_layer_but_the_head(
    build: Callable[[], onnx.ModelProto], crops: Float32, tmp_path: Path
) -> None:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "as_run.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(apply(build(), crops).SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "as_run.onnx").graph.node)

    layers = sum(node.op_type == "Conv" for node in build().graph.node)
    assert kinds["QLinearConv"] == layers
    assert kinds["Gemm"] + kinds["FusedGemm"] == 1
    assert kinds["Conv"] + kinds["FusedConv"] == 0


def test_a_layer_with_a_network_output_stays_float_if_layers_are_bracketed(
    crops: Float32,
) -> None:
    model = residual()
    last = [node for node in model.graph.node if node.op_type == "Conv"][-1].output[0]
    model.graph.output.append(helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, ["N", 8, 16, 16]))

    for scheme, quantised in ((UINT8, 2), (INT8, 3)):
        _, decisions = plugin.apply(model, PassContext(spec=SPEC, crops=crops, scheme=scheme))
        assert decisions["layers"] == quantised


def test_the_last_fully_connected_layer_stays_float_and_is_named(crops: Float32) -> None:
    model, decisions = plugin.apply(residual(), PassContext(spec=SPEC, crops=crops, scheme=UINT8))
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")

    assert gemm.input[1] == "head"
    assert decisions["float_layers"] == [gemm.name]


def test_the_last_fully_connected_layer_is_quantised_on_request(crops: Float32) -> None:
    settings = QuantiserOptions(activations="uint8", float_head=False)
    model, _ = quantise(residual(), crops, settings)

    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    assert all(name.endswith("_dequantized") for name in gemm.input[:2])
    assert relative_error(residual(), model, crops) < 0.03


@pytest.mark.parametrize("build", NETWORKS)
def test_the_same_input_gives_the_same_bytes(build: Callable[[], onnx.ModelProto], crops: Float32) -> None:
    assert apply(build(), crops).SerializeToString() == apply(build(), crops).SerializeToString()


@pytest.mark.parametrize("build", [residual, depthwise, prelu])
def test_equalisation_leaves_the_float_network_unchanged(build: Callable[[], onnx.ModelProto], crops: Float32) -> None:
    model = build()
    graph = Graph.of(model)
    before = {name: value.copy() for name, value in graph.constants.items()}
    statistics = observe(graph, crops)
    selection = plan(graph, QuantiserOptions(activations="uint8"), statistics.ranges)
    count, _ = equalise(graph, selection, statistics, 0.5)
    changed = build()
    del changed.graph.initializer[:]
    changed.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in graph.constants.items())

    assert count
    assert any(not np.array_equal(before[name], value) for name, value in graph.constants.items())
    np.testing.assert_allclose(run(changed, crops), run(model, crops), rtol=1e-4, atol=1e-4)


def test_bias_correction_reduces_the_mean_output_error(crops: Float32) -> None:
    model = depthwise()

    def mean_error(correct: bool) -> float:
        settings = QuantiserOptions(activations="uint8", adaptive_rounding=False, correct_bias=correct)
        quantised, _ = quantise(model, crops, settings)
        return float(np.abs((run(quantised, crops) - run(model, crops)).mean(axis=0)).mean())

    assert mean_error(correct=True) < 0.5 * mean_error(correct=False)


def test_the_bias_of_a_float_head_corrects_the_mean_output_error(crops: Float32) -> None:
    model = residual()
    mean_error = (run(apply(model, crops), crops) - run(model, crops)).mean(axis=0)

    assert np.abs(mean_error).max() < 1e-3 * run(model, crops).std()


@pytest.mark.parametrize("build", NETWORKS)
def test_a_rough_graph_has_the_nodes_of_the_whole_quantisation(
    build: Callable[[], onnx.ModelProto], crops: Float32
) -> None:
    rough, exact = (
        quantise(build(), crops, QuantiserOptions(activations="uint8", rough=rough))[0].graph for rough in (True, False)
    )
    assert rough.node == exact.node
    shapes = [
        [(tensor.name, tensor.data_type, *tensor.dims) for tensor in graph.initializer] for graph in (rough, exact)
    ]
    assert shapes[0] == shapes[1]


def test_activation_statistics_are_valid_for_all_settings(crops: Float32) -> None:
    model = depthwise()
    seen = observe(Graph.of(model), crops)

    for balance in (0.5, 1.0):
        settings = QuantiserOptions(activations="uint8", balance=balance)
        assert quantise(model, crops, settings, seen)[0] == quantise(model, crops, settings)[0]


def test_adaptive_rounding_reduces_a_layers_error_on_correlated_inputs() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 32)) + 0.1 * rng.normal(size=(500, 32))
    rows = 20 * rng.normal(size=(8, 32))

    def error(covariance: NDArray[np.float64] | None) -> float:
        return float(np.square(x @ (round_weights(rows, covariance) - rows).T).mean())

    assert error(np.cov(x.T)[None]) < 0.5 * error(None)


def test_two_weights_times_uint8_never_overflow_int16(crops: Float32) -> None:
    model = apply(residual(), crops)

    for value in constants(model).values():
        if value.dtype == np.int8 and value.ndim == 4:
            ranked = np.sort(value.reshape(len(value), -1).astype(int), axis=1)
            assert ranked[:, -2:].sum(axis=1).max() <= 128
            assert ranked[:, :2].sum(axis=1).min() >= -128


def test_one_large_weight_keeps_the_whole_range() -> None:
    assert weight_scale(np.array([[127.0, 0.5, -0.5]]), "uint8") == pytest.approx(1.0, rel=0.01)
    assert weight_scale(np.array([[127.0, 127.0]]), "uint8") == pytest.approx(2.0, rel=0.01)
    assert weight_scale(np.array([[127.0, 127.0]]), "int8") == pytest.approx(1.0)


def test_a_dead_channel_with_a_bias_does_not_overflow(crops: Float32) -> None:
    model = residual()
    for tensor in model.graph.initializer:
        if tensor.name == "w0":
            weights = numpy_helper.to_array(tensor).copy()
            weights[0] = 1e-12
            tensor.CopyFrom(numpy_helper.from_array(weights, "w0"))

    assert relative_error(model, apply(model, crops), crops) < 0.03


def test_a_graph_with_batch_size_1_is_calibrated_crop_by_crop(crops: Float32) -> None:
    model = residual()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1

    assert relative_error(residual(), _free_batch(apply(model, crops)), crops) < 0.03


def _free_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    return model


@pytest.mark.parametrize("missing", [None, np.zeros((0, 3, 16, 16), np.float32)], ids=["none", "empty"])
def test_calibration_without_crops_is_refused(missing: Float32 | None) -> None:
    with pytest.raises(UsageError, match="crops"):
        plugin.apply(residual(), PassContext(spec=SPEC, crops=missing, scheme=UINT8))


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_a_tensor_of_denormal_range_counts_as_zero(kind: str) -> None:
    """A denormal scale would be slow, and its inverse infinite."""
    assert make_affine(-1e-38, 1e-37, kind).scale == 1.0
    assert make_affine(0.0, 1e-10, kind).scale < 1e-11
