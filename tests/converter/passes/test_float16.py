from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.shape_inference import infer_shapes
from tests.conftest import Once
from tests.converter.passes.building import SPEC, applied, kinds, node, normal, run, small
from tests.helpers import SIZE

from lmconv.building.plain import plain_graph
from lmconv.errors import GateFailed
from lmconv.graph.facts import copied
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import landmarks, noise
from lmconv.passes.float16 import plugin
from lmconv.plugins import PASSES
from lmconv.sources.resolve import resolve
from lmconv.types import Float32, PassContext, landmark_spec

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
WEIGHTED = ("Conv", "Gemm", "MatMul")


def halved(model: onnx.ModelProto, points: int = 68, size: int = SIZE) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    spec = landmark_spec("x", "onnx", size=(size, size), landmarks=points)
    result, _ = PASSES.load("float16").apply(copy, PassContext(spec=spec))
    assert isinstance(result, onnx.ModelProto)
    return result


def run_openvino(model: onnx.ModelProto, x: Float32) -> NDArray[Any]:
    import openvino

    network = openvino.Core().read_model(model.SerializeToString())
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    output: NDArray[Any] = compiled({"x": x})[0]
    return output


@pytest.fixture(scope="module")
def graph(once: Once) -> onnx.ModelProto:
    """The plain graph of drawn68, whose trained weights ship with lmconv."""
    folder = once("drawn68-plain", lambda place: plain_graph(resolve("drawn68"), place))
    return onnx.load(folder / "drawn68" / "plain" / "model.onnx")


@pytest.fixture(scope="module")
def half(graph: onnx.ModelProto) -> onnx.ModelProto:
    return halved(graph, size=64)


def test_inputs_and_outputs_stay_float32(half: onnx.ModelProto) -> None:
    kinds = [value.type.tensor_type.elem_type for value in [*half.graph.input, *half.graph.output]]
    assert kinds == [TensorProto.FLOAT, TensorProto.FLOAT]


def test_all_weights_but_those_of_the_last_layer_are_float16(half: onnx.ModelProto) -> None:
    kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    weighted = [node for node in half.graph.node if node.op_type in WEIGHTED]
    assert kinds[weighted[-1].input[1]] == TensorProto.FLOAT
    halves = sum(kinds[node.input[1]] == TensorProto.FLOAT16 for node in weighted[:-1])
    assert halves > len(weighted) / 2


def test_the_file_is_smaller(graph: onnx.ModelProto, half: onnx.ModelProto) -> None:
    assert half.ByteSize() < 0.85 * graph.ByteSize()  # the last layer stays float32


def test_the_graph_is_valid_and_its_types_are_consistent(half: onnx.ModelProto) -> None:
    onnx.checker.check_model(half, full_check=True)


def test_landmarks_change_a_little(graph: onnx.ModelProto, half: onnx.ModelProto) -> None:
    spec = landmark_spec("drawn68", "drawn68", size=(64, 64), landmarks=68)
    images = noise(spec, 4, 0)
    points = []
    for model in (graph, half):
        with OrtSession(model.SerializeToString()) as session:
            points.append(landmarks(session, spec, images))
    gap = np.abs(points[0] - points[1]).max()
    assert 0 < gap < 2e-3


def test_the_same_graph_gives_the_same_bytes(graph: onnx.ModelProto, half: onnx.ModelProto) -> None:
    again = halved(graph, size=64)
    assert again.SerializeToString(deterministic=True) == half.SerializeToString(deterministic=True)


# Overflow

WEIGHTS = {"first": normal(8, 3, 3, 3), "second": normal(8, 8, 3, 3), "head": normal(8, 8)}
HEAD = (node("GlobalAveragePool", "end", "pooled"), node("Flatten", "pooled", "flat"), node("MatMul", "flat head", "y"))


def layer(inputs: str, output: str) -> onnx.NodeProto:
    return node("Conv", inputs, output, pads=[1] * 4)


