"""State of a graph that is being written with only the remaining channels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from lmconv.compaction.liveness import Liveness
from lmconv.graph.index import reads


@dataclass(kw_only=True, eq=False)
class Writer:
    """A graph that is being written.

    Attributes:
        live: Channels that stay.
        nodes: Nodes written so far.
        constants: Constants that these nodes read, by name.
        aliases: Names of the equal values that replace omitted values, by the name of the omitted value.
        changed: True if anything differs from the original graph.
        read_counts: Number of reads of each value in the original graph, by name.
        shared: Names of new constants by original name, shape and bytes. If a constant is shared and cut in the same
            way twice, the result stays shared.
    """

    live: Liveness
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    changed: bool = False
    read_counts: Counter[str] = field(default_factory=Counter)
    shared: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)

    @cached_property
    def captured(self) -> set[str]:
        """Names of the values that subgraphs read from the enclosing graph."""
        return {name for node in self.live.trace.nodes for name in set(reads(node)) - set(node.input)}

    def original(self, name: str) -> NDArray[Any]:
        """Returns a constant of the original graph."""
        return self.live.trace.constants[name]

    def kept_indices(self, name: str) -> NDArray[np.intp]:
        """Returns the indices of the channels of a value that stay."""
        return np.flatnonzero(self.live.kept_channels(name))

    def is_shrunk(self, name: str) -> bool:
        """True if a value loses channels."""
        return name in self.live.classes and not self.live.kept_channels(name).all()

    def set_constant(self, node: onnx.NodeProto, index: int, value: NDArray[Any], name: str = "") -> None:
        """Replaces an input of a node by a new constant.

        Args:
            node: The node.
            index: Index of the input.
            value: The new constant.
            name: Name of the new constant. The name of the replaced constant is reused instead if nothing else reads
                the replaced constant.
        """
        self.changed = True
        old = node.input[index] if index < len(node.input) else ""
        key = (old, value.shape, value.tobytes())
        if old and key in self.shared:
            node.input[index] = self.shared[key]
            return
        is_private = old and self.read_counts[old] == 1 and old in self.live.trace.constants
        name = old if is_private else name or f"{old}_compact"
        taken = {*self.live.trace.values, *self.constants, *self.live.trace.constants} - {old}
        while name in taken or (name == old and self.read_counts[old] > 1):
            name = f"{node.output[0]}_{name}"
        while len(node.input) <= index:
            node.input.append("")
        node.input[index] = self.shared[key] = name
        self.constants[name] = value

    def bypass(self, node: onnx.NodeProto, value: str) -> None:
        """Omits a node whose output equals the value of this name.

        An Identity stays instead if the output is a graph output, or if a subgraph reads the output.
        """
        self.changed = True
        source = self.aliases.get(value, value)
        if node.output[0] in self.live.trace.outputs or node.output[0] in self.captured:
            self.nodes.append(helper.make_node("Identity", [source], node.output[:1], name=node.name))
        else:
            self.aliases[node.output[0]] = source

    def add(self, node: onnx.NodeProto) -> None:
        """Writes a node, and the constants of the original graph that the node reads."""
        for index, name in enumerate(node.input):
            node.input[index] = self.aliases.get(name, name)
        for name in reads(node):
            if name in self.live.trace.constants and name not in self.constants:
                self.constants[name] = self.original(name)
        self.nodes.append(node)


def set_attribute(node: onnx.NodeProto, name: str, value: float) -> None:
    """Sets an attribute of a node."""
    drop_attribute(node, name)
    node.attribute.append(helper.make_attribute(name, value))


def drop_attribute(node: onnx.NodeProto, name: str) -> None:
    """Removes an attribute of a node, if the node has the attribute."""
    others = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend(others)
