"""Operators that ONNX Runtime had before ONNX did, and layers on channels-last tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lmconv.opsets.rewriting import Call, Rule


def _same(op: str) -> Rule:
    """Returns the rule for an operator that ONNX defines alike."""

    def rule(call: Call) -> Sequence[str]:
        return [call.add(op, *call.trimmed(len(call.node.input)), **call.settings)]

    return rule


def _expand_dims(call: Call) -> Sequence[str] | None:
    axis = call.known(1)
    return None if axis is None else [call.add("Unsqueeze", call.input(0), call.constant([int(axis.reshape(()))]))]


def _nhwc_max_pool(call: Call) -> Sequence[str]:
    """NhwcMaxPool: MaxPool on (N, H, W, C)."""
    first = call.add("Transpose", call.input(0), perm=[0, 3, 1, 2])
    return [call.add("Transpose", call.add("MaxPool", first, **call.settings), perm=[0, 2, 3, 1])]


RULES: Mapping[str, Rule] = {
    "GridSample": _same("GridSample"),
    "GatherND": _same("GatherND"),
    "Pad": _same("Pad"),
    "Trilu": _same("Trilu"),
    "ExpandDims": _expand_dims,
    "NhwcMaxPool": _nhwc_max_pool,
}
