"""Static int8 quantisation of a CNN's ONNX graph, written as Q/DQ nodes.

The result is an ordinary graph of the standard domain: `QuantizeLinear` and `DequantizeLinear` around float operators.
Runtimes fuse these nodes to integer kernels. The quantiser has five steps: `plan` selects layers and tensors, `observe`
runs the float network, `equalise` moves scale between channels, `calibrate` walks the int8 network and fixes ranges and
biases, and `emit` writes the graph.
"""

from __future__ import annotations

import numpy as np
import onnx

from lmconv.graph.index import Graph
from lmconv.quantise.calibrate import calibrate
from lmconv.quantise.emit import emit
from lmconv.quantise.equalise import equalise
from lmconv.quantise.observe import Observed, observe
from lmconv.quantise.plan import WEIGHTED, Settings, plan
from lmconv.types import Float32, Json

FEWEST, SIDE = 24, 112
"""Crops larger than SIDE x SIDE pixels are fewer in proportion, at least FEWEST, to bound time and memory."""


def quantise(
    model: onnx.ModelProto, crops: Float32, settings: Settings, seen: Observed | None = None
) -> tuple[onnx.ModelProto, Json]:
    """Quantises a float graph.

    Args:
        model: A float32 graph with one input; unchanged.
        crops: (n, 3, H, W) float32 network inputs to calibrate on.
        settings: Options of the quantiser.
        seen: Statistics of the float graph on these crops; None to compute the statistics here.

    Returns:
        A model with the same inputs and outputs, and the decisions for the recipe.
    """
    used = sample(crops, settings.crops)
    graph = Graph.of(model)
    chosen = plan(graph, settings)
    links, seen = equalise(graph, chosen, seen or observe(graph, used), settings.balance)
    numbers = calibrate(graph, chosen, used, settings, seen)
    left = [node.name for node in graph.proto.node if node.op_type in WEIGHTED and node.output[0] not in chosen.layers]
    return emit(model, graph, chosen, numbers, settings), {
        "activations": settings.activations,
        "weights": "int8, symmetric, per output channel",
        "ranges": "minimum and maximum",
        "crops": len(used),
        "balance": settings.balance,
        "equalised": links,
        "layers": len(chosen.layers),
        "float_layers": left,
        "bias_corrected": settings.correct_bias,
    }


def sample(crops: Float32, count: int) -> Float32:
    """Returns at most `count` of (n, 3, H, W) crops, evenly spread; fewer large crops, as each has more positions."""
    count = min(count, max(FEWEST, count * SIDE**2 // (crops.shape[2] * crops.shape[3])))
    chosen: Float32 = crops[np.linspace(0, len(crops) - 1, min(count, len(crops))).round().astype(int)]
    return chosen
