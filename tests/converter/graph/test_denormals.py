"""Denormal constants: counted everywhere in a graph, and zero only where zero gives the same result."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper, parser

from lmconv.graph.denormals import count, flushed, is_denormal, kept
from lmconv.inference.ort import OrtSession

RANDOM = np.random.default_rng(11)
TINY = np.float32(1e-40)


def normal(*shape: int) -> NDArray[np.float32]:
    return RANDOM.normal(size=shape).astype(np.float32)


def planted(*shape: int) -> NDArray[np.float32]:
    """Weights of which all in the first row, and the first of each other row, are denormal."""
    weights = normal(*shape)
    weights[0] *= 1e-39
    weights.reshape(shape[0], -1)[:, 0] = TINY
    return weights


def graph(body: str, **constants: NDArray[Any]) -> onnx.ModelProto:
    """Builds a graph from `x` (2, 4, 6, 6) to `y`."""
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18]> g (float[2, 4, 6, 6] x) => (float y) {' + body + "}"
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return model


def outputs(model: onnx.ModelProto) -> NDArray[Any]:
    with OrtSession(model.SerializeToString()) as session:
        result: NDArray[Any] = session.run(
            {"x": np.random.default_rng(0).normal(size=(2, 4, 6, 6)).astype(np.float32)}
        )["y"]
    return result


def test_denormal_numbers_are_those_between_zero_and_the_smallest_normal_number() -> None:
    tiny = np.finfo(np.float32).tiny
    values = np.array([0, -0.0, tiny, -tiny, 1, np.inf, np.nan, tiny / 2, -1e-45], np.float32)
    assert is_denormal(values).tolist() == [False] * 7 + [True] * 2
    assert is_denormal(np.array(1e-310)).all()
    assert not is_denormal(np.array(1e-40)).any()


def test_constants_are_counted_wherever_a_graph_holds_them() -> None:
    branches = """<then_branch = a () => (float t) { w = Constant<value_float = 1e-40>() t = Add(x, w) },
                  else_branch = b () => (float e) { v = Constant<value_floats = [1e-40, 1.0]>()
                                                    z = ReduceSum<keepdims = 0>(v) e = Add(x, z) }>"""
    model = graph(
        f"c = If{branches}(yes) d = Mul(c, k) y = LeakyRelu<alpha = 1e-40>(d)", yes=np.array(True), k=TINY * normal(1)
    )
    model.graph.node.append(helper.make_node("Constant", [], ["s"], value=numpy_helper.from_array(np.array([1e-310]))))
    values, indices = numpy_helper.from_array(np.array([TINY]), "sparse"), numpy_helper.from_array(np.array([2]))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    assert count(model) == 6
    result, changed = flushed(model)
    assert (count(result), changed, kept(result)) == (0, 6, {})
    assert count(model) == 6, "the graph that was given must not be changed"


ALIKE = {
    "weights of a convolution": ("y = Conv(x, w)", {"w": planted(5, 4, 3, 3)}),
    "weights and bias of a convolution": ("y = Conv(x, w, b)", {"w": planted(5, 4, 3, 3), "b": planted(5)}),
    "weights of a transposed convolution": ("y = ConvTranspose<group = 2>(x, w)", {"w": planted(4, 3, 3, 3)}),
    "weights of a linear layer": ("f = Flatten(x) y = Gemm(f, w, b)", {"w": planted(144, 5), "b": planted(5)}),
    "weights of a product of matrices": ("y = MatMul(x, w)", {"w": planted(6, 5)}),
    "factors": ("y = Mul(x, k)", {"k": planted(4, 1, 1)}),
    "summands": ("y = Add(x, k)", {"k": planted(4, 1, 1)}),
    "slopes": ("y = PRelu(x, k)", {"k": planted(4, 1, 1)}),
    "a BatchNorm": (
        "y = BatchNormalization(x, k, b, b, v)", {"k": planted(4), "b": planted(4), "v": np.abs(planted(4))},
    ),
    "a layer before an arg-max over live channels": (
        "u = Conv(x, w) v = Relu(u) a = ArgMax<axis = 1>(v) y = Cast<to = 1>(a)", {"w": planted(5, 4, 3, 3)[1:]},
    ),
    "a dead filter before a layer": (
        "u = Conv(x, w) y = Conv(u, v)", {"w": planted(5, 4, 3, 3), "v": normal(2, 5, 1, 1)},
    ),
    "a dead filter before a softmax": ("u = Conv(x, w) y = Softmax<axis = 1>(u)", {"w": planted(5, 4, 3, 3)}),
    "a factor before a division by a constant": (
        "u = Mul(x, k) y = Div(u, c)", {"k": TINY * normal(1), "c": normal(4, 1, 1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ALIKE)
def test_a_constant_that_cannot_matter_becomes_zero(name: str) -> None:
    body, constants = ALIKE[name]
    model = graph(body, **constants)
    result, changed = flushed(model)
    assert changed == count(model) > 0
    assert count(result) == 0
    np.testing.assert_allclose(outputs(result), outputs(model), rtol=0, atol=1e-37)


OTHERS = {
    "a divisor": ("y = Div(x, k)", {"k": np.array(TINY)}),
    "a summand before a logarithm": ("r = Relu(x) s = Add(r, k) y = Log(s)", {"k": np.array(TINY)}),
    "a bound of a divisor": ("r = Relu(x) s = Max(r, k) y = Div(r, s)", {"k": np.array(TINY)}),
    "a side of a comparison": ("r = Relu(x) c = Less(r, k) y = Cast<to = 1>(c)", {"k": np.array(TINY)}),
    "a factor before a comparison": (
        "s = Mul(x, k) c = Greater(s, z) y = Cast<to = 1>(c)", {"k": np.array(TINY), "z": np.zeros(1, np.float32)},
    ),
    "an exponent": ("r = Abs(x) s = Mul(r, k) y = Pow(s, e)", {"k": np.array(TINY), "e": np.array(0.1, np.float32)}),
    "a truth value": ("s = Mul(x, k) c = Cast<to = 9>(s) y = Cast<to = 1>(c)", {"k": np.array(TINY)}),
    "a dead filter before a reciprocal": ("u = Conv(x, w) y = Reciprocal(u)", {"w": planted(5, 4, 3, 3)}),
    "a variance without epsilon": (
        "y = BatchNormalization<epsilon = 0.0>(x, k, b, b, v)",
        {"k": normal(4), "b": normal(4), "v": np.full(4, TINY)},
    ),
    "an operator of another domain": ("y = Mystery(x, k)", {"k": np.array(TINY)}),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_a_constant_for_which_zero_is_another_number_stays_and_is_named(name: str) -> None:
    body, constants = OTHERS[name]
    model = graph(body, **constants)
    for node in model.graph.node:
        node.domain = "other" if node.op_type == "Mystery" else ""
    assert flushed(model) == (model, 0)
    ((constant, node_name),) = kept(model).items()
    assert constant in constants
    assert node_name.endswith(")")
