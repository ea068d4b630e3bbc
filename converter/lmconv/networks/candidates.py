"""All outputs of a source network, as candidates for landmarks: names, shapes, dtypes, and ranges on seeded inputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmconv.networks.published import NUMBERS
from lmconv.types import Axes, Json

POINT_NAMES = re.compile(r"landmark|lmk|lmark|key_?point|kpt|kps|points|coord", re.IGNORECASE)
"""Names of outputs that hold points."""

SEEDED = 4
"""Number of seeded inputs that show the ranges of the outputs."""

LISTED = 12
"""Largest number of outputs in a message."""
FEWEST_CELLS = 8
"""Smallest length of a SimCC vector; rows of fewer numbers are boxes or coordinates."""

Reading: TypeAlias = tuple[int, Axes]
"""A way to read an output as points: number of points, coordinates of each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """One output of a source.

    Attributes:
        name: Dict key, field or index, joined by "." in nested outputs, empty for a single tensor; or the name in an
            ONNX file.
        values: (n, ...) float32 values for n seeded inputs. An output without batch axis has one row per input, too. No
            row if the shape differs from input to input.
        dtype: Name of the dtype, such as `"float32"`.
        batched: True if the first axis of the output itself is the batch.
    """

    name: str
    values: NDArray[Any]
    dtype: str
    batched: bool = True

    @property
    def sizes(self) -> tuple[int, ...]:
        """Shape for one input, without the batch axis."""
        return tuple(self.values.shape[1:])

    @property
    def count(self) -> int:
        """Number of values for one input."""
        return int(np.prod(self.sizes))

    @property
    def label(self) -> str:
        """Name, dtype, shape and range, in words."""
        shape = ", ".join(map(str, ("N", *self.sizes) if self.batched else self.sizes))
        comma = "," if len(self.sizes) + self.batched == 1 else ""
        if not len(self.values):
            return f"{self.title} {self.dtype} of changing shape"
        return f"{self.title} {self.dtype} ({shape}{comma}){self._range}"

    @property
    def row(self) -> Json:
        """Name, dtype, shape and range, for JSON documents."""
        known = bool(self.values.size) and bool(np.isfinite(self.values).all())
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": ["N", *self.sizes] if self.batched else list(self.sizes),
            "low": float(self.values.min()) if known else None,
            "high": float(self.values.max()) if known else None,
        }

    @property
    def title(self) -> str:
        """Name for messages."""
        return self.name or "output"

    @property
    def _range(self) -> str:
        if not self.values.size:
            return ""
        if not np.isfinite(self.values).all():
            return " with NaN or infinity"
        sums = ", sums of 1" if self.probabilities else ""
        return f" {self.values.min():.3g} to {self.values.max():.3g}{sums}"

    @cached_property
    def probabilities(self) -> bool:
        """True if the last axis sums to 1 everywhere and no value is negative, as after a softmax."""
        values = self.values
        if not self.floating or not values.size or values.min() < 0:
            return False
        sizes = [axis for axis, size in enumerate(self.sizes, 1) if size > 1]
        return bool(sizes) and bool(np.allclose(values.sum(axis=sizes[-1], dtype=np.float64), 1, atol=1e-3))

    @property
    def floating(self) -> bool:
        """True if the output holds floating-point numbers."""
        return "float" in self.dtype

    @property
    def named_points(self) -> bool:
        """True if the output has the name of an output that holds points."""
        return bool(POINT_NAMES.search(self.name))

    @property
    def readings(self) -> Sequence[Reading]:
        """The ways to read the output as points, the usual one first.

        Axes of one element do not count: (2L), (L, 2), (3L) and (L, 3) are points. The outputs of a softmax, integers,
        and rows of one number, as (N, 1600, 1), are not.
        """
        sizes = [size for size in self.sizes if size != 1]
        if len(self.sizes) == 2 and self.sizes[-1] == 1 and self.sizes[0] // 2 not in NUMBERS:
            return ()
        if not self.floating or not self.values.size or self.probabilities or not sizes:
            return ()
        if len(sizes) == 1:
            axes: tuple[tuple[int, Axes], ...] = ((2, "xy"), (3, "xyz"))
            return tuple((sizes[0] // per, name) for per, name in axes if sizes[0] % per == 0)
        if len(sizes) == 2 and self.sizes[-1] in (2, 3):
            return ((sizes[0], "xy" if sizes[1] == 2 else "xyz"),)
        return ()

    @property
    def is_maps(self) -> bool:
        """True if the output has the shape of heatmaps, (N, L, h, w)."""
        return self.batched and len(self.sizes) == 3 and min(self.sizes[1:]) > 2 and self.floating

    @property
    def is_vectors(self) -> bool:
        """True if the output has the shape of SimCC vectors, (N, L, cells)."""
        return self.batched and len(self.sizes) == 2 and self.sizes[1] >= FEWEST_CELLS and self.floating


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """All outputs of a source, in the order of the source.

    Attributes:
        source: Name of the source, for messages.
        outputs: The outputs.
    """

    source: str
    outputs: Sequence[Candidate]

    def named(self, name: str) -> Candidate | None:
        """Returns the output with a name, or else with an index; None if there is none."""
        names = [output.name for output in self.outputs]
        if name in names:
            return self.outputs[names.index(name)]
        index = int(name) if re.fullmatch("[0-9]{1,4}", name) else len(names)
        return self.outputs[index] if index < len(names) else None

    @property
    def listed(self) -> str:
        """All outputs, or the first ones of many, in words."""
        labels = [output.label for output in self.outputs[:LISTED]]
        more = len(self.outputs) - len(labels)
        return "; ".join([*labels, *([f"and {more} more"] if more else [])])
