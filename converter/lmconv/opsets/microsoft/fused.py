"""Layers that ONNX Runtime fused with an activation, a sum, a scale or a transposition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lmconv.opsets.rewriting import Call, Rule

ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
    "Softplus": (),
    "LeakyRelu": ("alpha",),
    "Elu": ("alpha",),
    "ThresholdedRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}
"""Activations of fused layers, with the names of their parameters in order."""
OF_ACTIVATION = ("activation", "activation_params", "activation_alpha", "activation_beta", "activation_gamma")


def _activated(call: Call, value: str) -> str | None:
    """Adds the activation of a fused layer; returns None for an unknown activation."""
    kind = call.get("activation", "")
    if not kind:
        return value
    if kind not in ACTIVATIONS:
        return None
    names = ACTIVATIONS[kind]
    parameters = call.get("activation_params", None)
    if parameters is None:
        given = [call.get(f"activation_{name}", None) for name in ("alpha", "beta", "gamma")]
        parameters = [number for number in given if number is not None]
    if kind == "Clip":
        return call.add("Clip", value, *(call.number(limit, value) for limit in parameters))
    return call.add(kind, value, **dict(zip(names, parameters, strict=False)))


def _layer(call: Call, *without: str) -> dict[str, object]:
    """Returns the attributes of the layer itself."""
    return {name: value for name, value in call.settings.items() if name not in (*OF_ACTIVATION, *without)}


def _done(value: str | None) -> Sequence[str] | None:
    return None if value is None else [value]


def _conv(call: Call) -> Sequence[str] | None:
    """FusedConv: activation(Conv(x, w, b) + z)."""
    value = call.add("Conv", *call.trimmed(3), **_layer(call))
    if call.input(3):
        value = call.add("Add", value, call.input(3))
    return _done(_activated(call, value))


def _gemm(call: Call) -> Sequence[str] | None:
    """FusedGemm: activation(Gemm(a, b, c))."""
    return _done(_activated(call, call.add("Gemm", *call.trimmed(3), **_layer(call))))


def _matmul(call: Call) -> Sequence[str] | None:
    """FusedMatMul and TransposeMatMul: activation(alpha * op(a) @ op(b)), op swaps the last two axes.

    The transposition of the batch axes is not written out.
    """
    if call.get("transBatchA", 0) or call.get("transBatchB", 0):
        return None
    sides = [call.swapped(index) if call.get(name, 0) else call.input(index) for index, name in enumerate(TRANSPOSED)]
    if not all(sides):
        return None
    value = call.add("MatMul", *map(str, sides))
    if (alpha := call.get("alpha", 1.0)) != 1:
        value = call.add("Mul", value, call.number(alpha, value))
    return _done(_activated(call, value))


TRANSPOSED = ("transA", "transB")

RULES: Mapping[str, Rule] = {
    "FusedConv": _conv,
    "FusedGemm": _gemm,
    "FusedMatMul": _matmul,
    "FusedMatMulActivation": _matmul,
    "TransposeMatMul": _matmul,
}
