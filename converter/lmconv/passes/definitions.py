"""Writes operators that a runtime lacks as the simpler operators of their definition in ONNX's standard."""

from __future__ import annotations

from collections import Counter

import onnx

from lmconv.graph import naming
from lmconv.opsets.functions import written_out
from lmconv.types import FLOAT16_ROUNDING, Json, Pass, PassContext

OPERATORS = frozenset({"Attention", "CenterCropPad", "DynamicQuantizeLinear", "RotaryEmbedding", "Swish"})
"""Operators that TensorRT 10 and 11 do not document, and that ONNX defines by operators that TensorRT has."""


def found(model: onnx.ModelProto) -> Counter[str]:
    """Returns the number of nodes of each such operator, subgraphs included."""
    nodes = naming.nodes_of(model)
    return Counter(node.op_type for node in nodes if node.op_type in OPERATORS and not node.domain)


def definitions(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Writes out the operators, in subgraphs too."""
    counts = found(model)
    return written_out(model, counts) if counts else model, {"written_out": dict(sorted(counts.items()))}


plugin = Pass(
    name="definitions",
    summary="operators that TensorRT lacks, as the operators of their definition",
    apply=definitions,
    tolerance=FLOAT16_ROUNDING,
    required=True,
)
