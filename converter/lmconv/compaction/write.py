"""Writes a graph that has only the remaining channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from lmconv.compaction.liveness import Liveness
from lmconv.compaction.rules.rule import Rule
from lmconv.compaction.rules.selection import slice_bounds
from lmconv.compaction.writer import Writer, drop_attribute, set_attribute
from lmconv.graph.facts import copied
from lmconv.graph.index import attribute, layer_bias, reads

NEUTRAL = {"Add": (0.0, (0, 1)), "Mul": (1.0, (0, 1)), "Sub": (0.0, (1,)), "Div": (1.0, (1,))}
"""Neutral constant of an operator, and the input positions at which this constant has no effect."""


def write(model: onnx.ModelProto, live: Liveness) -> onnx.ModelProto | None:
    """Returns the graph with only the remaining channels; None if nothing changes."""
    read_counts = Counter(name for node in live.trace.nodes for name in reads(node))
    writer = Writer(live=live, read_counts=read_counts)
    for rule in live.rules:
        if not live.live_values.intersection(rule.node.output):
            writer.changed = True
            continue
        node = onnx.NodeProto()
        node.CopyFrom(rule.node)
        write_node = _write_weighted_sum if rule.weighted_sum else WRITERS.get(node.op_type, _write_channelwise)
        write_node(writer, rule, node)
    if not writer.changed:
        return None
    written = copied(model)
    del written.graph.node[:], written.graph.initializer[:], written.graph.value_info[:]
    written.graph.node.extend(writer.nodes)
    constant_outputs = {name: live.trace.constants[name] for name in live.trace.outputs if name in live.trace.constants}
    for name, value in (writer.constants | constant_outputs).items():
        written.graph.initializer.append(numpy_helper.from_array(value, name))
    return written


def _write_channelwise(writer: Writer, rule: Rule, node: onnx.NodeProto) -> None:
    """Writes a node that keeps channels separate: its constants lose the same channels as its output."""
    live, out = writer.live, rule.node.output[0]
    neutral = []
    for index, name in enumerate(rule.node.input):
        if name in live.classes and live.is_replaceable(rule, name):
            numbers = live.constants.numbers[name][writer.kept_indices(name)]
            value = live.trace.values[name]
            neutral += [index] if _is_neutral(node.op_type, index, numbers) else []
            constant = numbers.reshape(1, -1, *[1] * (value.ndim - 2)).astype(value.dtype)
            writer.set_constant(node, index, constant, f"{name}_constant")
    if neutral and len(node.input) == 2:
        writer.bypass(node, rule.node.input[1 - neutral[0]])
        return
    if out in live.classes and writer.is_shrunk(out):
        for index, axis in rule.channel_constants:
            writer.set_constant(node, index, writer.original(node.input[index]).take(writer.kept_indices(out), axis))
    writer.add(node)


def _is_neutral(operator: str, index: int, numbers: NDArray[np.float64]) -> bool:
    """True if these constants have no effect as the input `index` of an operator."""
    neutral, indices = NEUTRAL.get(operator, (0.0, ()))
    return index in indices and bool((numbers == neutral).all())


def _write_weighted_sum(writer: Writer, rule: Rule, node: onnx.NodeProto) -> None:
    """Writes a convolution or linear layer: constant input channels move to the bias."""
    layer, live = rule.weighted_sum, writer.live
    assert layer
    if not (writer.is_shrunk(layer.input) or writer.is_shrunk(layer.output)):
        writer.add(node)
        return
    if layer.groups > 1:
        _write_grouped(writer, rule, node)
        return
    outputs, inputs = writer.kept_indices(layer.output), writer.kept_indices(layer.input)
    removed = ~live.kept_channels(layer.input)
    numbers = np.where(removed & live.constants.uniform[layer.input], live.constants.numbers[layer.input], 0.0)
    weight = layer.weight[outputs].astype(np.float64)
    shift = weight.reshape(*weight.shape[:2], -1).sum(-1) @ numbers
    reads_removed = (layer.connected[outputs] & removed).any(axis=1)
    constant = live.constants.uniform[layer.output][outputs] & reads_removed
    weight = weight[:, inputs]
    weight[constant] = 0
    bias = layer_bias(node, live.trace.constants, len(live.kept_channels(layer.output)))
    assert bias is not None  # otherwise the layer has no rule
    alpha = attribute(node, "alpha", 1.0) if node.op_type == "Gemm" else 1.0
    bias = np.where(constant, live.constants.numbers[layer.output][outputs], bias[outputs] + alpha * shift)
    _write_layer(writer, node, weight.astype(layer.weight.dtype), bias.astype(layer.weight.dtype))


def _write_grouped(writer: Writer, rule: Rule, node: onnx.NodeProto) -> None:
    """Writes a grouped convolution: filters are removed by whole groups."""
    layer = rule.weighted_sum
    assert layer
    outputs, inputs = writer.kept_indices(layer.output), writer.kept_indices(layer.input)
    group_outputs = len(writer.live.kept_channels(layer.output)) // layer.groups
    set_attribute(node, "group", len(outputs) // group_outputs)
    _write_filters(writer, node, inputs if node.op_type == "ConvTranspose" else outputs, outputs)


def _write_filters(writer: Writer, node: onnx.NodeProto, rows: NDArray[np.intp], outputs: NDArray[np.intp]) -> None:
    """Writes a convolution with only these rows (axis 0) of its weights and these outputs of its bias."""
    writer.set_constant(node, 1, writer.original(node.input[1])[rows])
    if len(node.input) > 2 and node.input[2]:
        writer.set_constant(node, 2, writer.original(node.input[2])[outputs])
    writer.add(node)


def _write_layer(writer: Writer, node: onnx.NodeProto, weight: NDArray[Any], bias: NDArray[Any]) -> None:
    """Writes a layer with new weights (outputs, inputs, ...) and bias. A MatMul with a bias becomes a Gemm."""
    has_bias = bool(bias.any()) or (len(node.input) > 2 and bool(node.input[2]))
    if node.op_type == "MatMul" and has_bias:
        node.op_type = "Gemm"
    if node.op_type == "Gemm":
        set_attribute(node, "transB", 1)
        if has_bias:
            set_attribute(node, "beta", 1.0)
    if node.op_type == "ConvTranspose":
        weight = weight.swapaxes(0, 1)
    if node.op_type == "MatMul":
        weight = weight.T
    writer.set_constant(node, 1, weight)
    if has_bias:
        writer.set_constant(node, 2, bias, f"{node.output[0]}_bias")
    writer.add(node)


def _write_depthwise(writer: Writer, rule: Rule, node: onnx.NodeProto) -> None:
    """Writes a depthwise convolution: filters are removed with their channels."""
    name, out = node.input[0], node.output[0]
    if not (writer.is_shrunk(name) or writer.is_shrunk(out)):
        writer.add(node)
        return
    outputs = writer.kept_indices(out)
    set_attribute(node, "group", len(writer.kept_indices(name)))
    _write_filters(writer, node, writer.kept_indices(name if node.op_type == "ConvTranspose" else out), outputs)


def _write_concat(writer: Writer, rule: Rule, node: onnx.NodeProto) -> None:
    """Writes a Concat without the inputs that have no remaining channels."""
    inputs = [name for name in node.input if name not in writer.live.classes or len(writer.kept_indices(name))]
    if len(inputs) < len(node.input):
        writer.changed = True
        if len(inputs) == 1:
            writer.bypass(node, inputs[0])
            return
        node.input[:] = inputs
    writer.add(node)


def _write_split(writer: Writer, rule: Rule, node: onnx.NodeProto) -> None:
    """Writes a Split with the remaining number of channels in each part."""
    if rule.links and writer.is_shrunk(node.input[0]):
        outputs = [name for name in node.output if len(writer.kept_indices(name))]
        node.output[:] = outputs
        if len(outputs) == 1:
            writer.bypass(node, node.input[0])
            return
        drop_attribute(node, "num_outputs")
        sizes = np.array([len(writer.kept_indices(name)) for name in outputs], np.int64)
        writer.set_constant(node, 1, sizes, f"{outputs[0]}_sizes")
    writer.add(node)


def _write_slice(writer: Writer, rule: Rule, node: onnx.NodeProto) -> None:
    """Writes a Slice whose start and end count the remaining channels."""
    name = node.input[0]
    if rule.links and writer.is_shrunk(name):
        bounds = slice_bounds(node, writer.live.trace)
        if 1 in bounds:
            kept = writer.live.kept_channels(name)
            start, stop, _ = slice(*bounds[1]).indices(len(kept))
            new_start = int(kept[:start].sum())
            new_stop = new_start + int(kept[start:stop].sum())
            if len(bounds) == 1 and (new_start, new_stop) == (0, int(kept.sum())):
                writer.bypass(node, name)
                return
            entry = list(bounds).index(1)
            for index, bound in ((1, new_start), (2, new_stop)):
                constant = writer.original(node.input[index]).copy()
                constant[entry] = bound
                writer.set_constant(node, index, constant)
    writer.add(node)


def _write_gather(writer: Writer, rule: Rule, node: onnx.NodeProto) -> None:
    """Writes a Gather whose indices count the remaining channels."""
    if rule.links and writer.is_shrunk(node.input[0]):
        new_index = np.cumsum(writer.live.kept_channels(node.input[0])) - 1
        channels = rule.links[0].input_channels[writer.kept_indices(node.output[0])]
        writer.set_constant(node, 1, new_index[channels].astype(np.int64))
    writer.add(node)


def _with_output_shape(index: int) -> Callable[[Writer, Rule, onnx.NodeProto], None]:
    """Returns a function that writes an operator whose input `index` is the shape of the output."""

    def write_node(writer: Writer, rule: Rule, node: onnx.NodeProto) -> None:
        out = node.output[0]
        if len(node.input) > index and node.input[index] and out in writer.live.classes and writer.is_shrunk(out):
            shape = writer.original(node.input[index]).copy()
            if len(shape) > 1 and shape[1] > 0:
                shape[1] = len(writer.kept_indices(out))
                writer.set_constant(node, index, shape)
        writer.add(node)

    return write_node


WRITERS: dict[str, Callable[[Writer, Rule, onnx.NodeProto], None]] = {
    "Conv": _write_depthwise,
    "ConvTranspose": _write_depthwise,
    "Concat": _write_concat,
    "Split": _write_split,
    "Slice": _write_slice,
    "Gather": _write_gather,
    "Reshape": _with_output_shape(1),
    "Resize": _with_output_shape(3),
}
"""Functions that write a node, by operator; for nodes without a weighted sum. Default: `_write_channelwise`."""
