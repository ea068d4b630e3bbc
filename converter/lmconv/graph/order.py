"""Order and liveness of the nodes of an ONNX graph."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from lmconv.graph.index import reads


def keep_live(graph: onnx.GraphProto) -> None:
    """Removes the nodes on which no output of a graph depends; sorts the other nodes if they are not sorted.

    Args:
        graph: Changed in place. A sorted graph keeps its order.
    """
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    live: set[int] = set()
    pending = [value.name for value in graph.output]
    while pending:
        index = makers.get(pending.pop())
        if index is not None and index not in live:
            live.add(index)
            pending.extend(reads(graph.node[index]))
    nodes = _sorted([graph.node[index] for index in sorted(live)], makers)
    del graph.node[:]
    graph.node.extend(nodes)


def _sorted(nodes: list[onnx.NodeProto], made: Collection[str]) -> list[onnx.NodeProto]:
    """Returns nodes such that each value is computed before a node reads it; as early in the given order as possible.

    Args:
        nodes: The nodes.
        made: Names of all values that nodes compute.
    """
    result: list[onnx.NodeProto] = []
    known: set[str] = set()
    while nodes:
        waiting = []
        for node in nodes:
            if all(name in known for name in reads(node) if name in made):
                result.append(node)
                known.update(node.output)
            else:
                waiting.append(node)
        if len(waiting) == len(nodes):  # a cycle, which ONNX Runtime refuses, or names of inner values of branches
            return [*result, *waiting]
        nodes = waiting
    return result
