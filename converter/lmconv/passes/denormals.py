"""Sets weights to zero that cannot matter: denormal weights, and others of which every product is too small to count.

Intel CPUs compute denormal numbers in microcode: the 249,547 denormal weights of PFLD make the plain graph thirty times
slower. Weight decay leaves such weights in channels without use.

Proven: a denormal constant becomes zero only where zero is no other number (`lmconv.graph.denormals`). Each further
weight becomes zero only if all these weights of a filter together add less than half a unit in the last place of the
filter's smallest result, or if they add denormal numbers only. The bound takes the range of each channel on seeded
noise and on faces, times `MARGIN`.

Checked: the range holds for other inputs too. As after every pass, the graph is compared with the graph before.

Denormal numbers that the graph computes nevertheless are counted on the same inputs, and their nodes are named.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from lmconv.graph.denormals import Readers, count, filters, flush, is_denormal, kept, label
from lmconv.graph.execution import Chunks, batches
from lmconv.graph.facts import LAYERS
from lmconv.graph.index import Graph, attribute
from lmconv.inference.probe import computed
from lmconv.inference.session import noise
from lmconv.types import Float32, Float64, Json, Pass, PassContext

OBSERVED = 2
"""Largest number of seeded inputs, and of faces, on which values are observed."""
OBSERVED_PIXELS = 2 * 128 * 128
"""Largest number of pixels of several such inputs: all values of the graph are in memory at once."""
SEED = 4
"""Seed of these inputs; neither the seed of export's own check nor the seed of `lmconv verify`."""
MARGIN = 1024.0
"""Factor by which another input may exceed the observed range of a channel."""
SMALL = MARGIN * float(np.finfo(np.float32).tiny)
"""Bound below which a product is lost: observed inputs give a denormal number, or zero."""
SHARE = 1e-3
"""Share of denormal numbers among the results of a node from which the node is named."""
NAMED = 3
"""Largest number of nodes that one warning names."""


