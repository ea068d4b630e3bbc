"""Folds constants and shape arithmetic and fuses BatchNorm, by onnxsim. Exact up to reassociation."""

from __future__ import annotations

import onnx

from lmconv.graph.constants import lift_constants
from lmconv.types import Json, Pass, PassContext


def simplify(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Simplifies the graph. The check of onnxsim is off, because every pass is compared with its input anyway."""
    import onnxsim

    nodes = len(model.graph.node)
    simplified, _ = onnxsim.simplify(model, check_n=0)
    del simplified.graph.value_info[:], simplified.metadata_props[:]
    lift_constants(simplified.graph)
    return simplified, {"nodes": [nodes, len(simplified.graph.node)]}


plugin = Pass(
    name="simplify",
    summary="constant folding, shape arithmetic, BatchNorm fusion (onnxsim)",
    apply=simplify,
    tolerance=1e-6,
)
