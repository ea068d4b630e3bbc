"""Statistics of a float network's activations on calibration crops, as the quantiser needs."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx

from lmconv.graph.execution import Chunks, batches, channel_mean, has_channels, on_all_cores, walk
from lmconv.graph.facts import layer_macs
from lmconv.graph.index import Graph
from lmconv.inference.probe import OrtProbe
from lmconv.quantise.plan import WEIGHTED, channel_axis
from lmconv.types import Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationStatistics:
    """Statistics of each float32 tensor with channels: (C,) float32, by tensor name.

    Attributes:
        ranges: Largest magnitude of each channel of (N, C, ...) values.
        means: Mean of each channel of (N, C, H, W) or (..., C) values; of (N, C, ...) values for a convolution.
        macs: Multiply-accumulates of each layer for one crop, by the name of the layer's output.
    """

    ranges: dict[str, Float32] = field(default_factory=dict)
    means: dict[str, Float32] = field(default_factory=dict)
    macs: dict[str, int] = field(default_factory=dict)


def observe(graph: Graph, crops: Float32) -> ActivationStatistics:
    """Runs the float network once on (n, 3, H, W) float32 crops; the result holds for any options of the quantiser."""
    return statistics_of(graph, walk(graph, crops))


def values_of_one_batch(model: onnx.ModelProto, graph: Graph, crops: Float32) -> dict[str, Chunks]:
    """Runs the whole float graph once on the first batch of `crops`; returns the input and all computed arrays.

    Args:
        model: The float graph.
        graph: Index of `model`.
        crops: (n, 3, H, W) float32 network inputs.
    """
    inputs = {graph.inputs[0]: batches(graph, crops)[0]}
    probe = OrtProbe(model)
    values = inputs | probe.run(inputs, sorted(probe.names))
    return {name: [value] for name, value in values.items() if isinstance(value, np.ndarray)}


def statistics_of(graph: Graph, run: Iterable[dict[str, Chunks]]) -> ActivationStatistics:
    """Returns the statistics of the values of a run, see `lmconv.graph.execution.walk`."""
    statistics = ActivationStatistics()
    layers = {node.output[0]: node for node in graph.proto.node if node.op_type in WEIGHTED}
    shapes = {name: value.shape for name, value in graph.constants.items()}
    for values in run:
        shapes |= {name: chunks[0].shape for name, chunks in values.items()}
        for name, chunks in values.items():
            if _is_activation(chunks):
                axes = (0, *range(2, chunks[0].ndim))
                statistics.ranges[name] = np.max(on_all_cores(functools.partial(_magnitudes, axes), chunks), axis=0)
                axis = channel_axis(layers[name], chunks[0].ndim) if name in layers else None
                statistics.means[name] = channel_mean(chunks, axis)
    batch = shapes[graph.inputs[0]][0]
    statistics.macs.update({name: macs // batch for name, macs in layer_macs(graph.proto.node, shapes).items()})
    return statistics


def _magnitudes(axes: tuple[int, ...], x: Float32) -> Float32:
    """Returns the largest magnitude of each channel; `axes` are the other axes."""
    largest: Float32 = np.maximum(x.max(axis=axes), -x.min(axis=axes))
    return largest


def _is_activation(chunks: Chunks) -> bool:
    """True for float32 values with channels."""
    return chunks[0].ndim > 1 and chunks[0].size > 0 and chunks[0].dtype == np.float32 and has_channels(chunks)