def chain(*between: onnx.NodeProto, **constants: Any) -> onnx.ModelProto:
    """A convolution from `x` to `a`, the given nodes from `a` to `b`, a convolution, and a linear layer.

    Constants that are no arrays become float32.
    """
    arrays = {name: value for name, value in constants.items() if isinstance(value, np.ndarray)}
    values = WEIGHTS | {name: np.asarray(value, np.float32) for name, value in constants.items()} | arrays
    nodes = [layer("x first", "a"), *between, layer("b second", "end"), *HEAD]
    return small(nodes, values, shape=("N", 3, 8, 8))


OVERFLOWING = {
    "large activations": (
        chain(node("Relu", "a", "b"), first=WEIGHTS["first"] * 1e4, second=WEIGHTS["second"] * 1e-4),
        ["a", "b", "end"],
    ),
    "clip to a large constant": (chain(node("Clip", "a low high", "b"), low=0, high=1e6), ["b"]),
    "clip to the largest of float32": (
        chain(node("Clip", "a low high", "b"), low=np.finfo(np.float32).min, high=np.finfo(np.float32).max),
        ["b"],
    ),
    "a large constant and its inverse": (
        chain(node("Mul", "a up", "c"), node("Mul", "c down", "b"), up=1e6, down=1e-6),
        ["c", "b"],
    ),
    "a weight beyond its range": (
        chain(
            node("Relu", "a", "b"),
            first=np.where(WEIGHTS["first"] > 2, 7e4, WEIGHTS["first"]),
            second=1e-3 * WEIGHTS["second"],
        ),
        ["a", "b", "end"],
    ),
    "resize by scales": (chain(node("Resize", "a - scales", "b", mode="nearest"), scales=[1, 1, 2, 2]), []),
    "a range that fits": (chain(node("Clip", "a low high", "b"), low=0, high=6), []),
}


@pytest.mark.parametrize("case", OVERFLOWING)
def test_overflowing_nodes_stay_float32_and_are_named(case: str) -> None:
    model, expected = OVERFLOWING[case]
    result, decisions = applied(plugin, model)
    assert decisions["overflow"] == expected
    types = {value.name: value.type.tensor_type.elem_type for value in infer_shapes(result).graph.value_info}
    whole = {name for name in ("a", "b", "c", "end") if types.get(name) == TensorProto.FLOAT}
    assert whole == set(expected)
    assert types.get("flat") == TensorProto.FLOAT16
    x = noise(SPEC, 4, 3)
    before, *after = run(model, x)[0], run(result, x)[0], run_openvino(result, x)
    for output in after:
        assert np.isfinite(output).all()
        np.testing.assert_allclose(output, before, atol=2e-3 * np.abs(before).max())


def test_activations_are_measured_on_faces() -> None:
    model = chain(node("Relu", "a", "b"), first=WEIGHTS["first"] * 1e2, second=WEIGHTS["second"] * 1e-2)
    bright = noise(SPEC, 4, 3) * 1e3
    assert plugin.apply(copied(model), PassContext(spec=SPEC))[1]["overflow"] == []
    assert plugin.apply(copied(model), PassContext(spec=SPEC, crops=bright))[1]["overflow"][:2] == ["a", "b"]


# Constructs


