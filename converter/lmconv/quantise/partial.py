"""Graphs with a selection of layers in int8, all from one calibration.

`lmconv tune` times these graphs and measures the loss of each layer alone. The parameters of each layer are computed on
the float network, as if the layer were the only int8 layer: no layer compensates the error of another layer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx

from lmconv.graph.execution import Chunks, run_node, walk
from lmconv.graph.index import Graph
from lmconv.quantise.calibrate import Numbers, quantise_alone
from lmconv.quantise.emit import emit
from lmconv.quantise.equalise import equalise
from lmconv.quantise.observe import observe
from lmconv.quantise.plan import Settings, plan
from lmconv.quantise.rounding import make_affine
from lmconv.quantise.static import sample
from lmconv.types import Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """A float network with parameters for any selection of int8 layers.

    Attributes:
        model: The float graph.
        graph: Index of the float graph, with equalised weights.
        numbers: Parameters of every layer and tensor that can be int8.
        settings: Options of the quantiser that `numbers` was computed with.
    """

    model: onnx.ModelProto
    graph: Graph
    numbers: Numbers
    settings: Settings

    @property
    def layers(self) -> tuple[str, ...]:
        """Output names of the layers that can be int8, in graph order."""
        return tuple(self.numbers.layers)

    def graph_of(self, layers: Collection[str]) -> onnx.ModelProto:
        """Returns the network with exactly `layers` in int8; each layer is named by its output."""
        left = frozenset(self.layers) - frozenset(layers)
        chosen = plan(self.graph, replace(self.settings, float_layers=self.settings.float_layers | left))
        return emit(self.model, self.graph, chosen, self.numbers, self.settings)


def prepare(model: onnx.ModelProto, crops: Float32, settings: Settings) -> Partial:
    """Calibrates each layer of a float graph alone.

    Args:
        model: A float32 graph with one input; unchanged.
        crops: (n, 3, H, W) float32 network inputs to calibrate on.
        settings: Options of the quantiser.
    """
    used = sample(crops, settings.crops)
    graph = Graph.of(model)
    chosen = plan(graph, settings)
    equalise(graph, chosen, observe(graph, used), settings.balance)
    numbers = Numbers()
    rng = np.random.default_rng(0)

    def compute(node: onnx.NodeProto, values: Mapping[str, Chunks]) -> dict[str, Chunks]:
        made = run_node(graph, node, values, graph.constants)
        name = node.output[0]
        if name in chosen.layers:
            read = numbers.activations[chosen.source.get(node.input[0], node.input[0])]
            numbers.layers[name] = quantise_alone(graph, node, read, settings, values[node.input[0]], made[name], rng)
        return made

    def cover(values: dict[str, Chunks]) -> None:
        for name in values.keys() & chosen.tensors:
            if name not in chosen.source:
                low, high = min(x.min() for x in values[name]), max(x.max() for x in values[name])
                numbers.activations[name] = make_affine(float(low), float(high), settings.activations)

    for _ in walk(graph, used, compute, cover):
        pass
    return Partial(model=model, graph=graph, numbers=numbers, settings=settings)
