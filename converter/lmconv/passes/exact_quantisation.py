"""Rewrites Q/DQ pairs into float operators, which every runtime computes alike.

OpenVINO computes a quantised network in int8, and rounds some values differently from ONNX Runtime, by one step of the
scale. The pass writes the rounding of each pair as `s * clip(round(x / s))`, in float32. The pass
does not run by default, because int8 is faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lmconv.graph.rewriter import Rewriter, make
from lmconv.types import Json, Pass, PassContext


def exact_quantisation(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Rewrites each pair with one constant scale and zero point for all channels. Quantised weights stay."""
    graph, pairs = Rewriter(model), 0
    for node in graph.nodes("QuantizeLinear"):
        if (limits := _limits(graph, node)) is None:
            continue
        rounded = _rounded(graph, node, limits)
        readers = graph.consumers(node.output[0])
        graph.replace(node, *rounded)
        for reader in readers:
            graph.replace(reader, make("Mul", [rounded[-1].output[0], node.input[1]], reader.output[0]))
        pairs += 1
    graph.commit()
    return model, {"pairs": pairs}


def _limits(graph: Rewriter, node: onnx.NodeProto) -> tuple[float, float] | None:
    """Returns the smallest and largest integer of a pair, minus the zero point; None for another form of Q/DQ."""
    readers = graph.consumers(node.output[0])
    pair = all(
        reader.op_type == "DequantizeLinear" and not reader.domain and _same(graph, reader, node) for reader in readers
    )
    if graph.scalar(node.input[1]) is None or node.output[0] in graph.outputs or not readers or not pair:
        return None
    zero = _zero(graph, node)
    if zero is None or zero.size != 1 or zero.dtype.kind not in "iu":
        return None
    kind, value = np.iinfo(zero.dtype), int(zero.reshape(()))
    return float(kind.min - value), float(kind.max - value)


def _same(graph: Rewriter, reader: onnx.NodeProto, node: onnx.NodeProto) -> bool:
    """True if a DequantizeLinear has scale and zero point of its QuantizeLinear."""
    scales = graph.scalar(reader.input[1]), graph.scalar(node.input[1])
    zero, other = _zero(graph, reader), _zero(graph, node)
    return scales[0] == scales[1] and zero is not None and other is not None and np.array_equal(zero, other)


def _zero(graph: Rewriter, node: onnx.NodeProto) -> NDArray[Any] | None:
    """Returns the zero point of a node, by default 0 in uint8; None if computed."""
    if len(node.input) < 3 or not node.input[2]:
        return np.zeros((), np.uint8)
    return graph.constants.get(node.input[2])


def _rounded(graph: Rewriter, node: onnx.NodeProto, limits: tuple[float, float]) -> Sequence[onnx.NodeProto]:
    """Returns nodes that compute the integers of a QuantizeLinear, minus the zero point, as float32."""
    name = node.output[0]
    divided, rounded = graph.fresh(f"{name}_divided"), graph.fresh(f"{name}_rounded")
    low, high = (graph.constant(f"{name}_limit", np.array(limit, np.float32)) for limit in limits)
    return [
        make("Div", [node.input[0], node.input[1]], divided),
        make("Round", [divided], rounded),
        make("Clip", [rounded, low, high], name),
    ]


plugin = Pass(
    name="exact_quantisation",
    summary="Q/DQ pairs as float operators, for a runtime whose int8 rounds differently (--exact)",
    apply=exact_quantisation,
    tolerance=1e-6,
)
