"""Random operators in an ONNX file, which no artefact can reproduce."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lmconv.errors import InputError
from lmconv.graph.index import reads, subgraphs
from lmconv.opsets.versions import label

if TYPE_CHECKING:
    import onnx

RANDOM = {
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
}
"""Operators that are random by definition."""
IN_TRAINING = ("Dropout", "BiasDropout", "BitmaskDropout", "BitmaskBiasDropout")
"""Operators that are random in training mode."""
HINT = "export the network in eval mode, without random numbers: two runs must agree"
"""Hint of both refusals."""


def require_repeatable(path: Path, model: onnx.ModelProto, outputs: Collection[str], *, repeats: bool) -> None:
    """Refuses a file with random results.

    Args:
        path: The file.
        model: The content of the file.
        outputs: Names of the outputs in use.
        repeats: True if two runs on the same images gave the same outputs.

    Raises:
        InputError: The outputs depend on a random operator, or two runs differ.
    """
    nodes = list(_live(model, outputs))
    random = [node for node in nodes if node.op_type in RANDOM]
    if not repeats and not random:
        random = [node for node in nodes if node.op_type in IN_TRAINING]
    if random:
        raise InputError(f"{path} computes random numbers: {label(random[0])}", hint=HINT)
    if not repeats:
        raise InputError(f"two runs of {path} on the same image differ", hint=HINT)


def _live(model: onnx.ModelProto, outputs: Collection[str]) -> Iterator[onnx.NodeProto]:
    """Yields the nodes on which outputs depend, with the nodes of subgraphs and functions."""
    bodies = {(function.domain, function.name): function.node for function in model.functions}
    makers = {name: node for node in model.graph.node for name in node.output}
    pending, known = [makers[name] for name in outputs if name in makers], set(outputs)
    while pending:
        node = pending.pop()
        yield node
        for inner in subgraphs(node):
            pending.extend(inner.node)
        pending.extend(bodies.pop((node.domain, node.op_type), ()))
        names = [name for name in reads(node) if name not in known]
        known.update(names)
        pending.extend(makers[name] for name in names if name in makers)
