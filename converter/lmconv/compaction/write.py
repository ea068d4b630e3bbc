"""Writes a graph with the remaining channels alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lmconv.compaction.liveness import Liveness
from lmconv.compaction.rules import Rule, slices
from lmconv.graph.index import attribute, layer_bias, reads

NEUTRAL = {"Add": (0.0, (0, 1)), "Mul": (1.0, (0, 1)), "Sub": (0.0, (1,)), "Div": (1.0, (1,))}
"""Neutral constant of an operator, and the input positions at which this constant has no effect."""


@dataclass(kw_only=True, eq=False)
class Writer:
    """A graph that is being written.

    Attributes:
        live: Channels that stay.
        nodes: Nodes written so far.
        constants: Constants that these nodes read, by name.
        same: Names of equal values that replace removed values, by the name of the removed value.
        changed: True if anything differs from the original graph.
        readers: Number of reads of each value in the original graph, by name.
        shared: Names of new constants by original name, shape and bytes. If a constant is shared and cut in the same
            way twice, the result stays shared.
    """

    live: Liveness
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    changed: bool = False
    readers: Counter[str] = field(default_factory=Counter)
    shared: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)

    @cached_property
    def captured(self) -> set[str]:
        """Names of the values that subgraphs read from the graph around them."""
        return {name for node in self.live.seen.nodes for name in set(reads(node)) - set(node.input)}

    def keep(self, name: str) -> NDArray[np.intp]:
        """Returns the indices of the channels of a value that stay."""
        return np.flatnonzero(self.live.keep(name))

    def shrunk(self, name: str) -> bool:
        """True if a value loses channels."""
        return name in self.live.classes and not self.live.keep(name).all()

    def constant(self, node: onnx.NodeProto, place: int, value: NDArray[Any], name: str = "") -> None:
        """Replaces an input of a node by a new constant.

        Args:
            node: The node.
            place: Index of the input.
            value: The new constant.
            name: Name of the new constant. The name of the replaced constant is reused instead if nothing else reads
                that constant.
        """
        self.changed = True
        old = node.input[place] if place < len(node.input) else ""
        made = (old, value.shape, value.tobytes())
        if old and made in self.shared:
            node.input[place] = self.shared[made]
            return
        name = old if old and self.readers[old] == 1 and old in self.live.seen.constants else name or f"{old}_compact"
        taken = {*self.live.seen.values, *self.constants, *self.live.seen.constants} - {old}
        while name in taken or (name == old and self.readers[old] > 1):
            name = f"{node.output[0]}_{name}"
        while len(node.input) <= place:
            node.input.append("")
        node.input[place] = self.shared[made] = name
        self.constants[name] = value

    def alias(self, node: onnx.NodeProto, to: str) -> None:
        """Omits a node whose output equals the value `to`.

        An Identity stays instead if the output is a graph output, or if a subgraph reads the output.
        """
        self.changed = True
        if node.output[0] in self.live.seen.outputs or node.output[0] in self.captured:
            self.nodes.append(helper.make_node("Identity", [self.same.get(to, to)], node.output[:1], name=node.name))
        else:
            self.same[node.output[0]] = self.same.get(to, to)

    def add(self, node: onnx.NodeProto) -> None:
        """Writes a node, and the constants of the original graph that the node reads."""
        for place, name in enumerate(node.input):
            node.input[place] = self.same.get(name, name)
        for name in reads(node):
            if name in self.live.seen.constants and name not in self.constants:
                self.constants[name] = self.live.seen.constants[name]
        self.nodes.append(node)


def write(model: onnx.ModelProto, live: Liveness) -> onnx.ModelProto | None:
    """Returns the graph with the remaining channels; None if nothing changes."""
    readers = Counter(name for node in live.seen.nodes for name in reads(node))
    writer = Writer(live=live, readers=readers)
    for each in live.rules:
        if not live.alive.intersection(each.node.output):
            writer.changed = True
            continue
        node = onnx.NodeProto()
        node.CopyFrom(each.node)
        kind = "mix" if each.mix else node.op_type
        WRITERS.get(kind, _sliced)(writer, each, node)
    if not writer.changed:
        return None
    written = onnx.ModelProto()
    written.CopyFrom(model)
    del written.graph.node[:], written.graph.initializer[:], written.graph.value_info[:]
    written.graph.node.extend(writer.nodes)
    given = {name: live.seen.constants[name] for name in live.seen.outputs if name in live.seen.constants}
    for name, value in (writer.constants | given).items():
        written.graph.initializer.append(numpy_helper.from_array(value, name))
    return written


def _sliced(writer: Writer, each: Rule, node: onnx.NodeProto) -> None:
    """Writes a node that works channel by channel: its constants lose the same channels as its output."""
    live, out = writer.live, each.node.output[0]
    neutral = []
    for place, name in enumerate(each.node.input):
        if name in live.classes and live.stands_in(each, name):
            number = live.constant.number[name][writer.keep(name)]
            value = live.seen.values[name]
            neutral += [place] if _neutral(node.op_type, place, number) else []
            shaped = number.reshape(1, -1, *[1] * (value.ndim - 2)).astype(value.dtype)
            writer.constant(node, place, shaped, f"{name}_constant")
    if neutral and len(node.input) == 2:
        writer.alias(node, each.node.input[1 - neutral[0]])
        return
    if out in live.classes and writer.shrunk(out):
        for place, axis in each.sliced:
            old = live.seen.constants[node.input[place]]
            writer.constant(node, place, old.take(writer.keep(out), axis))
    writer.add(node)


def _neutral(op: str, place: int, number: NDArray[np.float64]) -> bool:
    """True if these constants have no effect as this input of an operator."""
    value, places = NEUTRAL.get(op, (0.0, ()))
    return place in places and bool((number == value).all())


def _mixed(writer: Writer, each: Rule, node: onnx.NodeProto) -> None:
    """Writes a convolution or linear layer: constant input channels move to its bias."""
    assert each.mix
    mix, live = each.mix, writer.live
    if not (writer.shrunk(mix.input) or writer.shrunk(mix.output)):
        writer.add(node)
        return
    rows, columns = writer.keep(mix.output), writer.keep(mix.input)
    if mix.blocks > 1:
        share = len(live.keep(mix.output)) // mix.blocks
        _set(node, "group", len(rows) // share)
        along = columns if node.op_type == "ConvTranspose" else rows
        writer.constant(node, 1, live.seen.constants[node.input[1]][along])
        if len(node.input) > 2 and node.input[2]:
            writer.constant(node, 2, live.seen.constants[node.input[2]][rows])
        writer.add(node)
        return
    gone = ~live.keep(mix.input)
    number = np.where(gone & live.constant.uniform[mix.input], live.constant.number[mix.input], 0.0)
    weight = mix.weight[rows].astype(np.float64)
    shift = weight.reshape(*weight.shape[:2], -1).sum(-1) @ number
    stiff = live.constant.uniform[mix.output][rows] & (mix.taps[rows] & gone).any(axis=1)
    weight = weight[:, columns]
    weight[stiff] = 0
    own = layer_bias(node, live.seen.constants, len(live.keep(mix.output)))
    assert own is not None  # otherwise the layer has no rule
    alpha = attribute(node, "alpha", 1.0) if node.op_type == "Gemm" else 1.0
    added = np.where(stiff, live.constant.number[mix.output][rows], own[rows] + alpha * shift)
    _layer(writer, node, weight.astype(mix.weight.dtype), added.astype(mix.weight.dtype))


def _layer(writer: Writer, node: onnx.NodeProto, weight: NDArray[Any], added: NDArray[Any]) -> None:
    """Writes a layer with new weights and bias. A MatMul with a bias becomes a Gemm."""
    biased = bool(added.any()) or (len(node.input) > 2 and bool(node.input[2]))
    if node.op_type == "MatMul" and biased:
        node.op_type = "Gemm"
    if node.op_type == "Gemm":
        _set(node, "transB", 1)
        if biased:
            _set(node, "beta", 1.0)
    if node.op_type == "ConvTranspose":
        weight = weight.swapaxes(0, 1)
    if node.op_type == "MatMul":
        weight = weight.T
    writer.constant(node, 1, weight)
    if biased:
        writer.constant(node, 2, added, f"{node.output[0]}_bias")
    writer.add(node)


def _set(node: onnx.NodeProto, name: str, value: float) -> None:
    """Sets an attribute of a node."""
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _convolution(writer: Writer, each: Rule, node: onnx.NodeProto) -> None:
    """Writes a depthwise convolution: filters are removed with their channels."""
    name, out = node.input[0], node.output[0]
    if writer.shrunk(name) or writer.shrunk(out):
        along = writer.keep(name if node.op_type == "ConvTranspose" else out)
        writer.constant(node, 1, writer.live.seen.constants[node.input[1]][along])
        if len(node.input) > 2 and node.input[2]:
            writer.constant(node, 2, writer.live.seen.constants[node.input[2]][writer.keep(out)])
        _set(node, "group", len(writer.keep(name)))
    writer.add(node)


def _concat(writer: Writer, each: Rule, node: onnx.NodeProto) -> None:
    """Writes a Concat without the inputs that have no remaining channels."""
    left = [name for name in node.input if name not in writer.live.classes or len(writer.keep(name))]
    if len(left) < len(node.input):
        writer.changed = True
        if len(left) == 1:
            writer.alias(node, left[0])
            return
        node.input[:] = left
    writer.add(node)


def _split(writer: Writer, each: Rule, node: onnx.NodeProto) -> None:
    """Writes a Split with the remaining number of channels in each part."""
    if each.links and writer.shrunk(node.input[0]):
        left = [name for name in node.output if len(writer.keep(name))]
        if len(left) == 1:
            node.output[:] = left
            writer.alias(node, node.input[0])
            return
        node.output[:] = left
        kept = [item for item in node.attribute if item.name != "num_outputs"]
        del node.attribute[:]
        node.attribute.extend(kept)
        sizes = np.array([len(writer.keep(name)) for name in left], np.int64)
        writer.constant(node, 1, sizes, f"{left[0]}_sizes")
    writer.add(node)


def _slice(writer: Writer, each: Rule, node: onnx.NodeProto) -> None:
    """Writes a Slice whose start and end count remaining channels."""
    seen, name = writer.live.seen, node.input[0]
    if each.links and writer.shrunk(name):
        cut = slices(node, seen)
        if 1 in cut:
            start, stop, _ = slice(*cut[1]).indices(len(writer.live.keep(name)))
            keep = writer.live.keep(name)
            first = int(keep[:start].sum())
            last = first + int(keep[start:stop].sum())
            if len(cut) == 1 and (first, last) == (0, int(keep.sum())):
                writer.alias(node, name)
                return
            index = list(cut).index(1)
            for place, value in ((1, first), (2, last)):
                changed = seen.constants[node.input[place]].copy()
                changed[index] = value
                writer.constant(node, place, changed)
    writer.add(node)


def _gather(writer: Writer, each: Rule, node: onnx.NodeProto) -> None:
    """Writes a Gather whose indices count remaining channels."""
    if each.links and writer.shrunk(node.input[0]):
        position = np.cumsum(writer.live.keep(node.input[0])) - 1
        chosen = position[each.links[0].inner[writer.keep(node.output[0])]]
        writer.constant(node, 1, chosen.astype(np.int64))
    writer.add(node)


def _told(place: int) -> Callable[[Writer, Rule, onnx.NodeProto], None]:
    """Returns a writer for operators that read the shape of their output from the input `place`."""

    def write(writer: Writer, each: Rule, node: onnx.NodeProto) -> None:
        out = node.output[0]
        if len(node.input) > place and node.input[place] and out in writer.live.classes and writer.shrunk(out):
            shape = writer.live.seen.constants[node.input[place]].copy()
            if len(shape) > 1 and shape[1] > 0:
                shape[1] = len(writer.keep(out))
                writer.constant(node, place, shape)
        writer.add(node)

    return write


WRITERS: dict[str, Callable[[Writer, Rule, onnx.NodeProto], None]] = {
    "mix": _mixed,
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Reshape": _told(1),
    "Resize": _told(3),
}
