"""Exports a PyTorch network: exporters are tried in order, and each graph is compared with the network."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmconv.errors import InputError, first_line
from lmconv.graph import naming
from lmconv.graph.facts import set_batch
from lmconv.networks.heads import head_of
from lmconv.sources import usercode
from lmconv.sources.batches import BATCHES, same
from lmconv.sources.exporters import EXPORTERS, Exporter, NotExported, Traced, quiet, uncollected
from lmconv.types import Source

if TYPE_CHECKING:
    import onnx
    import torch

    from lmconv.sources.observing import Observed
    from lmconv.sources.pytorch import TorchSource

SCOPES = "pkg.torch.onnx.name_scopes"
"""Metadata key under which the exporter writes the module path of a node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An exported network.

    Attributes:
        model: The graph.
        modules: Path of the PyTorch module that computes a value, by the name of the value.
        exporter: Name of the exporter.
        notes: Reasons for a fixed batch and for another exporter than the first one, in words.
    """

    model: onnx.ModelProto
    modules: dict[str, str]
    exporter: str
    notes: tuple[str, ...] = ()


def traced(source: Source, session: TorchSource, asked: int | None = None) -> Exported:
    """Exports a PyTorch network with a free batch, or with a fixed one if no exporter keeps the batch free.

    Args:
        source: The network; its spec has the fixed batch of a network that cannot have a free batch.
        session: The opened network.
        asked: Batch size that the user asked for; None for a free batch.

    Raises:
        InputError: No exporter gives a graph that computes what the network computes.
    """
    theirs = usercode.foreign(source)
    if not theirs:
        model, modules = _finished(source, EXPORTERS[0], _arguments(source, session.network, source.spec.batch))
        return Exported(model=model, modules=modules, exporter=EXPORTERS[0].name)
    events = _observed(source, session.network, theirs)
    failures: list[Failure] = []
    for size in (source.spec.batch,) if source.spec.batch else (None, asked or 1):
        arguments = _arguments(source, session.network, size, reads=bool(events.reads))
        for exporter in sorted(EXPORTERS, key=lambda exporter: not exporter.prefers(events.operators)):
            try:
                model, modules = _finished(source, exporter, arguments)
            except NotExported:
                continue
            except Exception as error:
                failures.append(Failure(exporter=exporter, error=error))
                continue
            if reason := _difference(model, source, session, size):
                failures.append(Failure(exporter=exporter, reason=reason + _layer(model, modules, source, session)))
                continue
            fixed = bool(size != source.spec.batch and not asked)
            return Exported(
                model=model, modules=modules, exporter=exporter.name, notes=_notes(exporter, failures, fixed)
            )
    raise _reading(events, failures) if events.reads else _refusal(theirs, failures)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An exporter that gave no graph, with its error; or a graph that computes something else, with the difference."""

    exporter: Exporter
    error: Exception | None = None
    reason: str = ""


def _observed(source: Source, network: torch.nn.Module, theirs: str) -> Observed:
    """Runs the network once, and returns the operators and the numbers that Python code reads."""
    import torch

    from lmconv.sources.observing import observed

    with usercode.theirs(theirs), torch.no_grad(), observed(network) as events:
        network(torch.zeros(_shape(source, source.spec.batch or 2)))
    return events


def _arguments(source: Source, network: torch.nn.Module, batch: int | None, *, reads: bool = False) -> Traced:
    free = {} if batch else {0: "N"}
    if source.spec.sample:
        free |= {2: "H", 3: "W"}
    return Traced(
        network=network,
        shape=_shape(source, batch or 2),  # the exporter treats sizes 0 and 1 as constants
        free=free,
        outputs=head_of(source.spec).traced_outputs,
        reads=reads,
    )


def _shape(source: Source, batch: int) -> tuple[int, int, int, int]:
    height, width = source.spec.input_size
    if source.spec.sample:  # tracing at another size than the comparison reveals a size that is fixed in the graph
        height, width = height - 13, width - 21
    return batch, 3, height, width


