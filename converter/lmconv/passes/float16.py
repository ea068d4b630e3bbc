"""Half-precision weights and arithmetic. Inputs, outputs, the last layer and unsafe nodes stay float32.

The pass splits the graph in two parts. The last weighted node and all later nodes stay float32; all earlier nodes
become float16. A Cast stands on every edge between the parts. Casts in the graph carry the precision to every runtime,
strongly typed TensorRT networks included. The pass runs each node in float32 and in float16, on seeded noise and on
faces if there are any. A node that float16 cannot compute, or not well enough, stays float32 too, and the recipe names
this node with the reason: see `lmconv.half.keep`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx

from lmconv.graph.execution import batches
from lmconv.graph.facts import copied
from lmconv.graph.index import Graph
from lmconv.half.keep import before_decisions, kept
from lmconv.half.observe import Observed, is_layer, observe
from lmconv.half.operators import key
from lmconv.half.retype import retype
from lmconv.half.rounding import round_weights
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import noise
from lmconv.types import Float32, Json, Pass, PassContext

CORRECTION_PIXELS = 32 * 112 * 112
"""Number of noise pixels for the bias correction, spread over 4 to 32 inputs.

Larger inputs need a smaller batch, because each of these inputs averages over more positions.
"""
CORRECTION_SEED = 2
"""Seed of this noise; neither the seed of export's own check nor the seed of `lmconv verify`."""
FLIPPED = 5e-3
"""Change of an output, as a fraction of its range, beyond which everything before an arg-max stays float32."""

HEAVY = 0.5
"""Share of the weights in the last layer above which float16 saves less than a quarter of the size."""


def float16(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Converts a float32 graph to float16.

    Raises:
        GateFailed: The graph has no layer with weights.
    """
    height, width = context.spec.input_size
    count = min(32, max(4, CORRECTION_PIXELS // (height * width)))
    inputs = noise(context.spec, count, CORRECTION_SEED)
    observed = observe(model, [inputs, *([] if context.crops is None else [context.crops[:count]])])
    graph = Graph.of(model)
    reasons = kept(graph, observed)
    half, corrected = _converted(model, reasons, inputs, observed)
    before = set() if context.spec.heatmaps else before_decisions(graph, observed, reasons)
    warnings = []
    if before and (change := _change(model, half, inputs)) > FLIPPED:
        float32_nodes = before.union(*reasons.values())
        if any(is_layer(node) and index not in float32_nodes for index, node in enumerate(graph.proto.node)):
            reasons["decision"] |= before
            half, corrected = _converted(model, reasons, inputs, observed)
        else:
            warnings = [
                f"float16 changes what an arg-max chooses on noise: outputs move by {change:.0%} of their range"
            ]
    kept_nodes = {reason: [graph.proto.node[index] for index in sorted(found)] for reason, found in reasons.items()}
    warnings += _heavy(graph, kept_nodes["last"])
    last = ", ".join(node.name for node in kept_nodes.pop("last") if is_layer(node))
    names = {reason: [node.name or key(node) for node in nodes] for reason, nodes in kept_nodes.items()}
    return half, {"float32": last, **names, "biases corrected": corrected, "warnings": warnings}


def _heavy(graph: Graph, last: Iterable[onnx.NodeProto]) -> list[str]:
    """Returns a warning if the last layer, which stays float32, holds most weights; else nothing."""
    sizes = {name: values.size for name, values in graph.constants.items() if values.dtype == np.float32}
    held = sum(sizes.get(name, 0) for name in {name for node in last for name in node.input})
    share = held / max(1, sum(sizes.values()))
    return [f"the last layer stays float32, with {100 * share:.0f} % of the weights"] if share > HEAVY else []


def _converted(
    model: onnx.ModelProto, reasons: Mapping[str, set[int]], inputs: Float32, observed: Observed
) -> tuple[onnx.ModelProto, int]:
    """Returns a float16 copy of a graph, and the number of corrected biases; `reasons` has the float32 nodes."""
    copy, float32_nodes = copied(model), set().union(*reasons.values())
    corrected = round_weights(copy, float32_nodes, inputs, observed.means)
    retype(copy, float32_nodes, observed)
    return copy, corrected


def _change(before: onnx.ModelProto, after: onnx.ModelProto, inputs: Float32) -> float:
    """Returns the largest change of an output, as a fraction of its range."""
    graph = Graph.of(before)
    outputs = []
    for model in (before, after):
        with OrtSession(model.SerializeToString()) as session:
            outputs.append([session.run({graph.inputs[0]: images}) for images in batches(graph, inputs)])
    changes = [0.0]
    for name in graph.outputs:
        expected, result = (np.concatenate([part[name].ravel() for part in parts]) for parts in outputs)
        changes.append(float(np.abs(result - expected).max()) / (float(np.ptp(expected)) or 1.0))
    return max(changes)


plugin = Pass(
    name="float16",
    summary="half-precision weights and arithmetic; the last layer and unsafe nodes stay float32",
    apply=float16,
    tolerance=3e-3,  # trained networks reach 1e-4; deep networks with random weights 1.2e-3 with any rounding
    required=True,
    uses=("crops",),
)