def denormals(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Sets weights that cannot matter to zero.

    The decisions count the `denormal` numbers, those that became zero (`zero`), and `further` weights that became zero.
    `kept` has the constants that stay, with the node for which zero is another number. `computed` has the nodes that
    compute denormal numbers, with the share of these.
    """
    before = count(model)
    zero = flush(model) if before else 0
    values = _observed(model, context)
    further, slow = _flush_further(model, values), _denormal_shares(model, values)
    if further and slow:
        slow = _denormal_shares(model, _observed(model, context))
    left = kept(model) if zero < before else {}
    decisions = {"denormal": before, "zero": zero, "further": further, "kept": left, "computed": slow}
    return model, {**decisions, "warnings": _warnings(left, slow)}


def _observed(model: onnx.ModelProto, context: PassContext) -> dict[str, Chunks]:
    """Returns the float32 values of the graph, inputs included, on seeded noise and on faces."""
    graph, (height, width) = Graph.of(model), context.spec.input_size
    count = min(OBSERVED, max(1, OBSERVED_PIXELS // (height * width)))
    faces = [] if context.crops is None else [context.crops[:count]]
    chunks = batches(graph, np.concatenate([noise(context.spec, count, SEED), *faces]))
    names = [name for node in model.graph.node for name in node.output if name]
    values: dict[str, Chunks] = {graph.inputs[0]: chunks}
    for images in chunks:
        for name, value in computed(model, names, {graph.inputs[0]: images}).items():
            if isinstance(value, np.ndarray) and value.dtype == np.float32 and value.size:
                values.setdefault(name, []).append(value)
    return values


def _flush_further(model: onnx.ModelProto, values: Mapping[str, Chunks]) -> int:
    """Sets normal weights that cannot matter to zero, in place; returns their number."""
    graph, readers, changed = Graph.of(model), Readers(model), 0
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.domain or any(name not in values for name in node.output[:1]):
            continue
        after = _layer(node, graph, values) if node.op_type in LAYERS else _factors(node, graph, values)
        shared = any(len(graph.consumers[name]) > 1 or name in graph.outputs for name in after)
        if shared or any(readers.obstacle(name, after) for name in after):
            continue
        for name, numbers in after.items():
            changed += int(np.count_nonzero(graph.constants[name]) - np.count_nonzero(numbers))
            tensors[name].CopyFrom(numpy_helper.from_array(numbers, name))
    return changed


def _layer(node: onnx.NodeProto, graph: Graph, values: Mapping[str, Chunks]) -> dict[str, Float32]:
    """Returns weights and bias of a layer with zeros in place of the numbers that cannot matter, by name.

    The result is empty if there are no such numbers, or if the layer has other parameters than constant float32 ones.
    """
    data, *names = [name for name in node.input if name]
    parameters = {name: graph.constants[name] for name in names if name in graph.constants}
    usual = len(parameters) == len(names) > 0 and all(array.dtype == np.float32 for array in parameters.values())
    if not usual or data not in values or parameters[names[0]].ndim < 2 or attribute(node, "transA", 0):
        return {}
    axis = 1 if node.op_type in ("Conv", "ConvTranspose") else -1
    weights, *bias = parameters.values()
    scale = {0: attribute(node, "alpha", 1.0), 1: attribute(node, "beta", 1.0)}
    places = [filters(node, np.arange(weights.size).reshape(weights.shape))]
    bounds = [np.abs(filters(node, weights)) * _by_weight(node, weights, _ranges(values[data], axis))]
    if bias and bias[0].size == len(places[0]):
        places.append(np.arange(bias[0].size).reshape(-1, 1))
        bounds.append(np.abs(bias[0].reshape(-1, 1)).astype(np.float64))
    bounds = [bound * abs(scale[index]) for index, bound in enumerate(bounds)]
    lost = _lost(np.hstack(bounds), _thresholds(values[node.output[0]], axis))
    parts = np.split(lost, [places[0].shape[1]], axis=1)
    changed = {}
    for name, place, part in zip(names, places, parts, strict=False):
        if part.any():
            changed[name] = parameters[name].copy()
            changed[name].reshape(-1)[place[part]] = 0
    return changed


def _by_weight(node: onnx.NodeProto, weights: Float32, ranges: Float64) -> Float64:
    """Returns the range of the input by weight, (outputs, weights) or (1, weights) float64; order as in `filters`.

    Args:
        node: The layer.
        weights: Weights of the layer.
        ranges: (inputs,) float64, the range of each input channel.
    """
    if node.op_type not in ("Conv", "ConvTranspose"):
        return np.resize(ranges, (1, ranges.size))
    groups = attribute(node, "group", 1)
    kernel = int(np.prod(weights.shape[2:]))
    outputs = weights.shape[0] // groups if node.op_type == "Conv" else weights.shape[1]
    return np.repeat(np.repeat(ranges.reshape(groups, -1), kernel, axis=1), outputs, axis=0)


def _factors(node: onnx.NodeProto, graph: Graph, values: Mapping[str, Chunks]) -> dict[str, Float32]:
    """Returns the slopes of a PRelu, or the factors of a Mul, with zeros where every product is denormal, by name."""
    names = {"PRelu": node.input[1:], "Mul": node.input}.get(node.op_type, ())
    name = next((name for name in names if name in graph.constants), "")
    data = next((other for other in node.input if other != name), "")
    if not name or data not in values or graph.constants[name].dtype != np.float32:
        return {}
    factors, ranges = graph.constants[name], _ranges(values[data], 1 if values[data][0].ndim > 2 else -1)
    if factors.size > 1:  # one factor per channel, or the largest range for every factor
        shape = (-1, *[1] * (values[data][0].ndim - 2)) if values[data][0].ndim > 2 else (-1,)
        fits = np.broadcast_shapes(factors.shape, (ranges.size, *shape[1:])) == factors.shape
        ranges = ranges.reshape(shape) if fits else ranges.max()
    lost = (factors != 0) & (np.abs(factors) * (ranges if factors.size > 1 else ranges.max()) < SMALL)
    return {name: np.where(lost, np.float32(0), factors)} if lost.any() else {}


def _ranges(chunks: Chunks, axis: int) -> Float64:
    """Returns the largest magnitude by channel, times `MARGIN`, (channels,) float64.

    A channel that is always zero has the range of the whole tensor: on other inputs the channel may be more.
    """
    other = tuple(index for index in range(chunks[0].ndim) if index != axis % chunks[0].ndim)
    ranges: Float64 = np.max([np.abs(chunk).max(axis=other) for chunk in chunks], axis=0).astype(np.float64) * MARGIN
    return np.where(ranges > 0, ranges, ranges.max())


def _thresholds(chunks: Chunks, axis: int) -> Float64:
    """Returns half a unit in the last place of the smallest result by channel, (channels,) float64, `SMALL` at least.

    Results that are exactly zero do not count.
    """
    other = tuple(index for index in range(chunks[0].ndim) if index != axis % chunks[0].ndim)
    magnitudes = [np.where(chunk == 0, np.float32(np.inf), np.abs(chunk)).min(axis=other) for chunk in chunks]
    smallest = np.min(magnitudes, axis=0)
    units = np.spacing(np.where(np.isfinite(smallest), smallest, 0).astype(np.float32)).astype(np.float64)
    return np.maximum(units / 2, SMALL)


def _lost(bounds: Float64, thresholds: Float64) -> NDArray[np.bool_]:
    """Selects the largest set of summands of each filter whose bounds add up to less than the threshold.

    Args:
        bounds: (outputs, summands) float64, the bound of each summand; a summand of 0 is never selected.
        thresholds: (outputs,) float64.

    Returns:
        (outputs, summands) bool.
    """
    lost = (bounds > 0) & (bounds < thresholds[:, None])
    for row in np.flatnonzero(lost.any(axis=1)):
        order = np.argsort(bounds[row], kind="stable")
        lost[row, order] &= np.cumsum(bounds[row, order]) < thresholds[row]
    return lost


def _denormal_shares(model: onnx.ModelProto, values: Mapping[str, Chunks]) -> dict[str, float]:
    """Returns the share of denormal numbers among the results of each node, from `SHARE` on, in graph order."""
    shares = {}
    for node in model.graph.node:
        chunks = [chunk for name in node.output for chunk in values.get(name, [])]
        total = sum(chunk.size for chunk in chunks)
        share = sum(int(is_denormal(chunk).sum()) for chunk in chunks) / max(1, total)
        if share >= SHARE:
            shares[label(node)] = round(share, 4)
    return shares


def summary(decisions: Json) -> str:
    """Returns the numbers that became zero, in words."""
    further = f", and {decisions['further']:,} further weights" if decisions["further"] else ""
    return f"{decisions['zero']:,} of {decisions['denormal']:,} denormal numbers{further}"


def _warnings(left: Mapping[str, str], slow: Mapping[str, float]) -> list[str]:
    """Returns the warnings about constants that stay, and about nodes that compute denormal numbers."""
    reasons = list(dict.fromkeys(left.values()))
    stay = f"{len(left)} constants with denormal numbers stay, because zero is another number for {_listed(reasons)}"
    named = _listed([f"{name}, {share:.1%} of its numbers" for name, share in slow.items()])
    compute = f"on seeded inputs, nodes compute denormal numbers, which are slow on Intel CPUs: {named}"
    return [stay] * bool(left) + [compute] * bool(slow)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return "; ".join(names[:NAMED]) + more


plugin = Pass(
    name="denormals",
    summary="denormal weights, and weights too small to count, set to zero",
    apply=denormals,
    tolerance=1e-6,
    uses=("crops",),
)
