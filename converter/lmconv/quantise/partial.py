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
from lmconv.quantise.calibrate import QuantisationParameters, covering, quantise_alone
from lmconv.quantise.emit import emit
from lmconv.quantise.equalise import equalise
from lmconv.quantise.observe import observe
from lmconv.quantise.plan import QuantiserOptions, plan
from lmconv.quantise.prepare import prepared
from lmconv.quantise.static import sample
from lmconv.types import Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """A float network with parameters for any selection of int8 layers.

    Attributes:
        model: The float graph.
        graph: Index of the float graph, with equalised weights.
        parameters: Quantisation parameters of every layer and tensor that can be int8.
        settings: Options of the quantiser that `parameters` was computed with.
        tensors: Names of the float32 tensors with channels.
    """

    model: onnx.ModelProto
    graph: Graph
    parameters: QuantisationParameters
    settings: QuantiserOptions
    tensors: frozenset[str]

    @property
    def layers(self) -> tuple[str, ...]:
        """Output names of the layers that can be int8, in graph order."""
        return tuple(self.parameters.layers)

    def graph_of(self, layers: Collection[str]) -> onnx.ModelProto:
        """Returns the network with exactly `layers` in int8; each layer is named by its output."""
        float_layers = self.settings.float_layers | (frozenset(self.layers) - frozenset(layers))
        selection = plan(self.graph, replace(self.settings, float_layers=float_layers), self.tensors)
        return emit(self.model, self.graph, selection, self.parameters, self.settings)


def prepare(model: onnx.ModelProto, crops: Float32, settings: QuantiserOptions) -> Partial:
    """Calibrates each layer of a float graph alone.

    Args:
        model: A float32 graph with one input; unchanged.
        crops: (n, 3, H, W) float32 network inputs to calibrate on.
        settings: Options of the quantiser.
    """
    sampled = sample(crops, settings.crops)
    model = prepared(model)
    graph = Graph.of(model)
    statistics = observe(graph, sampled)
    selection = plan(graph, settings, statistics.ranges)
    equalise(graph, selection, statistics, settings.balance)
    parameters = QuantisationParameters()
    rng = np.random.default_rng(0)

    def compute(node: onnx.NodeProto, values: Mapping[str, Chunks]) -> dict[str, Chunks]:
        outputs = run_node(graph, node, values, graph.constants)
        name = node.output[0]
        if name in selection.layers:
            x, y = values[node.input[0]], outputs[name]
            input_affine = parameters.activations[selection.source.get(node.input[0], node.input[0])]
            parameters.layers[name] = quantise_alone(graph, node, input_affine, settings, x, y, rng)
        return outputs

    def set_range(values: dict[str, Chunks]) -> None:
        for name in values.keys() & selection.tensors:
            parameters.activations[name] = covering(values[name], settings.activations)

    for _ in walk(graph, sampled, compute, set_range):
        pass
    tensors = frozenset(statistics.ranges)
    return Partial(model=model, graph=graph, parameters=parameters, settings=settings, tensors=tensors)
