"""Cross-layer equalisation: moves scale between channels that share one quantisation step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lmconv.graph.index import Graph, attribute, reads
from lmconv.quantise.observe import ActivationStatistics
from lmconv.quantise.plan import QuantisationPlan
from lmconv.types import Float32

COMMUTING = {"Add", "AveragePool", "GlobalAveragePool", "LeakyRelu", "MaxPool", "PRelu", "Relu"}
"""Operators that commute with a positive scale per channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A set of tensors whose channels can be scaled together.

    Attributes:
        tensors: Names of the tensors.
        writers: Convolutions that write a tensor of the set.
        readers: Convolutions that read a tensor of the set.
    """

    tensors: set[str]
    writers: list[onnx.NodeProto]
    readers: list[onnx.NodeProto]


def equalise(
    graph: Graph, plan: QuantisationPlan, statistics: ActivationStatistics, balance: float
) -> tuple[int, ActivationStatistics]:
    """Scales channels between convolutions to give channels with one quantisation step similar ranges.

    Consider a set of tensors that only convolutions write and read, joined by operators that commute with a positive
    scale per channel. Writers can divide channel c by s_c > 0 and readers multiply by s_c: the network computes the
    same function (cross-layer equalisation, Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and
    Bias Correction"; here along residual chains too). Every output channel has its own weight scale. With depthwise
    readers only, s is therefore the full range of the channel. A dense reader mixes channels, and s widens the range of
    its weights; s is then the range to the power `balance`, as in SmoothQuant (Xiao et al. 2023).

    The weights of the equalised sets in `graph.constants` are replaced.

    Args:
        graph: The float graph.
        plan: Layers and tensors that become int8; only sets with a quantised tensor are equalised.
        statistics: Statistics of the float network.
        balance: Exponent for dense readers, 0 to 1.

    Returns:
        Number of equalised sets, and the statistics of the equalised network.
    """
    links = [link for link in find_links(graph) if link.tensors & plan.tensors]
    ranges, means = dict(statistics.ranges), dict(statistics.means)
    for link in links:
        quantised = link.tensors & plan.tensors
        relative = np.max([ranges[name] / max(float(ranges[name].max()), 1e-30) for name in quantised], axis=0)
        depthwise = all(attribute(node, "group", 1) > 1 for node in link.readers)
        scale = (np.where(relative > 1e-4, relative, 1.0) ** (1.0 if depthwise else balance)).astype(np.float32)
        _scale_channels(graph, link, scale.reshape(-1, 1, 1, 1))
        for name in link.tensors:
            ranges[name], means[name] = ranges[name] / scale, means[name] / scale
    return len(links), ActivationStatistics(ranges=ranges, means=means, macs=statistics.macs)


def _scale_channels(graph: Graph, link: Link, column: Float32) -> None:
    """Divides the writers' weights and biases by `column` (C, 1, 1, 1) and multiplies the readers' weights."""
    for node in link.writers:
        graph.constants[node.input[1]] = graph.constants[node.input[1]] / column
        if len(node.input) > 2:
            graph.constants[node.input[2]] = graph.constants[node.input[2]] / column.ravel()
    for node in link.readers:
        over_inputs = column if attribute(node, "group", 1) > 1 else column.reshape(1, -1, 1, 1)
        graph.constants[node.input[1]] = graph.constants[node.input[1]] * over_inputs


def find_links(graph: Graph) -> list[Link]:
    """Returns every set of tensors that can be equalised, in graph order."""
    set_of: dict[str, set[str]] = {}
    for node in graph.proto.node:
        for name in (*graph.computed(node), *node.output):
            set_of.setdefault(name, {name})
        if node.op_type in COMMUTING:
            joined = set().union(*(set_of[name] for name in (*graph.computed(node), node.output[0])))
            set_of.update(dict.fromkeys(joined, joined))
    border = [node for node in graph.proto.node if node.op_type not in COMMUTING]
    read = [reads(node) for node in border]
    links = []
    for tensors in {id(tensors): tensors for tensors in set_of.values()}.values():
        link = Link(
            tensors=tensors,
            writers=[node for node in border if tensors.intersection(node.output)],
            readers=[node for node, names in zip(border, read, strict=True) if tensors.intersection(names)],
        )
        if _can_scale(graph, link):
            links.append(link)
    return links


def _can_scale(graph: Graph, link: Link) -> bool:
    """True if only 2-D convolutions with unshared weights surround the tensors, and no sum has a constant operand."""
    nodes = [*link.writers, *link.readers]
    if not link.readers or any(node.op_type != "Conv" for node in nodes):
        return False
    if link.tensors.intersection((*graph.inputs, *graph.outputs)):
        return False
    weights = [*(name for node in link.writers for name in node.input[1:]), *(node.input[1] for node in link.readers)]
    if any(name not in graph.constants or len(graph.consumers[name]) > 1 for name in weights):
        return False
    sums = [node for name in link.tensors for node in graph.consumers[name] if node.op_type == "Add"]
    if any(len(graph.computed(node)) != 2 for node in sums):
        return False
    written = {graph.constants[node.input[1]].shape[0] for node in link.writers}
    read = {_channels_read(graph.constants[node.input[1]], attribute(node, "group", 1)) for node in link.readers}
    return len(written) == 1 and written == read


def _channels_read(weights: NDArray[Any], groups: int) -> int:
    """Input channels of a 2-D convolution that is dense, or depthwise with one output per channel; else 0."""
    if weights.ndim != 4:
        return 0
    if groups == 1:
        return int(weights.shape[1])
    return int(weights.shape[0]) if weights.shape[:2] == (groups, 1) else 0
