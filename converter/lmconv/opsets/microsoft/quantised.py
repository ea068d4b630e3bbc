"""Operators on 8-bit integers, as float operators between DequantizeLinear and QuantizeLinear.

ONNX Runtime fuses these nodes again when it loads a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lmconv.opsets.microsoft.adopted import channels_last
from lmconv.opsets.rewriting import Call, Rule


def dequantised(call: Call, index: int, **settings: int) -> str:
    """Adds a DequantizeLinear of an input, whose scale and zero point are the next two inputs."""
    inputs = [call.input(index), call.input(index + 1), *filter(None, [call.input(index + 2)])]
    return call.add("DequantizeLinear", *inputs, **settings)


def quantised(call: Call, value: str, index: int) -> str:
    """Adds a QuantizeLinear to the scale and zero point at an index of the inputs."""
    inputs = [value, call.input(index), *filter(None, [call.input(index + 1)])]
    return call.add("QuantizeLinear", *inputs)


def _unary(compute: Callable[[Call, str], str], out: int = 3) -> Rule:
    """Returns the rule for an operator of one quantised tensor; `out` is the index of the output's scale."""

    def rule(call: Call) -> Sequence[str]:
        return [quantised(call, compute(call, dequantised(call, 0)), out)]

    return rule


def _binary(op: str) -> Rule:
    """Returns the rule for an operator of two quantised tensors."""

    def rule(call: Call) -> Sequence[str]:
        return [quantised(call, call.add(op, dequantised(call, 0), dequantised(call, 3)), 6)]

    return rule


def _pooled(op: str) -> Callable[[Call, str], str]:
    """Returns a function that adds a pooling; `channels_last` is written out as two transpositions."""

    def compute(call: Call, value: str) -> str:
        settings = {name: item for name, item in call.settings.items() if name != "channels_last"}
        if not call.get("channels_last", 0):
            return call.add(op, value, **settings)
        return channels_last(call, op, value, **settings)

    return compute


def _concat(call: Call) -> Sequence[str]:
    """QLinearConcat: scale and zero point of the output, then tensor, scale and zero point of each part."""
    parts = [dequantised(call, index) for index in range(2, len(call.node.input), 3)]
    return [quantised(call, call.add("Concat", *parts, axis=call.get("axis", 0)), 0)]


def _gemm(call: Call) -> Sequence[str] | None:
    """QGemm: alpha * A @ B + C; the int32 bias C has the scale alpha * a_scale * b_scale. Float without a scale."""
    first, second = dequantised(call, 0), dequantised(call, 3, axis=0 if call.get("transB", 0) else 1)
    inputs = [first, second]
    if call.input(6):
        scale = call.add("Mul", call.input(1), call.input(4))
        if (alpha := call.get("alpha", 1.0)) != 1:
            scale = call.add("Mul", scale, call.constant(alpha))
        inputs.append(call.add("Mul", call.add("Cast", call.input(6), to=1), scale))
    settings = {name: call.get(name, default) for name, default in (("transA", 0), ("transB", 0), ("alpha", 1.0))}
    value = call.add("Gemm", *inputs, **settings)
    return [quantised(call, value, 7) if call.input(7) else value]


def _dynamic_matmul(call: Call) -> Sequence[str]:
    """DynamicQuantizeMatMul: the float A is quantised by its range."""
    a, scale, zero = call.add_several(3, "DynamicQuantizeLinear", call.input(0))
    return [_integer_matmul(call, a, call.input(1), (scale, call.input(2)), (zero, call.input(3)), call.input(4))]


def _matmul_to_float(call: Call) -> Sequence[str]:
    """MatMulIntegerToFloat: (A - a_zero) @ (B - b_zero) * a_scale * b_scale + bias."""
    scales, zeros = (call.input(2), call.input(3)), (call.input(4), call.input(5))
    return [_integer_matmul(call, call.input(0), call.input(1), scales, zeros, call.input(6))]


def _integer_matmul(call: Call, a: str, b: str, scales: tuple[str, str], zeros: tuple[str, str], bias: str) -> str:
    inputs = [a, b, *zeros]
    while not inputs[-1]:
        inputs.pop()
    product = call.add("Cast", call.add("MatMulInteger", *inputs), to=1)
    value = call.add("Mul", product, call.add("Mul", *scales))
    return call.add("Add", value, bias) if bias else value


def _conv(call: Call) -> Sequence[str] | None:
    """QLinearConv of `com.microsoft`: ONNX's QLinearConv, also on (N, H, W, C)."""
    settings = {name: item for name, item in call.settings.items() if name != "channels_last"}
    inputs = call.trimmed(9)
    if not call.get("channels_last", 0):
        return [call.add("QLinearConv", *inputs, **settings)]
    return [channels_last(call, "QLinearConv", *inputs, **settings)]


RULES: Mapping[str, Rule] = {
    "QLinearAdd": _binary("Add"),
    "QLinearMul": _binary("Mul"),
    "QLinearSigmoid": _unary(lambda call, value: call.add("Sigmoid", value)),
    "QLinearLeakyRelu": _unary(lambda call, value: call.add("LeakyRelu", value, alpha=call.get("alpha", 0.01))),
    "QLinearSoftmax": _unary(lambda call, value: call.add("Softmax", value, axis=call.get("axis", -1))),
    "QLinearGlobalAveragePool": _unary(_pooled("GlobalAveragePool")),
    "QLinearAveragePool": _unary(_pooled("AveragePool")),
    "QLinearConcat": _concat,
    "QLinearConv": _conv,
    "QGemm": _gemm,
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "MatMulIntegerToFloat": _matmul_to_float,
}
