"""Merges two linear layers without anything between them into one layer. Exact up to rounding.

A node costs time whatever the node computes. Networks with linear bottlenecks (MobileNetV2) have a projection that only
the next expansion reads: two 1x1 convolutions, whose product is one. The pass also merges a convolution with the 1x1
convolution after it, a 1x1 convolution with the unpadded convolution after it, two linear layers, and two Transposes.
Where zeros pad the second convolution, the first one must have no bias: the border reads zeros instead of the bias.

A pair that costs no more multiplications merged is always merged. Other pairs are merged if that is measured faster on
the target, in the order of the multiplications that they add.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx

from lmconv.graph.facts import copied, layer_macs, static_shapes
from lmconv.graph.index import attribute, layer_bias, padded
from lmconv.graph.rewriter import Rewriter, make
from lmconv.inference.latency import faster
from lmconv.types import Float64, Json, Pass, PassContext

MOST = 4
"""Largest number of graphs with additional multiplications that are timed."""
DEAREST = 2.0
"""Multiplications of a merged pair, as a multiple of those of the pair, beyond which the pair is not tried."""
MATRICES = ("Gemm", "MatMul")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two nodes that can be merged.

    Attributes:
        name: Name of the value between the nodes.
        before: Multiply-accumulates of both nodes, for one input.
        after: Multiply-accumulates of the merged node.
    """

    name: str
    before: int
    after: int