def branch(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    """Branch of an If whose value is the output of the last node."""
    name = nodes[-1].output[0]
    value = onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return onnx.helper.make_graph(list(nodes), name, [], [value])


CONDITION = (node("ReduceMax", "a", "most", keepdims=0), node("Greater", "most limit", "condition"))
CHOICE = onnx.helper.make_node(
    "If",
    ["condition"],
    ["b"],
    name="b",
    then_branch=branch(node("Mul", "a factor", "product")),
    else_branch=branch(node("Identity", "a", "same")),
)
CONSTRUCTS: dict[str, tuple[onnx.ModelProto, str, list[str]]] = {
    "an operator without float16 in ONNX": (chain(node("Celu", "a", "b")), "unsupported", ["b"]),
    "a sequence": (
        chain(node("SplitToSequence", "a", "s", axis=1), node("ConcatFromSequence", "s", "b", axis=1)),
        "unsupported",
        ["s", "b"],
    ),
    "a branch": (chain(*CONDITION, CHOICE, limit=-100, factor=0.5), "unsupported", ["b"]),
    "a Q/DQ pair": (
        chain(node("QuantizeLinear", "a step", "q"), node("DequantizeLinear", "q step", "b"), step=0.05),
        "quantised",
        ["a", "q"],
    ),
    "a function of large values": (
        chain(node("Mul", "a factor", "c"), node("Sin", "c", "b"), factor=500),
        "sensitive",
        ["a", "c", "b"],
    ),
    "a shape that depends on values": (
        chain(
            node("Reshape", "a row", "r"),
            node("Unique", "r", "v", sorted=0),
            node("ReduceMax", "v", "m", keepdims=0),
            node("Mul", "a m", "b"),
            row=np.array([-1]),
        ),
        "sensitive",
        ["a", "r", "v"],
    ),
    "a constant too small for float16": (chain(node("Max", "a low", "b"), low=1e-12), "overflow", ["b"]),
    "a mask of computed values": (
        chain(node("Greater", "a zero", "m"), node("Cast", "m", "f", to=1), node("Mul", "a f", "b"), zero=0),
        "decision",
        ["a", "m", "f", "b"],
    ),
}


@pytest.mark.parametrize("case", CONSTRUCTS)
def test_what_float16_cannot_compute_stays_float32_and_is_named(case: str) -> None:
    model, reason, expected = CONSTRUCTS[case]
    result, decisions = applied(plugin, model)
    assert decisions[reason] == expected
    kinds = {tensor.name: tensor.data_type for tensor in result.graph.initializer}
    assert TensorProto.FLOAT16 in kinds.values()
    x = noise(SPEC, 4, 3)
    before = run(model, x)[0]
    np.testing.assert_allclose(run(result, x)[0], before, atol=2e-3 * np.abs(before).max())


def test_a_transpose_that_ends_the_process_of_onnx_runtime_stays_float32() -> None:
    constants = {"w": normal(8, 8), "v": normal(8, 8)}
    turned = node("Transpose", "a", "b", perm=[1, 0, 2, 3])
    nodes = [node("MatMul", "x w", "m"), node("Relu", "m", "a"), turned, node("MatMul", "b v", "c")]
    model = small([*nodes, node("MatMul", "c v", "y")], constants, shape=("N", 3, 8, 8))
    result, decisions = applied(plugin, model)
    assert decisions["unsupported"] == ["b"]
    x = normal(3, 3, 8, 8)
    before = run(model, x)[0]
    np.testing.assert_allclose(run(result, x)[0], before, atol=5e-3 * np.abs(before).max())


def test_an_operator_of_the_runtime_alone_stays_float32() -> None:
    model = chain(node("Relu", "a", "b"))
    model.graph.node[1].op_type, model.graph.node[1].domain = "QuickGelu", "com.microsoft"
    model.opset_import.add(domain="com.microsoft", version=1)
    result, decisions = plugin.apply(copied(model), PassContext(spec=SPEC))
    assert decisions["unsupported"] == ["b"]
    x = noise(SPEC, 4, 3)
    before = run(model, x)[0]
    np.testing.assert_allclose(run(result, x)[0], before, atol=2e-3 * np.abs(before).max())


def test_a_network_that_is_float16_between_casts_stays_as_it_is() -> None:
    half = {name: value.astype(np.float16) for name, value in WEIGHTS.items()}
    nodes = [node("Cast", "x", "h", to=10), layer("h first", "a"), node("Relu", "a", "b"), layer("b second", "end")]
    model = small(
        [*nodes, *HEAD[:-1], node("MatMul", "flat head", "z"), node("Cast", "z", "y", to=1)], half, shape=("N", 3, 8, 8)
    )
    result, _ = applied(plugin, model)
    assert kinds(result) == kinds(model)
    x = noise(SPEC, 4, 3)
    np.testing.assert_array_equal(run(result, x)[0], run(model, x)[0])


def test_a_cast_to_float16_inside_the_network_is_not_repeated() -> None:
    model = chain(node("Cast", "a", "c", to=10), node("Cast", "c", "b", to=1))
    result, _ = applied(plugin, model)
    assert kinds(result)["Cast"] == 2  # behind the input, and before the last layer
    x = noise(SPEC, 4, 3)
    before = run(model, x)[0]
    np.testing.assert_allclose(run(result, x)[0], before, atol=2e-3 * np.abs(before).max())


def test_an_output_that_no_layer_computes_stays_float32() -> None:
    nodes = [layer("x first", "a"), layer("a second", "end"), *HEAD, node("GlobalMaxPool", "x", "brightest")]
    model = small(nodes, WEIGHTS, shape=("N", 3, 8, 8), outputs=("y", "brightest"))
    result, _ = applied(plugin, model)
    assert [value.type.tensor_type.elem_type for value in result.graph.output] == [TensorProto.FLOAT] * 2
    np.testing.assert_array_equal(run(result, noise(SPEC, 4, 3))[1], run(model, noise(SPEC, 4, 3))[1])


DECODER = [
    layer("x first high", "a"),
    node("Relu", "a", "b"),
    layer("b second", "maps"),
    node("Reshape", "maps flat_shape", "flat_maps"),
    node("ArgMax", "flat_maps", "index", axis=2, keepdims=0),
    node("Cast", "index", "places", to=1),
]
"""Reads positions of maxima from maps whose values are almost equal: rounding changes the positions."""
DECODED = WEIGHTS | {"flat_shape": np.array([0, 8, -1]), "high": np.full(8, 60, np.float32)}


def test_layers_before_an_arg_max_that_would_change_stay_float32() -> None:
    others = [layer("x first", "c"), layer("c second", "end"), *HEAD[:-1], node("MatMul", "flat head", "offsets")]
    model = small([*DECODER, *others, node("Add", "places offsets", "y")], DECODED, shape=("N", 3, 8, 8))
    result, decisions = applied(plugin, model)
    assert decisions["decision"] == ["a", "b"]  # the layer `maps` is one of the last layers
    assert not any("arg-max" in warning for warning in decisions["warnings"])
    x = noise(SPEC, 32, 3)
    before = run(model, x)[0]
    np.testing.assert_allclose(run(result, x)[0], before, atol=2e-3 * np.ptp(before))


def test_an_arg_max_that_every_layer_feeds_is_named_in_a_warning() -> None:
    model = small([*DECODER, node("Identity", "places", "y")], DECODED, shape=("N", 3, 8, 8))
    _, decisions = applied(plugin, model)
    assert decisions["decision"] == []
    assert any("what an arg-max chooses" in warning for warning in decisions["warnings"])


@pytest.mark.parametrize(("points", "warned"), [(4, False), (400, True)])
def test_a_last_layer_with_most_weights_is_named_in_a_warning(points: int, warned: bool) -> None:
    nodes = [layer("x first", "a"), layer("a second", "b"), node("GlobalAveragePool", "b", "pooled")]
    nodes += [node("Flatten", "pooled", "flat"), node("Gemm", "flat last", "y")]
    model = small(nodes, WEIGHTS | {"last": normal(8, points)}, shape=("N", 3, 8, 8))
    _, decisions = applied(plugin, model)
    assert bool(decisions["warnings"]) == warned
    assert all("the last layer stays float32" in warning for warning in decisions["warnings"])


def test_a_bias_that_is_scaled_is_not_corrected() -> None:
    nodes = [layer("x first", "a"), *HEAD[:2], node("Gemm", "flat head bias", "y", beta=2.0)]
    nodes[1] = node("GlobalAveragePool", "a", "pooled")
    model = small(nodes, WEIGHTS | {"bias": normal(8)}, shape=("N", 3, 8, 8))
    assert applied(plugin, model)[1]["biases corrected"] == 0


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
