"""Normalisations that ONNX Runtime's optimiser writes with the standard domain, in files of any opset.

LayerNormalization is in ONNX since opset 17; SimplifiedLayerNormalization (RMSNorm) is not in ONNX under this name.
"""

from __future__ import annotations

from collections.abc import Sequence

from lmconv.opsets.rewriting import Call, Rules

LAYER_NORM = 17
"""Opset that added LayerNormalization."""


def _layer_norm(call: Call) -> Sequence[str] | None:
    if call.facts.opset >= LAYER_NORM or call.is_read(1) or call.is_read(2):
        return None
    data, axes, epsilon = call.input(0), _axes(call), call.get("epsilon", 1e-5)
    centred = call.add("Sub", data, call.mean(data, axes))
    scaled = call.add("Mul", rms_normalised(call, centred, axes, epsilon), call.input(1))
    return [call.add("Add", scaled, call.input(2)) if call.input(2) else scaled]


def _rms_norm(call: Call) -> Sequence[str] | None:
    if call.is_read(1):
        return None
    normalised = rms_normalised(call, call.input(0), _axes(call), call.get("epsilon", 1e-5))
    return [call.add("Mul", normalised, call.input(1))]


def rms_normalised(call: Call, value: str, axes: Sequence[int], epsilon: float) -> str:
    """Adds value / sqrt(mean(value^2) + epsilon)."""
    mean = call.mean(call.add("Mul", value, value), axes)
    return call.add("Div", value, call.add("Sqrt", call.add("Add", mean, call.number(epsilon, value))))


def _axes(call: Call) -> list[int]:
    """Returns the axes from `axis` on; a negative axis counts from the end."""
    axis = call.get("axis", -1)
    rank = call.facts.rank(call.input(0)) or 0
    return list(range(axis, 0 if axis < 0 else max(rank, axis + 1)))


RULES: Rules = {("", "LayerNormalization"): _layer_norm, ("", "SimplifiedLayerNormalization"): _rms_norm}
"""Rules for a file of any opset; the new nodes have the form of this opset."""
