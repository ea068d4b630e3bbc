"""Static int8 quantisation of a CNN's ONNX graph, written as Q/DQ nodes.

The result is an ordinary graph of the standard domain: `QuantizeLinear` and `DequantizeLinear` around float operators.
Runtimes fuse these nodes to integer kernels. The quantiser has five steps: `plan` selects layers and tensors, `observe`
runs the float network, `equalise` moves scale between channels, `calibrate` walks the int8 network and fixes ranges and
biases, and `emit` writes the graph.
"""

from __future__ import annotations

import numpy as np
import onnx

from lmconv.graph import naming
from lmconv.graph.facts import copied
from lmconv.graph.index import Graph
from lmconv.quantise.calibrate import calibrate
from lmconv.quantise.coverage import coverage
from lmconv.quantise.emit import emit
from lmconv.quantise.equalise import equalise
from lmconv.quantise.observe import ActivationStatistics, observe
from lmconv.quantise.plan import QuantiserOptions, plan
from lmconv.types import Float32, Json

SUFFIXES = ("_scale", "_zero_point", "_quantized", "_dequantized", "_weights", "_bias")
"""Ends of the names that the quantiser gives to new values."""
FEWEST, SIDE = 24, 112
"""Crops larger than SIDE x SIDE pixels are fewer in proportion, at least FEWEST, to bound time and memory."""


def quantise(
    model: onnx.ModelProto, crops: Float32, settings: QuantiserOptions, statistics: ActivationStatistics | None = None
) -> tuple[onnx.ModelProto, Json]:
    """Quantises a float graph.

    Args:
        model: A float32 graph with one input; unchanged.
        crops: (n, 3, H, W) float32 network inputs to calibrate on.
        settings: Options of the quantiser.
        statistics: Statistics of the float graph on these crops; None to compute the statistics here.

    Returns:
        A model with the same inputs and outputs, and the decisions for the recipe.
    """
    sampled = sample(crops, settings.crops)
    model = distinct(model)
    graph = Graph.of(model)
    statistics = statistics or observe(graph, sampled)
    selection = plan(graph, settings, statistics.ranges)
    links, equalised = equalise(graph, selection, statistics, settings.balance)
    parameters = calibrate(graph, selection, sampled, settings, equalised)
    return emit(model, graph, selection, parameters, settings), {
        "activations": settings.activations,
        "weights": "int8, symmetric, per output channel",
        "ranges": "minimum and maximum",
        "crops": len(sampled),
        "balance": settings.balance,
        "equalised": links,
        "bias_corrected": settings.correct_bias,
        **coverage(graph, selection, statistics.macs),
    }


def distinct(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of the model in which no value has a name that the quantiser writes, for example `x_scale`.

    A bias called `x_bias` keeps its name if the layer that writes `x` is its only reader: the new bias replaces it.
    """
    model = copied(model)
    graph, names = Graph.of(model), naming.taken(model.graph)
    for name in sorted(names - {""}):
        for clash in (name + suffix for suffix in SUFFIXES if name + suffix in names):
            if any(reader.output[0] != name for reader in graph.consumers.get(clash, [])):
                naming.vacate(model.graph, clash)
    return model


def sample(crops: Float32, count: int) -> Float32:
    """Returns at most `count` of (n, 3, H, W) crops, evenly spread; fewer large crops, as each has more positions."""
    count = min(count, max(FEWEST, count * SIDE**2 // (crops.shape[2] * crops.shape[3])))
    sampled: Float32 = crops[np.linspace(0, len(crops) - 1, min(count, len(crops))).round().astype(int)]
    return sampled
