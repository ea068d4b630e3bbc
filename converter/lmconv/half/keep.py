"""Chooses the nodes that stay float32, from the graph and from measured values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import onnx

from lmconv.errors import GateFailed
from lmconv.graph.index import Graph, attribute, reads
from lmconv.half.observe import Observed, is_layer
from lmconv.half.operators import key

LARGEST = float(np.finfo(np.float16).max) / 4
"""Magnitude beyond which a tensor stays float32. Another input may cause larger values than the measured inputs."""
SMALLEST = float(np.finfo(np.float16).smallest_normal)
"""Magnitude below which a tensor stays float32, because float16 has fewer digits there, or zero."""
DECISIONS = (np.bool_, np.int32, np.int64)
"""Types of masks and of indices. Integers of 8 bits are quantised values: a change by one changes the result little."""
QUANTISE = ("QuantizeLinear", "DynamicQuantizeLinear", "Round")
"""Operators that turn floats into few different values."""
SIZES = ("Shape", "Size")
"""Operators that read the size of a float tensor, not its values."""


def kept(graph: Graph, observed: Observed) -> dict[str, set[int]]:
    """Returns the indices of the nodes that stay float32, by the reason; each node has one reason.

    The reasons, in this order:
        last: The last layers, and all nodes after them.
        quantised: A later node quantises the value of the node: float16 would change the integers.
        overflow: A tensor of the node is beyond `LARGEST`, or everywhere below `SMALLEST`.
        unsupported: ONNX or ONNX Runtime has no float16 for the node, or ONNX Runtime ends the process.
        sensitive: Rounding to float16 changes an output too much.
        decision: Floats that become masks or indices, and floats computed from masks or indices up to the next layer.

    Raises:
        GateFailed: The graph has no layer with weights.
    """
    nodes = graph.proto.node
    overflow = set(_indices(nodes, lambda node: _out_of_range(node, observed)))
    reasons = {
        "last": _last(graph),
        "quantised": _quantised(graph),
        "overflow": overflow,
        "unsupported": set(_indices(nodes, lambda node: key(node) in observed.unsupported or _crashes(node, graph))),
        "sensitive": set(_indices(nodes, lambda node: key(node) in observed.sensitive)) - overflow,
        "decision": set(_indices(nodes, lambda node: _decides(node, graph, observed))),
    }
    rounded = [name for index in reasons["sensitive"] for name in observed.sensitive[key(nodes[index])]]
    reasons["sensitive"] |= _computing(graph, observed, rounded)
    decided = [name for index in reasons["decision"] for name in reads(nodes[index])]
    reasons["decision"] |= _computing(graph, observed, decided) | _coordinates(graph, observed)
    before: set[int] = set()
    for reason, indices in reasons.items():
        reasons[reason] = indices - before
        before |= indices
    return reasons


def before_decisions(graph: Graph, observed: Observed, reasons: Mapping[str, set[int]]) -> set[int]:
    """Returns the indices of the float16 nodes that a mask or an index depends on; `reasons` has the float32 nodes."""
    read: set[str] = set()
    found = set()
    for index, node in reversed(list(enumerate(graph.proto.node))):
        if read.intersection(node.output) or _decides(node, graph, observed):
            found.add(index)
            read.update(reads(node))
    return found.difference(*reasons.values())


def _indices(nodes: Iterable[onnx.NodeProto], condition: Callable[[onnx.NodeProto], bool]) -> Iterator[int]:
    """Yields the indices of the nodes for which a condition is true."""
    return (index for index, node in enumerate(nodes) if condition(node))


def _out_of_range(node: onnx.NodeProto, observed: Observed) -> bool:
    """True if a tensor of a node is beyond `LARGEST`, or below `SMALLEST` and not zero."""
    largest = [observed.largest.get(name, 0.0) for name in (*reads(node), *node.output)]
    return any(value > LARGEST or 0 < value < SMALLEST for value in largest)


def _crashes(node: onnx.NodeProto, graph: Graph) -> bool:
    """True for a Transpose of the first axis that a MatMul reads.

    ONNX Runtime 1.32 fuses both in float16, and its process ends with a segmentation fault while it loads the graph.
    """
    read = any(reader.op_type == "MatMul" for name in node.output for reader in graph.consumers.get(name, []))
    return node.op_type == "Transpose" and read and next(iter(attribute(node, "perm", [])), 1) != 0


def _decides(node: onnx.NodeProto, graph: Graph, observed: Observed) -> bool:
    """True if a node turns computed floats into masks or indices, for example ArgMax, TopK or Greater."""
    floats = any(observed.is_float32(name) for name in graph.computed(node))
    read = [name for name in node.output if graph.consumers.get(name) or name in graph.outputs]
    return floats and node.op_type not in SIZES and any(_is_decision(name, observed) for name in read)


def _is_decision(name: str, observed: Observed) -> bool:
    """True if a value holds booleans or integers of at least 32 bits."""
    return observed.types.get(name) in DECISIONS


def _quantised(graph: Graph) -> set[int]:
    """Returns the indices of the nodes that quantise a value, and of all nodes on which such a value depends."""
    found: set[int] = set()
    needed: set[str] = set()
    for index, node in reversed(list(enumerate(graph.proto.node))):
        if node.op_type in QUANTISE or needed.intersection(node.output):
            found.add(index)
            needed.update(reads(node))
    return found


def _computing(graph: Graph, observed: Observed, names: Iterable[str]) -> set[int]:
    """Returns the indices of the nodes that compute float32 values, back to the last layer before each value."""
    producers = {name: index for index, node in enumerate(graph.proto.node) for name in node.output}
    waiting, found = list(names), set()
    while waiting:
        index = producers.get(waiting.pop())
        if index is None or index in found:
            continue
        node = graph.proto.node[index]
        if any(observed.is_float32(name) for name in node.output):
            found.add(index)
            waiting += [] if is_layer(node) else [name for name in reads(node) if observed.is_float32(name)]
    return found


def _coordinates(graph: Graph, observed: Observed) -> set[int]:
    """Returns the indices of the nodes that compute with floats made of indices or masks, up to the next layer."""
    decided: set[str] = set()
    coordinates: set[str] = set()
    found = set()
    for index, node in enumerate(graph.proto.node):
        names = graph.computed(node)
        floats = [name for name in names if observed.is_float32(name)]
        if coordinates.intersection(floats) and not is_layer(node):
            found.add(index)
            coordinates.update(name for name in node.output if observed.is_float32(name))
        if _decides(node, graph, observed) or decided.intersection(names):
            decided.update(name for name in node.output if _is_decision(name, observed))
        if decided.intersection(names) and not floats:
            found.update([index] if any(observed.is_float32(name) for name in node.output) else [])
            coordinates.update(name for name in node.output if observed.is_float32(name))
    return found


def _last(graph: Graph) -> set[int]:
    """Returns the indices of the layers that no other layer depends on, of all later nodes, and of the output nodes.

    Most networks have one such layer; a detector has one in each head.
    """
    nodes = graph.proto.node
    layers = set(_indices(nodes, is_layer))
    if not layers:
        raise GateFailed(
            "the graph has no convolution or linear layer to convert to float16", hint="export this network in fp32"
        )
    before: set[str] = set()  # values that a layer depends on
    last = set()
    for index, node in reversed(list(enumerate(nodes))):
        feeds_layer = bool(before.intersection(node.output))
        if index in layers and not feeds_layer:
            last.add(index)
        if feeds_layer or index in layers:
            before.update(reads(node))
    after: set[str] = set()
    for index, node in enumerate(nodes):
        if index in last or after.intersection(reads(node)):
            last.add(index)
            after.update(node.output)
    return last | set(_indices(nodes, lambda node: any(name in graph.outputs for name in node.output)))
