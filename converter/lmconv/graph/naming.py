"""Names in an ONNX graph and its subgraphs: names in use, unused names, renaming, removal of notes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

from lmconv.graph.index import subgraphs


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yields a graph and all its subgraphs, for example the branches of an If."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from graphs(inner)


def nodes_of(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yields the nodes of a model, subgraphs included."""
    return (node for graph in graphs(model.graph) for node in graph.node)


def operators_of(model: onnx.ModelProto) -> set[str]:
    """Returns the standard operators of a model, subgraphs included."""
    return {node.op_type for node in nodes_of(model) if not node.domain}


def taken(graph: onnx.GraphProto) -> set[str]:
    """Returns the names of all values and nodes, and the empty name.

    Names of subgraphs are included, because a subgraph shares one namespace with the graphs around the subgraph.
    """
    names = {""}
    for part in graphs(graph):
        names.update(named.name for named in (*part.node, *_declared(part)))
        names.update(name for node in part.node for name in (*node.input, *node.output))
    return names


def fresh(name: str, taken: set[str]) -> str:
    """Returns `name`, with a number appended if `name` is in `taken`, and adds the result to `taken`."""
    unique, number = name, 1
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    taken.add(unique)
    return unique


def prefix(graph: onnx.GraphProto, word: str) -> str:
    """Returns `word`, with a number appended if a name in the graph already begins with `word` and `_`."""
    names = taken(graph)
    unique, number = word, 1
    while any(name.startswith(f"{unique}_") for name in names):
        number += 1
        unique = f"{word}{number}"
    return unique


def vacate(graph: onnx.GraphProto, *names: str) -> None:
    """Renames the values with these names, as far as such values exist; the names are then unused."""
    used = taken(graph)
    changed = {name: fresh(f"{name}_", used) for name in names if name in used}
    if changed:
        _change(graph, changed)


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Renames a value everywhere. If another value already has the new name, that value is renamed first."""
    if old != new:
        vacate(graph, new)
        _change(graph, {old: new})


def reread(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Makes the nodes of a subgraph, and of its subgraphs, read other values of the graphs around the subgraph.

    Args:
        graph: The subgraph.
        names: New name of each value, by the old name. A value of the subgraph itself is not replaced.
    """
    own = {value.name for value in _declared(graph)} | {name for node in graph.node for name in node.output}
    outer = {old: new for old, new in names.items() if old not in own}
    for node in graph.node:
        node.input[:] = [outer.get(name, name) for name in node.input]
        for inner in subgraphs(node):
            reread(inner, outer)


def distinct_nodes(graph: onnx.GraphProto) -> None:
    """Renames every node whose name an earlier node already has, because ONNX Runtime requires distinct names.

    Nodes without a name stay without a name.
    """
    used: set[str] = set()
    names = taken(graph)
    for node in graph.node:
        if node.name in used:
            node.name = fresh(node.name, names)
        used.update(filter(None, [node.name]))


def strip(model: onnx.ModelProto) -> None:
    """Removes stack traces and paths of the exporting machine."""
    del model.metadata_props[:]
    model.doc_string = ""
    for graph in graphs(model.graph):
        del graph.metadata_props[:], graph.value_info[:]
        graph.doc_string = ""
        for part in [*graph.node, *graph.initializer, *graph.input, *graph.output]:
            del part.metadata_props[:]
            part.doc_string = ""


def _declared(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto | onnx.TensorProto]:
    """Yields everything in a graph, except nodes, that declares the name of a value."""
    yield from (*graph.input, *graph.output, *graph.initializer, *graph.value_info)
    yield from (sparse.values for sparse in graph.sparse_initializer)


def _change(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Replaces names everywhere: new name by old name. No value may have a new name before.

    If a subgraph has its own value with an old name, that value is renamed too and remains a separate value.
    """
    for part in graphs(graph):
        for declared in _declared(part):
            declared.name = names.get(declared.name, declared.name)
        for node in part.node:
            for field in (node.input, node.output):
                if not names.keys().isdisjoint(field):
                    field[:] = [names.get(name, name) for name in field]