def _finished(source: Source, exporter: Exporter, arguments: Traced) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Exports a network, and gives the graph the names, inputs and outputs of every graph of lmconv."""
    with quiet(), uncollected():
        model = exporter.export(arguments)
    if 0 in arguments.free and model.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value"):
        raise InputError("PyTorch's exporter fixes the batch size")
    modules = _modules(model)
    naming.strip(model)
    _unwrap(model.graph)
    if 0 in arguments.free:
        set_batch(model, "N")
    head_of(source.spec).finish_traced(model)
    return model, modules


def _difference(model: onnx.ModelProto, source: Source, session: TorchSource, batch: int | None) -> str:
    """Compares a graph with the network at several batch sizes; returns the difference in words, empty if equal."""
    from lmconv.inference.ort import OrtSession
    from lmconv.inference.session import noise

    images, names = noise(source.spec, max(BATCHES), 0), head_of(source.spec).continuous_outputs
    if batch:
        images = images[:batch].repeat(-(-batch // len(images)), 0)[:batch]
    try:
        with OrtSession(model.SerializeToString()) as graph:
            for size in (batch,) if batch else BATCHES:
                result, expected = (each.run({"input": images[:size]}) for each in (graph, session))
                if not all(same(result[name], expected[name]) for name in names):
                    return f"its graph computes something else at a batch of {size}{_off(result, expected, names)}"
    except InputError:
        raise
    except Exception as error:
        return f"ONNX Runtime cannot run its graph: {first_line(error)}"
    return ""


def _layer(model: onnx.ModelProto, modules: Mapping[str, str], source: Source, session: TorchSource) -> str:
    """Returns the layer that differs first, in words; empty if no layer can be named."""
    from lmconv.inference.session import noise
    from lmconv.sources.divergence import first_divergence

    layer = first_divergence(model, modules, session, noise(source.spec, source.spec.batch or 2, 0))
    return f"; the layer {layer} differs first" if layer else ""


def _off(result: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]], names: tuple[str, ...]) -> str:
    """Returns the largest difference, in words; empty if shapes differ."""
    if any(result[name].shape != expected[name].shape for name in names):
        return ""
    return f", {max(float(np.abs(result[name] - expected[name]).max()) for name in names):.2g} off"


def _notes(exporter: Exporter, failures: list[Failure], fixed: bool) -> tuple[str, ...]:
    """Returns notes about a fixed batch and about another exporter than the first one, with the reason of the first."""
    if not failures:
        return ()
    first = failures[0]
    reason = first.reason or first_line(usercode.cause(first.error or NotExported("")))
    fix = f"the batch is fixed to 1: {reason} (--batch N for another)"
    other = f"exported by {exporter.name}, because {first.exporter.name} does not convert the network: {reason}"
    return (fix,) * fixed + (other,) * (exporter != first.exporter)


def _reading(events: Observed, failures: list[Failure]) -> InputError:
    """Returns the error for Python code that reads numbers which depend on the input; no exporter can follow it."""
    place = next(iter(events.reads)) or "forward()"
    message = f"{place}: Python code reads a number that depends on the input (an if, .item() or float())"
    hint = "a graph cannot follow it: use torch.where, or tensors in place of Python numbers"
    error = InputError(message, hint=hint)
    error.__cause__ = failures[0].error
    return error


def _refusal(theirs: str, failures: list[Failure]) -> InputError:
    """Returns the error for a network that no exporter converts; the first exporter's reason is the clearest."""
    first = failures[0]
    hint = "-v shows the traceback of PyTorch's exporter"
    if first.error is None:
        message = f"{theirs}: {first.exporter.name}: {first.reason}"
        hint = "-v shows more; write the operators of this part of forward() in another form"
        if "bfloat16" in first.reason:
            hint = "leave torch.autocast and .bfloat16() out of forward(): runtimes have no such operators on a CPU"
        return InputError(message, hint=hint)
    missing = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", str(usercode.cause(first.error)))
    if missing:
        message = f"{theirs}: ONNX has no operator for {missing[1]}, and no exporter of PyTorch writes it otherwise"
        hint = "compute it with other operators, or outside the network"
        error = InputError(message, hint=hint)
    else:
        place, text = usercode.described(first.error, theirs)
        error = InputError(f"{place}: PyTorch's exporters cannot convert the network: {text}", hint=hint)
    error.__cause__ = first.error
    return error


def _modules(model: onnx.ModelProto) -> dict[str, str]:
    table = {}
    for node in model.graph.node:
        scopes: list[str] = next(
            (ast.literal_eval(entry.value) for entry in node.metadata_props if entry.key == SCOPES), []
        )
        path = scopes[-2].removeprefix("net").removeprefix(".") if len(scopes) > 1 else ""
        weights = node.input[1] if len(node.input) > 1 else ""
        if weights.startswith("net.") and weights.endswith(".weight"):
            # The exporter folded a BatchNorm into this layer, and names the BatchNorm.
            path = weights.removeprefix("net.").removesuffix(".weight")
        table.update({output: path for output in node.output if path})
    return table


def _unwrap(graph: onnx.GraphProto) -> None:
    """Removes the wrapper's `net.` from the names of weights.

    A weight keeps the name that the network gives it: a value of the graph with this name is renamed. Inputs and
    outputs of the graph keep their names, and a weight with such a name is renamed.
    """
    names = {tensor.name: tensor.name.removeprefix("net.") for tensor in graph.initializer}
    others = naming.taken(graph) - names.keys()
    published = {value.name for value in (*graph.input, *graph.output)}
    used = others | set(names.values())
    for old, new in names.items():
        if new in published:
            names[old] = naming.fresh(new, used)
        elif new in others:
            naming.vacate(graph, new)
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]
    for part in naming.graphs(graph):
        for node in part.node:
            node.input[:] = [names.get(name, name) for name in node.input]
