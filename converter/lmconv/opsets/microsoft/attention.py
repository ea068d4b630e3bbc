"""Multi-head attention without masks, caches and rotation, as matrix products and a Softmax."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lmconv.opsets.rewriting import Call, Rule


def _attention(call: Call) -> Sequence[str] | None:
    """Attention: (N, S, C) times the weights (C, 3 * D) plus a bias gives query, key and value, D numbers each."""
    if any(call.input(index) for index in range(3, 7)) or call.is_read(1) or _special(call):
        return None
    projected = call.add("MatMul", call.input(0), call.input(1))
    if call.input(2):
        projected = call.add("Add", projected, call.input(2))
    sizes = call.get("qkv_hidden_sizes", None)
    if sizes is None:
        parts = call.add_several(3, "Split", projected, axis=-1, num_outputs=3)
    else:
        parts = call.add_several(3, "Split", projected, call.constant(list(sizes)), axis=-1)
    return _attended(call, parts)


def _multi_head(call: Call) -> Sequence[str] | None:
    """MultiHeadAttention: query, key and value, (N, S, D) each, with an optional bias (3 * D) for all three."""
    packed = [call.facts.rank(call.input(index)) not in (3, None) for index in range(3)]
    if any(call.input(index) for index in range(4, 8)) or call.is_read(1) or _special(call):
        return None
    values = [call.input(index) for index in range(3)]
    if not all(values) or any(packed):
        return None
    if call.input(3):
        biases = call.add_several(3, "Split", call.input(3), axis=0, num_outputs=3)
        values = [call.add("Add", value, bias) for value, bias in zip(values, biases, strict=True)]
    return _attended(call, values)


def _special(call: Call) -> bool:
    """True for attention that looks back only, or rotates."""
    return bool(call.get("unidirectional", 0) or call.get("do_rotary", 0))


def _attended(call: Call, values: Sequence[str]) -> Sequence[str] | None:
    """Adds softmax(q k^T * scale) v for each head; the scale is by default 1 / sqrt(size of a head)."""
    heads = call.get("num_heads", 1)
    shape = call.constant([0, 0, heads, -1])
    query, key, value = (call.add("Reshape", item, shape) for item in values)
    query, value = (call.add("Transpose", item, perm=[0, 2, 1, 3]) for item in (query, value))
    scores = call.add("MatMul", query, call.add("Transpose", key, perm=[0, 2, 3, 1]))
    scale = call.get("scale", 0.0)
    if not scale:
        sizes = [call.facts.shapes.get(call.input(index), ()) for index in (0, 1)]
        own = call.node.op_type == "MultiHeadAttention"
        width = sizes[0][-1] if own and sizes[0] else sizes[1][-1] if sizes[1] else None
        if width is None or call.get("qkv_hidden_sizes", None) is not None:
            return None
        scale = 1 / math.sqrt(width // (1 if own else 3) // heads)
    weights = call.add("Softmax", call.add("Mul", scores, call.number(scale, scores)), axis=-1)
    result = call.add("Transpose", call.add("MatMul", weights, value), perm=[0, 2, 1, 3])
    return [call.add("Reshape", result, call.constant([0, 0, -1]))]


RULES: Mapping[str, Rule] = {"Attention": _attention, "MultiHeadAttention": _multi_head}
