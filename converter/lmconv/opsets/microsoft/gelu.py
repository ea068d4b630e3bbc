"""GELU and its approximations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lmconv.opsets.rewriting import Call, Rule


def exact(call: Call, value: str) -> str:
    """Adds x / 2 * (1 + erf(x / sqrt(2)))."""
    erf = call.add("Erf", call.add("Div", value, call.number(math.sqrt(2), value)))
    half = call.add("Mul", value, call.number(0.5, value))
    return call.add("Mul", half, call.add("Add", erf, call.number(1.0, value)))


def by_tanh(call: Call, value: str) -> str:
    """Adds x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))."""
    square = call.add("Mul", value, value)
    factor = call.add("Add", call.add("Mul", square, call.number(0.044715, value)), call.number(1.0, value))
    inner = call.add("Mul", call.add("Mul", value, factor), call.number(math.sqrt(2 / math.pi), value))
    half = call.add("Mul", value, call.number(0.5, value))
    return call.add("Mul", half, call.add("Add", call.add("Tanh", inner), call.number(1.0, value)))


def _gelu(call: Call) -> Sequence[str]:
    return [exact(call, call.input(0))]


def _bias_gelu(call: Call) -> Sequence[str]:
    return [exact(call, call.add("Add", call.input(0), call.input(1)))]


def _fast_gelu(call: Call) -> Sequence[str]:
    value = call.input(0)
    return [by_tanh(call, call.add("Add", value, call.input(1)) if call.input(1) else value)]


def _quick_gelu(call: Call) -> Sequence[str]:
    """QuickGelu: x * sigmoid(alpha * x)."""
    value = call.input(0)
    gate = call.add("Sigmoid", call.add("Mul", value, call.number(call.get("alpha", 1.702), value)))
    return [call.add("Mul", value, gate)]


RULES: Mapping[str, Rule] = {
    "Gelu": _gelu,
    "BiasGelu": _bias_gelu,
    "FastGelu": _fast_gelu,
    "QuickGelu": _quick_gelu,
}
