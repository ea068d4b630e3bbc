"""Names in an ONNX graph and its subgraphs: what is taken, a name that nothing has, one name for another."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from lmconv.graph.index import subgraphs


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all within it, such as the branches of an If."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from graphs(inner)


def taken(graph: onnx.GraphProto) -> set[str]:
    """Every name of a value or a node; those of subgraphs too, which share one space with what is around them."""
    found = {""}
    for part in graphs(graph):
        found.update(named.name for named in (*part.node, *_declared(part)))
        found.update(name for node in part.node for name in (*node.input, *node.output))
    return found


def fresh(name: str, taken: set[str]) -> str:
    """A name like this one that is not in `taken`; then it is."""
    unique, number = name, 1
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    taken.add(unique)
    return unique


def prefix(graph: onnx.GraphProto, wanted: str) -> str:
    """A word like this one with which, and `_`, no name begins."""
    names = taken(graph)
    unique, number = wanted, 1
    while any(name.startswith(f"{unique}_") for name in names):
        number += 1
        unique = f"{wanted}{number}"
    return unique


def vacate(graph: onnx.GraphProto, name: str) -> None:
    """Gives the value of this name another, if there is one."""
    _change(graph, name, fresh(f"{name}_", taken(graph)))


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Renames a value everywhere, after moving a stranger of the new name out of the way."""
    if old != new:
        vacate(graph, new)
        _change(graph, old, new)


def distinct_nodes(graph: onnx.GraphProto) -> None:
    """Gives a node another name where one before it has the same, as ONNX Runtime asks for; some have none."""
    known: set[str] = set()
    names = taken(graph)
    for node in graph.node:
        if node.name in known:
            node.name = fresh(node.name, names)
        known.update(filter(None, [node.name]))


def _declared(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto | onnx.TensorProto]:
    """What has a name without being a node."""
    yield from (*graph.input, *graph.output, *graph.initializer, *graph.value_info)
    yield from (sparse.values for sparse in graph.sparse_initializer)


def _change(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Writes one name for another, which nothing has: a subgraph's value of the old name stays another value."""
    for part in graphs(graph):
        for declared in _declared(part):
            declared.name = new if declared.name == old else declared.name
        for node in part.node:
            for field in (node.input, node.output):
                if old in field:
                    field[:] = [new if name == old else name for name in field]
