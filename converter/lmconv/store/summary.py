"""The row of an artefact in JSON documents: its place, its network and its form, then figures of its manifest.

`lmconv export`, `verify`, `bench` and `report` start their rows here, and add their results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lmconv.store import artifact as artifacts
from lmconv.types import Artifact, Json

IDENTITY = ("path", "model", "target", "precision", "io")
"""Keys at the beginning of every row."""
FIGURES: Mapping[str, Callable[[Artifact], object]] = {
    "path": lambda artifact: str(artifact.path),
    "model": lambda artifact: artifact.spec.name,
    "target": lambda artifact: artifact.target,
    "precision": lambda artifact: str(artifact.precision),
    "io": lambda artifact: artifact.spec.io,
    "size": lambda artifact: list(artifact.spec.input_size),
    "execution": lambda artifact: artifact.execution,
    "bytes": artifacts.size,
    "weights": artifacts.weights,
    "trained": artifacts.trained,
    "parameters": lambda artifact: artifact.parameters,
    "flops": lambda artifact: artifact.flops,
    "source_parameters": lambda artifact: artifact.parents["source"]["parameters"],
    "source_flops": lambda artifact: artifact.parents["source"]["flops"],
    "seconds": lambda artifact: artifact.measured["seconds"],
    "guard": lambda artifact: artifact.measured.get("guard"),
    "int8": lambda artifact: int8_coverage(artifact),
}
"""Every key of a row, with its value: `size` is (height, width) of the network's input, pixels; `bytes` the size of the
deployed files; `seconds` the time of the export."""

COVERAGE = ("layers", "of", "macs", "int8_macs", "float")
"""Decisions of the quantiser that describe the coverage, see `lmconv.quantise.coverage`."""


def summary(artifact: Artifact, *figures: str) -> Json:
    """Returns the identity of an artefact, then these keys of `FIGURES`, in this order."""
    return {name: FIGURES[name](artifact) for name in (*IDENTITY, *figures)}


def int8_coverage(artifact: Artifact) -> Json | None:
    """Returns `COVERAGE` of an artefact; None for another precision, or if its manifest has no figures."""
    decisions = artifacts.decided(artifact.recipe, "int8") or {}
    return {key: decisions[key] for key in COVERAGE} if "of" in decisions else None
