"""Static int8 quantisation of a CNN's ONNX graph, written as Q/DQ nodes.

The result is an ordinary graph of the standard domain: `QuantizeLinear` and `DequantizeLinear` around float operators.
Runtimes fuse these nodes to integer kernels. The quantiser has six steps: `prepared` folds constants, `plan` selects
layers and tensors, `observe` runs the float network, `equalise` moves scale between channels, `calibrate` walks the
int8 network and fixes ranges and biases, and `emit` writes the graph.
"""

from __future__ import annotations

import numpy as np
import onnx

from lmconv.graph.index import Graph
from lmconv.quantise.calibrate import calibrate, calibrate_roughly
from lmconv.quantise.coverage import coverage
from lmconv.quantise.emit import emit
from lmconv.quantise.equalise import equalise
from lmconv.quantise.observe import ActivationStatistics, observe, statistics_of, values_of_one_batch
from lmconv.quantise.plan import QuantiserOptions, plan
from lmconv.quantise.prepare import prepared
from lmconv.types import Float32, Json

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
        statistics: Statistics of the prepared float graph on these crops; None to compute the statistics here.

    Returns:
        A model with the same inputs and outputs, and the decisions for the recipe.
    """
    sampled = sample(crops, settings.crops)
    model = prepared(model)
    graph = Graph.of(model)
    values = values_of_one_batch(model, graph, sampled) if settings.rough else {}
    statistics = statistics or (statistics_of(graph, [values]) if settings.rough else observe(graph, sampled))
    selection = plan(graph, settings, statistics.ranges)
    links, equalised = equalise(graph, selection, statistics, settings.balance)
    if settings.rough:
        parameters = calibrate_roughly(graph, selection, settings, values)
    else:
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


def sample(crops: Float32, count: int) -> Float32:
    """Returns at most `count` of (n, 3, H, W) crops, evenly spread; fewer large crops, as each has more positions."""
    count = min(count, max(FEWEST, count * SIDE**2 // (crops.shape[2] * crops.shape[3])))
    sampled: Float32 = crops[np.linspace(0, len(crops) - 1, min(count, len(crops))).round().astype(int)]
    return sampled