def linear(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Merges pairs of layers. A replay merges the pairs of the earlier run instead of timing graphs."""
    if context.replay:
        return _merged(model, context.replay["merged"]), dict(context.replay)
    pairs = sorted(_pairs(model, context.spec.input_size), key=lambda pair: pair.after - pair.before)
    cheap = [pair.name for pair in pairs if pair.after <= pair.before]
    dear = [pair.name for pair in pairs if pair.before < pair.after <= DEAREST * pair.before]
    chosen, figures = cheap, Json()
    if dear and context.measure is not None:
        counts = np.unique(np.linspace(0, len(dear), min(len(dear), MOST) + 1).round().astype(int)).tolist()
        choices = [[*cheap, *dear[:count]] for count in counts]
        times = context.measure([_merged(copied(model), names) for names in choices])
        gains = [faster(times[0], own) for own in times]
        best = max(range(len(choices)), key=lambda index: gains[index].median if gains[index].low > 1 else 1.0)
        chosen = choices[best]
        measured = {str(len(names)): gain.to_json() for names, gain in zip(choices[1:], gains[1:], strict=True)}
        figures = {"measured": {f"faster than {len(cheap)} merged pairs": measured}}
    left = [pair.name for pair in pairs if pair.name not in chosen]
    return _merged(model, chosen), {"merged": chosen, "left": left, **figures}


def _pairs(model: onnx.ModelProto, size: tuple[int, int]) -> list[Pair]:
    """Returns all pairs of a graph, in graph order."""
    graph = Rewriter(copied(model))
    candidates = [
        (first, second)
        for second in graph.nodes("Conv", "Transpose", *MATRICES)
        if (first := graph.producer(second.input[0], "Conv", "Transpose", *MATRICES)) is not None
    ]
    merged = [(first, second, node) for first, second in candidates if (node := _merge(graph, first, second))]
    if not merged:
        return []
    macs = layer_macs(model.graph.node, static_shapes(model, size))
    pairs = []
    for first, second, node in merged:
        name = first.output[0]
        if first.op_type == "Transpose":
            pairs.append(Pair(name=name, before=0, after=0))
        elif name in macs and second.output[0] in macs:
            like = first if _pointwise(graph, second) or first.op_type in MATRICES else second
            places = macs[like.output[0]] / graph.constants[like.input[1]].size
            after = round(places * prod(graph.constants[node.input[1]].shape))
            pairs.append(Pair(name=name, before=macs[name] + macs[second.output[0]], after=after))
    return pairs


def _merged(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """Merges the pairs with these values between them, in place; also longer chains."""
    for name in names:
        graph = Rewriter(model)
        first = graph.producer(name, "Conv", "Transpose", *MATRICES)
        (second,) = graph.consumers(name)
        if first is not None and (node := _merge(graph, first, second)):  # an earlier merge may have added a bias
            graph.replace(first)
            graph.replace(second, node)
            graph.commit()
    return model


def _merge(graph: Rewriter, first: onnx.NodeProto, second: onnx.NodeProto) -> onnx.NodeProto | None:
    """Returns one node that computes two nodes; None if that is impossible."""
    name = first.output[0]
    if not graph.has_one_consumer(name) or list(second.input).count(name) != 1 or second.domain:
        return None
    if first.op_type == second.op_type == "Transpose":
        return _transposed(first, second)
    if first.op_type == second.op_type == "Conv":
        return _convolution(graph, first, second)
    if first.op_type in MATRICES and second.op_type in MATRICES:
        return _product(graph, first, second)
    return None


def _transposed(first: onnx.NodeProto, second: onnx.NodeProto) -> onnx.NodeProto | None:
    """Returns the Transpose, or the Identity, that computes two Transposes with given axes."""
    inner, outer = attribute(first, "perm", []), attribute(second, "perm", [])
    if not inner or not outer:
        return None
    axes = [inner[axis] for axis in outer]
    if axes == sorted(axes):
        return make("Identity", [first.input[0]], second.output[0])
    return make("Transpose", [first.input[0]], second.output[0], perm=axes)


def _convolution(graph: Rewriter, first: onnx.NodeProto, second: onnx.NodeProto) -> onnx.NodeProto | None:
    """Returns the convolution that computes two dense convolutions, of which one has a 1x1 kernel."""
    inner, inner_bias = _filters(graph, first)
    outer, outer_bias = _filters(graph, second)
    if inner is None or outer is None or inner_bias is None or outer_bias is None or inner.ndim != outer.ndim:
        return None
    outputs, inputs = len(outer), inner.shape[1]
    bias = outer.reshape(*outer.shape[:2], -1).sum(axis=2) @ inner_bias + outer_bias
    if _pointwise(graph, second):
        weight = (outer.reshape(outputs, -1) @ inner.reshape(len(inner), -1)).reshape(outputs, *inner.shape[1:])
        return _layer(graph, first, first.input[0], second.output[0], weight, bias)
    if _pointwise(graph, first) and not (padded(second) and inner_bias.any()):
        weight = np.moveaxis(np.tensordot(outer, inner.reshape(len(inner), inputs), axes=(1, 0)), -1, 1)
        return _layer(graph, second, first.input[0], second.output[0], weight, bias)
    return None


def _pointwise(graph: Rewriter, node: onnx.NodeProto) -> bool:
    """True if a convolution has a 1x1 kernel, reads every position once, and pads nothing."""
    weight = graph.constants.get(node.input[1])
    strides = attribute(node, "strides", [])
    return (
        node.op_type == "Conv"
        and weight is not None
        and set(weight.shape[2:]) == {1}
        and set(strides) <= {1}
        and not padded(node)
    )


def _filters(graph: Rewriter, node: onnx.NodeProto) -> tuple[Float64 | None, Float64 | None]:
    """Returns the weights (outputs, inputs, ...) and the (outputs,) bias of a dense convolution, float64, or None."""
    weight = graph.constants.get(node.input[1])
    if weight is None or weight.dtype != np.float32 or attribute(node, "group", 1) != 1 or weight.ndim < 3:
        return None, None
    return weight.astype(np.float64), layer_bias(node, graph.constants, len(weight))


def _product(graph: Rewriter, first: onnx.NodeProto, second: onnx.NodeProto) -> onnx.NodeProto | None:
    """Returns the linear layer that computes two; a MatMul only for two MatMuls, which have no bias."""
    inner, inner_bias = _matrix(graph, first)
    outer, outer_bias = _matrix(graph, second)
    if inner is None or outer is None or inner_bias is None or outer_bias is None or inner.shape[1] != len(outer):
        return None
    x, y, weight = first.input[0], second.output[0], inner @ outer
    if first.op_type == second.op_type == "MatMul":
        return make("MatMul", [x, graph.constant(f"{y}_weight", weight.astype(np.float32))], y)
    gemm = make("Gemm", [], y)
    return _layer(graph, gemm, x, y, weight, inner_bias @ outer + outer_bias)


def _matrix(graph: Rewriter, node: onnx.NodeProto) -> tuple[Float64 | None, Float64 | None]:
    """Returns the weights (inputs, outputs) and the (outputs,) bias of a linear layer, float64, or None."""
    weight = graph.constants.get(node.input[1])
    if weight is None or weight.dtype != np.float32 or weight.ndim != 2 or attribute(node, "transA", 0):
        return None, None
    matrix = (weight.T if attribute(node, "transB", 0) else weight) * np.float64(attribute(node, "alpha", 1.0))
    return matrix, layer_bias(node, graph.constants, matrix.shape[1])


def _layer(graph: Rewriter, like: onnx.NodeProto, x: str, y: str, weight: Float64, bias: Float64) -> onnx.NodeProto:
    """Returns a node with the attributes of another, other weights, and a bias unless it is zero."""
    node = onnx.NodeProto()
    node.CopyFrom(like)
    parameters = [graph.constant(f"{y}_weight", weight.astype(np.float32))]
    if bias.any():
        parameters.append(graph.constant(f"{y}_bias", bias.astype(np.float32)))
    node.name = node.output[0] = y
    node.input[:] = [x, *parameters]
    return node


plugin = Pass(
    name="linear",
    summary="two linear layers in a row as one, where that is faster; two Transposes as one",
    apply=linear,
    tolerance=1e-6,
    uses=("measure", "replay"),
    in_float=True,
)
