"""Constant folding, shape arithmetic and BatchNorm fusion by onnxsim. Exact up to reassociation."""

from __future__ import annotations

import onnx

from lmconv.types import Json, Pass, PassContext


def simplify(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Simplifies; onnxsim's own check is off, as every pass is compared anyway."""
    import onnxsim

    nodes = len(model.graph.node)
    simplified, _ = onnxsim.simplify(model, check_n=0)
    del simplified.graph.value_info[:], simplified.metadata_props[:]
    return simplified, {"nodes": [nodes, len(simplified.graph.node)]}


plugin = Pass(
    name="simplify",
    summary="constant folding, shape arithmetic, BatchNorm fusion (onnxsim)",
    apply=simplify,
    tolerance=1e-6,
)
