"""Normalisations that ONNX Runtime's optimiser writes with the standard domain, in files of any opset.

LayerNormalization is in ONNX since opset 17; SimplifiedLayerNormalization (RMSNorm) is not in ONNX under this name.
"""

from __future__ import annotations

from collections.abc import Sequence

from lmconv.opsets.rewriting import Call, Rules

LAYER_NORM = 17
"""Opset that added LayerNormalization."""


def early(opset: int) -> Rules:
    """Returns the rules for a file of an opset; the new nodes have the form of that opset."""

    def layer_norm(call: Call) -> Sequence[str] | None:
        if opset >= LAYER_NORM or call.is_read(1) or call.is_read(2):
            return None
        data = call.input(0)
        centred = call.add("Sub", data, _mean(call, data, opset))
        scaled = call.add("Mul", _normalised(call, centred, opset), call.input(1))
        return [call.add("Add", scaled, call.input(2)) if call.input(2) else scaled]

    def rms_norm(call: Call) -> Sequence[str] | None:
        if call.is_read(1):
            return None
        return [call.add("Mul", _normalised(call, call.input(0), opset), call.input(1))]

    return {("", "LayerNormalization"): layer_norm, ("", "SimplifiedLayerNormalization"): rms_norm}


def _normalised(call: Call, value: str, opset: int) -> str:
    """Adds value / sqrt(mean(value^2) + epsilon)."""
    mean = _mean(call, call.add("Mul", value, value), opset)
    epsilon = call.number(call.get("epsilon", 1e-5), value)
    return call.add("Div", value, call.add("Sqrt", call.add("Add", mean, epsilon)))


def _mean(call: Call, value: str, opset: int) -> str:
    """Adds the mean over the axes from `axis` on; a negative axis counts from the end."""
    axis = call.get("axis", -1)
    rank = call.facts.rank(call.input(0)) or 0
    axes = list(range(axis, 0 if axis < 0 else max(rank, axis + 1)))
    if opset < 18:
        return call.add("ReduceMean", value, axes=axes)
    return call.add("ReduceMean", value, call.constant(axes))
