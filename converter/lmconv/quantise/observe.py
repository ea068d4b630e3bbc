"""Statistics of a float network's activations on calibration crops, as the quantiser needs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lmconv.graph.execution import channel_mean, has_channels, walk
from lmconv.graph.index import Graph
from lmconv.types import Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationStatistics:
    """Statistics of each float tensor with channels: (C,) float32, by tensor name.

    Attributes:
        ranges: Largest magnitude of each channel of (N, C, ...) values.
        means: Mean of each channel of (N, C, H, W) or (..., C) values.
    """

    ranges: dict[str, Float32] = field(default_factory=dict)
    means: dict[str, Float32] = field(default_factory=dict)


def observe(graph: Graph, crops: Float32) -> ActivationStatistics:
    """Runs the float network once on (n, 3, H, W) float32 crops; the result holds for any options of the quantiser."""
    statistics = ActivationStatistics()
    for values in walk(graph, crops):
        for name, chunks in values.items():
            if chunks[0].ndim > 1 and chunks[0].size and chunks[0].dtype == np.float32 and has_channels(chunks):
                axes = (0, *range(2, chunks[0].ndim))
                magnitudes = [np.maximum(x.max(axis=axes), -x.min(axis=axes)) for x in chunks]
                statistics.ranges[name] = np.max(magnitudes, axis=0)
                statistics.means[name] = channel_mean(chunks)
    return statistics
