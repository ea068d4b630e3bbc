"""Operators that ONNX adopted from ONNX Runtime, and layers on channels-last tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmconv.opsets.rewriting import Call, Rule


def _same(op: str) -> Rule:
    """Returns the rule for an operator that ONNX defines alike."""

    def rule(call: Call) -> Sequence[str]:
        return [call.add(op, *call.trimmed(len(call.node.input)), **call.settings)]

    return rule


def _expand_dims(call: Call) -> Sequence[str] | None:
    axis = call.known(1)
    return None if axis is None else [call.add("Unsqueeze", call.input(0), call.constant([int(axis.reshape(()))]))]


def channels_last(call: Call, op: str, value: str, *others: str, **settings: Any) -> str:
    """Adds a layer on a value (N, H, W, C), as the layer on (N, C, H, W) between two transpositions."""
    first = call.add("Transpose", value, perm=[0, 3, 1, 2])
    return call.add("Transpose", call.add(op, first, *others, **settings), perm=[0, 2, 3, 1])


def _nhwc_max_pool(call: Call) -> Sequence[str]:
    """NhwcMaxPool: MaxPool on (N, H, W, C)."""
    return [channels_last(call, "MaxPool", call.input(0), **call.settings)]


RULES: Mapping[str, Rule] = {
    "DequantizeLinear": _same("DequantizeLinear"),
    "GridSample": _same("GridSample"),
    "GatherND": _same("GatherND"),
    "Pad": _same("Pad"),
    "QuantizeLinear": _same("QuantizeLinear"),
    "Trilu": _same("Trilu"),
    "ExpandDims": _expand_dims,
    "NhwcMaxPool": _nhwc_max_pool,
}
