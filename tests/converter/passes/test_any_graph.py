"""No pass fails on a construct that ONNX allows, and no pass changes its result."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper, parser

from lmconv.graph.facts import copied
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import noise
from lmconv.plugins import PASSES
from lmconv.types import PassContext, landmark_spec

SPEC = landmark_spec("any", "onnx", size=(8, 8), landmarks=4)
EXACT = ("simplify", "denormals", "compact", "linear", "dead", "batchnorm", "resize", "activations", "prelu", "gates")
RANDOM = np.random.default_rng(7)


def normal(*shape: int) -> NDArray[np.float32]:
    return RANDOM.normal(0, 0.3, shape).astype(np.float32)


CONSTANTS: dict[str, NDArray[Any]] = {
    "first": normal(4, 3, 3, 3),
    "second": normal(4, 4, 3, 3),
    "bias": normal(4),
    "head": normal(4, 8),
    "points": np.array([-1, 4, 2]),
    "half": np.array(0.5, np.float32),
    "two": np.array(2),
    "zero": np.array([0]),
    "spatial": np.array([2, 3]),
    "channels": np.array([2, 2]),
    "kernel": normal(4, 4, 3, 3),
    "rows": np.array([0, 4, 64]),
    "maps": np.array([0, 4, 8, 8]),
    "gate": normal(1, 16, 4),
    "state": normal(1, 16, 4),
    "twice": np.array([1, 1, 2, 2], np.float32),
    "integers": RANDOM.integers(-99, 99, (4, 4, 3, 3)).astype(np.int8),
    "step": np.array(0.003, np.float32),
    "yes": np.array(True),
    "four": np.array([4]),
    "one": np.ones((4, 8, 8), np.float32),
}
BRANCHES = """<then_branch = a () => (float[N, 4, 8, 8] t) { t = Mul(f, half) },
              else_branch = b () => (float[N, 4, 8, 8] e) { w = Constant<value_float = 2.0>() e = Mul(f, w) }>"""
CONSTRUCTS = {
    "a Constant node as weights": "k = Constant<value_floats = [0.5]>() u = Mul(f, k)",
    "a shape in a Constant node": "k = Constant<value_ints = [0, 4, 8, 8]>() u = Reshape(f, k)",
    "weights computed from constants": "w = Transpose<perm = [1, 0, 2, 3]>(kernel) u = Conv<pads = [1, 1, 1, 1]>(f, w)",
    "dequantised weights": "w = DequantizeLinear(integers, step) u = Conv<pads = [1, 1, 1, 1]>(f, w)",
    "shared weights": "a = Conv<pads = [1, 1, 1, 1]>(f, kernel) u = Conv<pads = [1, 1, 1, 1]>(a, kernel)",
    "weights that are data too": """m = ReduceMax<keepdims = 0>(kernel) a = Conv<pads = [1, 1, 1, 1]>(f, kernel)
        u = Mul(a, m)""",
    "omitted inputs": "u = Clip(f, , half)",
    "unread outputs of a recurrent layer": """t = Reshape(f, rows) p = Transpose<perm = [2, 0, 1]>(t)
        all, hidden, cell = LSTM<hidden_size = 4>(p, gate, state) q = Squeeze(cell, zero) u = Unsqueeze(q, spatial)""",
    "unread outputs": """best, places = TopK<axis = 1>(f, four) kept, mask = Dropout(best)
        a, b = Split<axis = 1>(kept, channels) u = Concat<axis = 1>(a, a)""",
    "a branch": f"u = If(yes) {BRANCHES}",
    "a branch that depends on values": f"m = ReduceMax<keepdims = 0>(x) c = Greater(m, half) u = If(c) {BRANCHES}",
    "a loop": """u = Loop(two, , f) <body = l (int64 i, bool go, float[N, 4, 8, 8] a) => (bool on, float[N, 4, 8, 8] b)
        { on = Identity(go) d = Conv<pads = [1, 1, 1, 1]>(a, kernel) b = Add(d, f) }>""",
    "a scan": """t = Transpose<perm = [2, 0, 1, 3]>(f) s = ReduceMean<keepdims = 0>(t, zero)
        e, y = Scan<num_scan_inputs = 1, body = b (float[N, 4, 8] a, float[N, 4, 8] i)
        => (float[N, 4, 8] n, float[N, 4, 8] o) { n = Add(a, i) o = Mul(n, half) }>(s, t)
        u = Transpose<perm = [1, 2, 0, 3]>(y)""",
    "a sequence": "s = SplitToSequence<axis = 1>(f, channels) u = ConcatFromSequence<axis = 1>(s)",
    "an optional value": "o = Optional(f) u = OptionalGetElement(o)",
    "bfloat16": "a = Cast<to = 16>(f) u = Cast<to = 1>(a)",
    "float64": "a = Cast<to = 11>(f) b = Mul(a, a) u = Cast<to = 1>(b)",
    "integers": "a = Cast<to = 7>(f) b = Cast<to = 1>(a) u = Add(f, b)",
    "an empty tensor": """e = ConstantOfShape(zero) r = Resize<mode = "nearest">(f, e, twice)
        u = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)""",
    "a normalisation with three outputs": "n, m, d = LayerNormalization<axis = 1>(f, one) u = Mul(n, d)",
}


def built(body: str, opset: int) -> onnx.ModelProto:
    """A network of two convolutions and a linear layer around nodes from `f` to `u`, both (N, 4, h, w)."""
    text = f"""any (float[N, 3, 8, 8] input) => (float[N, 4, 2] landmarks) {{
        x = Identity(input)
        early = Conv<pads = [1, 1, 1, 1]>(x, first, bias) f = Relu(early) {body}
        late = Conv<pads = [1, 1, 1, 1]>(u, second, bias) pooled = GlobalAveragePool(late) flat = Flatten(pooled)
        numbers = MatMul(flat, head) landmarks = Reshape(numbers, points) }}"""
    graph = parser.parse_graph(text)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in CONSTANTS.items() if name in text)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def run(model: onnx.ModelProto) -> NDArray[Any]:
    with OrtSession(model.SerializeToString()) as session:
        return session.run({"input": noise(SPEC, 3, 1)})["landmarks"]


@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_every_pass_keeps_the_result(construct: str, opset: int) -> None:
    model = built(CONSTRUCTS[construct], opset)
    expected = run(model)
    for name in (*EXACT, "float16"):
        model = PASSES.load(name).apply(copied(model), PassContext(spec=SPEC, channels=(1,)))[0]
        onnx.checker.check_model(model)
        tolerance = 3e-3 if name == "float16" else 1e-5
        np.testing.assert_allclose(run(model), expected, atol=tolerance * np.ptp(expected), err_msg=name)
