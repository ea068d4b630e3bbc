"""Differences between a network and an artefact at every value that both compute."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx

from lmconv.graph.facts import static_shapes
from lmconv.graph.index import reads
from lmconv.inference.probe import OrtProbe
from lmconv.types import Arrays, Float64, Probe

CHUNK_BYTES = 1 << 28
"""Largest size of the values that are read in one run, bytes."""

MOVES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity")
"""Operators that compute nothing, and after which axis 1 may no longer be the axis of the channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """Difference at one value.

    Attributes:
        node: Node of the network that computes the value.
        name: Name of the value.
        shape: Shape of the value.
        off: Largest absolute difference of the artefact; infinite for NaN.
        largest: Largest absolute number of the network's value.
        before: `relative` of the values from which the node computes, the largest; 0 for the network's input.
    """

    node: onnx.NodeProto
    name: str
    shape: tuple[int, ...]
    off: float
    largest: float
    before: float = 0.0

    @property
    def relative(self) -> float:
        """`off` as a fraction of `largest`."""
        return self.off / self.largest if self.largest else float(self.off > 0)

    @property
    def growth(self) -> float:
        """Part of `relative` that the node adds to the difference of its inputs."""
        return self.relative - self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """A network and an artefact, each with its inputs for the same crops.

    Attributes:
        graph: The network.
        inputs: Inputs of the network, by name.
        artefact: The artefact.
        artefact_inputs: Inputs of the artefact, by name.
        skipped: Values that are not comparable: outputs in another unit.
        equalised: True if the artefact may hold each channel times a factor, which int8 chooses.
    """

    graph: onnx.ModelProto
    inputs: Arrays
    artefact: Probe
    artefact_inputs: Arrays
    skipped: frozenset[str] = frozenset()
    equalised: bool = False

    def common(self) -> list[str]:
        """Returns the names of the values that both compute, in the order of the network."""
        nodes = [node for node in self.graph.graph.node if not (self.equalised and node.op_type in MOVES)]
        names = [name for node in nodes for name in node.output if name]
        return [name for name in names if name in self.artefact.names and name not in self.skipped]

    def deviations(self, names: Sequence[str] | None = None) -> list[Deviation]:
        """Returns the deviations of floating-point values of equal shape, in the order of the network.

        Args:
            names: Values to read at the same time; None for all, in several runs if there are many.
        """
        result: list[Deviation] = []
        relative: dict[str, float] = {}
        producers = {name: node for node in self.graph.graph.node for name in node.output}
        compared = dict(itertools.chain.from_iterable(self._compared(part) for part in self._parts(names)))
        for node in self.graph.graph.node:
            before = max((relative.get(name, 0.0) for name in reads(node)), default=0.0)
            for name in filter(None, node.output):
                relative[name] = before
                if name in compared:
                    shape, off, largest = compared[name]
                    found = Deviation(
                        node=producers[name], name=name, shape=shape, off=off, largest=largest, before=before
                    )
                    relative[name] = found.relative
                    result.append(found)
        return result

    def _parts(self, names: Sequence[str] | None) -> Iterator[Sequence[str]]:
        """Yields names of values that are read in one run, at most `CHUNK_BYTES`."""
        if names is not None:
            yield names
            return
        shapes, rows = static_shapes(self.graph), len(next(iter(self.inputs.values())))
        part: list[str] = []
        size = 0
        for name in self.common():
            part.append(name)
            size += 4 * rows * prod(shapes.get(name, (1,)))
            if size > CHUNK_BYTES:
                yield part
                part, size = [], 0
        yield part

    def _compared(self, names: Sequence[str]) -> Iterator[tuple[str, tuple[tuple[int, ...], float, float]]]:
        """Yields name, shape, largest difference and largest number of each comparable value."""
        if not names:
            return
        outputs = {value.name for value in self.graph.graph.output}
        expected = OrtProbe(self.graph).run(self.inputs, names)
        actual = self.artefact.run(self.artefact_inputs, names)
        for name in names:
            a, b = actual[name], expected[name]
            if not np.issubdtype(b.dtype, np.floating) or a.shape != b.shape or not b.size:
                continue  # compaction removes channels
            a, b = a.astype(np.float64), b.astype(np.float64)
            if self.equalised and name not in outputs:
                a = _without_factors(a, b)
            off = float(np.abs(a - b).max())
            yield name, (b.shape, off if np.isfinite(off) else np.inf, float(np.abs(b).max()))


def _without_factors(actual: Float64, expected: Float64) -> Float64:
    """Multiplies each channel, axis 1, by the factor that brings it closest to the expected channel, at least 0.

    The difference of a channel has at most the power of the expected channel: pure rounding gets a factor near 0.
    """
    if actual.ndim < 2:
        return actual
    axes = tuple(axis for axis in range(actual.ndim) if axis != 1)
    power = (actual**2).sum(axes, keepdims=True) + np.finfo(np.float64).tiny
    factors = np.maximum((actual * expected).sum(axes, keepdims=True) / power, 0)
    result: Float64 = actual * factors
    return result
