"""Normalisation of a sum, and sums of a bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lmconv.opsets.microsoft.early import rms_normalised
from lmconv.opsets.rewriting import Call, Rule


def _sum(call: Call, bias: int) -> str:
    """Adds the sum of input, skip and, if present, the bias at an index."""
    value = call.add("Add", call.input(0), call.input(1))
    return call.add("Add", value, call.input(bias)) if call.input(bias) else value


def _skip_layer_norm(call: Call) -> Sequence[str] | None:
    """SkipLayerNormalization: LayerNormalization(input + skip + bias) along the last axis; the sum is output 3."""
    if call.is_read(1) or call.is_read(2):
        return None
    total = _sum(call, 4)
    inputs = [total, call.input(2), *filter(None, [call.input(3)])]
    normalised = call.add("LayerNormalization", *inputs, axis=-1, epsilon=call.get("epsilon", 1e-12))
    return [normalised, "", "", total]


def _skip_rms_norm(call: Call) -> Sequence[str] | None:
    """SkipSimplifiedLayerNormalization: gamma * sum / sqrt(mean(sum^2) + epsilon) along the last axis."""
    if call.is_read(1) or call.is_read(2):
        return None
    total = _sum(call, 3)
    normalised = rms_normalised(call, total, [-1], call.get("epsilon", 1e-12))
    return [call.add("Mul", normalised, call.input(2)), "", "", total]


def _bias_add(call: Call) -> Sequence[str]:
    """BiasAdd: X + bias + skip."""
    return [call.add("Add", call.add("Add", call.input(0), call.input(1)), call.input(2))]


RULES: Mapping[str, Rule] = {
    "SkipLayerNormalization": _skip_layer_norm,
    "SkipSimplifiedLayerNormalization": _skip_rms_norm,
    "BiasAdd": _bias_add,
}
