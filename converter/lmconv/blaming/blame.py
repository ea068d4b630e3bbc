"""Finds the node at which an artefact and its network differ first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmconv.blaming.deviations import Deviation, Sides
from lmconv.blaming.reproduction import Reproduction, reproduce
from lmconv.errors import MissingRuntime, UsageError
from lmconv.networks.interfaces import interface_of
from lmconv.networks.preprocess import in_colours, network_input
from lmconv.plugins import TARGETS
from lmconv.store import artifact as artifacts
from lmconv.store import reference
from lmconv.types import Arrays, Artifact, Json, Precision

if TYPE_CHECKING:
    import onnx

FIRST = 1e-3
"""Smallest difference of the first node, fractions of the largest difference of any node."""
FLOOR = 1e-6
"""Smallest difference of the first node in fp32, fractions of its value, if the outputs differ beyond the limits."""
AGREEING = 1e-5
"""The same if the outputs agree: sums of many products differ by so much."""
GROWN = 8.0
"""Smallest ratio of the difference of the first node to the difference of its inputs."""
SHOWN = 10
"""Number of nodes with the largest growth that are listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """The node at which an artefact and its network differ first.

    Attributes:
        first: The node; below fp32, where every node rounds, the node that adds most to the difference. None if no
            value differs by more than rounding.
        growths: The nodes that add most to the difference, the largest first.
        lowered: True if the artefact computes below fp32.
        modules: PyTorch module that computes each value, by name.
        compared: Number of values that were compared.
        reproduction: The node alone; None if `first` is None, and in int8, where a node alone has other factors.
    """

    first: Deviation | None
    growths: list[Deviation]
    lowered: bool = False
    modules: Mapping[str, str] = field(default_factory=dict)
    compared: int = 0
    reproduction: Reproduction | None = None

    @property
    def first_rounding(self) -> float:
        """Largest difference of the first node that rounding can cause, in the unit of the value."""
        return 0.0 if self.first is None else FLOOR * self.first.largest

    def describe(self, found: Deviation) -> str:
        """Describes a deviation in one line: node, module, shape, and size."""
        return (
            f"{named(found, self.modules)} {list(found.shape)}: {found.off:.2g} off of values up to "
            f"{found.largest:.3g} ({found.relative:.1e})"
        )

    def to_json(self) -> Json:
        """Returns the document of `lmconv blame --json`."""
        return {
            "first": self._row(self.first) if self.first else None,
            "growths": [self._row(found) for found in self.growths],
            "compared": self.compared,
            "alone": self.reproduction.off if self.reproduction else None,
            "why": str(self.reproduction.path) if self.reproduction else None,
        }

    def _row(self, found: Deviation) -> Json:
        figures = {name: getattr(found, name) for name in ("off", "largest", "relative", "before", "growth")}
        return {
            "name": found.name,
            "node": found.node.name,
            "operator": found.node.op_type,
            "module": module_of(found, self.modules),
            "shape": list(found.shape),
            **{name: value if np.isfinite(value) else None for name, value in figures.items()},
        }


def module_of(found: Deviation, modules: Mapping[str, str]) -> str:
    """Returns the PyTorch module that computes a value; empty if the network's own `forward` does."""
    module = modules.get(found.name, "")
    return "" if module.startswith("_empty_nn_module") else module


def named(found: Deviation, modules: Mapping[str, str]) -> str:
    """Names a node: operator, module or name of the value."""
    module = module_of(found, modules)
    return f"{found.node.op_type} {found.name}" + (f" of module {module}" if module else "")


def blame(artifact: Artifact, graph: onnx.ModelProto, why: Path, *, rows: int = 8, agrees: bool = False) -> Blame:
    """Compares an artefact with its plain graph at every value that both compute.

    Args:
        artifact: The artefact.
        graph: The plain graph of the artefact.
        why: Folder for the reproduction of the node alone; replaced.
        rows: Number of inputs of the run, the first of reference.npz.
        agrees: True if the outputs of the artefact are within their limits.

    Raises:
        MissingRuntime: The runtime cannot show intermediate values.
        UsageError: The artefact takes a frame, whose crops differ from the network's by rounding.
    """
    sides = _sides(artifact, graph, rows)
    deviations = sides.deviations()
    floor = AGREEING if agrees else FLOOR
    growths = sorted(deviations, key=lambda found: -found.growth)[:SHOWN]
    lowered = artifact.precision != Precision.FP32
    first = next(iter(growths), None) if lowered else first_of(deviations, floor)
    if first is None and not agrees and not lowered:
        first = alone(sides, floor)
    modules = artifacts.modules(artifact)
    made = None
    if first and not sides.equalised:
        made = reproduce(why, sides, artifact, first, named(first, modules))
    return Blame(
        first=first,
        growths=growths,
        lowered=lowered,
        modules=modules,
        compared=len(deviations),
        reproduction=made,
    )


def _sides(artifact: Artifact, graph: onnx.ModelProto, rows: int) -> Sides:
    target, spec = TARGETS.load(artifact.target), artifact.spec
    if target.inside is None:
        message = f"{artifact.path}: {artifact.target} shows no intermediate values, and no node can be blamed"
        raise MissingRuntime(message, hint="blame the onnx artefact of the same precision: the graph is the same")
    if interface_of(spec).cuts_crops:
        hint = "blame the same network exported with --io tensor"
        raise UsageError(f"{artifact.path} cuts its crops out of a frame, which no network does", hint=hint)
    path = next(artifact.path / name for name in artifact.files if name.endswith(target.suffixes[0]))
    given = reference.read(artifact).inputs
    batch = spec.batch or rows
    inputs: Arrays = {name: np.resize(array, (batch, *array.shape[1:])) for name, array in given.items()}
    return Sides(
        graph=graph,
        inputs=_network_inputs(artifact, inputs),
        artefact=target.inside.open(path, artifact.execution),
        artefact_inputs=inputs,
        equalised=artifact.precision in (Precision.INT8, Precision.MIXED),
        skipped=frozenset(tensor.name for tensor in spec.outputs) if spec.io != "tensor" else frozenset(),
    )


def _network_inputs(artifact: Artifact, inputs: Arrays) -> Arrays:
    """Returns the inputs of the network for the inputs of an artefact."""
    spec = artifact.spec
    if "image" not in inputs:
        return inputs
    pictures = in_colours(inputs["image"], spec.preprocess)
    return {spec.inputs[0].name: network_input(pictures, spec.preprocess)}


def first_of(deviations: list[Deviation], floor: float) -> Deviation | None:
    """Returns the first node that differs by more than rounding, although its inputs do not; None without one."""
    worst = max((found.relative for found in deviations), default=0.0)
    limit = max(floor, FIRST * min(worst, 1.0))
    beyond = [found for found in deviations if found.relative > limit]
    clear = (found for found in beyond if found.relative > GROWN * found.before)
    return next(clear, max(beyond, key=lambda found: found.growth, default=None))


def alone(sides: Sides, floor: float) -> Deviation | None:
    """Bisects, reading one value at a time: a runtime may fuse nodes only where no value between them is read."""
    names = sides.common()
    low, high, first = 0, len(names), None
    while low < high:
        middle = (low + high) // 2
        found = next(iter(sides.deviations([names[middle]])), None)
        if found and found.relative > floor:
            high, first = middle, found
        else:
            low = middle + 1
    return first
