"""Rewrites hard-swish and its gate from basic operators to HardSwish and HardSigmoid. Exact up to rounding.

Exporters and older opsets write hardswish(x) = x min(max(x + 3, 0), 6) / 6 as four nodes or more. ONNX Runtime fuses
HardSigmoid and HardSwish into the preceding convolution and keeps both in the blocked layout. For Clip after Add, and
for Div, ONNX Runtime does neither.
"""

from __future__ import annotations

import numpy as np
import onnx

from lmconv.graph.index import attribute
from lmconv.graph.rewriter import Rewriter, make
from lmconv.types import Json, Pass, PassContext

SIXTH = 1 / 6


def activations(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Rewrites each gate min(max(x + 3, 0), 6) / 6 as HardSigmoid, and each product of x and its gate as HardSwish."""
    graph = Rewriter(model)
    gates: dict[str, str] = {}
    for node in graph.nodes("Div", "Mul"):
        if (x := _gated(graph, node)) is not None:
            gates[node.output[0]] = x
            graph.replace(node, make("HardSigmoid", [x], node.output[0], alpha=SIXTH, beta=0.5))
    gates |= {node.output[0]: node.input[0] for node in graph.nodes("HardSigmoid") if _is_gate(node)}
    swishes = 0
    for node in graph.nodes("Mul"):
        for gate, x in (node.input, reversed(node.input)):
            if gates.get(gate) == x:
                graph.replace(node, make("HardSwish", [x], node.output[0]))
                swishes += 1
                break
    swishes += _divided_late(graph)
    graph.commit()
    return model, {"HardSigmoid": len(gates), "HardSwish": swishes}


def _gated(graph: Rewriter, node: onnx.NodeProto) -> str | None:
    """Returns x if a node computes min(max(x + 3, 0), 6) / 6, else None."""
    value = _sixth_of(graph, node)
    return None if value is None else _clipped(graph, value)


def _sixth_of(graph: Rewriter, node: onnx.NodeProto) -> str | None:
    """Returns the value that a node divides by 6 or multiplies by 1/6; None if the node does neither."""
    first, second = map(str, node.input)
    if node.op_type == "Div":
        return first if graph.scalar(second) == 6 else None
    for value, factor in ((first, second), (second, first)):
        scalar = graph.scalar(factor)
        if scalar is not None and np.float32(scalar) == np.float32(SIXTH):
            return value
    return None


def _clipped(graph: Rewriter, name: str) -> str | None:
    """Returns x if a value is min(max(x + 3, 0), 6), else None."""
    clip = graph.producer(name, "Clip")
    if clip is None or len(clip.input) < 3 or [graph.scalar(limit) for limit in clip.input[1:]] != [0, 6]:
        return None
    shifted = graph.producer(clip.input[0], "Add")
    if shifted is None:
        return None
    first, second = shifted.input
    if graph.scalar(second) == 3:
        return str(first)
    return str(second) if graph.scalar(first) == 3 else None


def _is_gate(node: onnx.NodeProto) -> bool:
    """True if a HardSigmoid has the slope 1/6 and the offset 0.5 of the hard-swish gate."""
    slope, offset = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    return bool(np.float32(slope) == np.float32(SIXTH) and offset == 0.5)


def _divided_late(graph: Rewriter) -> int:
    """Rewrites each (x min(max(x + 3, 0), 6)) / 6 as HardSwish and returns the number of rewrites."""
    rewritten = 0
    for node in graph.nodes("Div", "Mul"):
        product = graph.producer(_sixth_of(graph, node) or "", "Mul")
        for clipped, x in (product.input, reversed(product.input)) if product else ():
            if _clipped(graph, clipped) == x:
                graph.replace(node, make("HardSwish", [x], node.output[0]))
                rewritten += 1
                break
    return rewritten


plugin = Pass(
    name="activations",
    summary="hard-swish and hard-sigmoid as one operator each instead of several",
    apply=activations,
    tolerance=1e-6,
)
