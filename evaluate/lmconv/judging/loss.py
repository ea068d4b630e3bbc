"""Loss of a graph on annotated faces against its source network, and the budget for the loss."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from lmconv.building.limits import DRIFT_BUDGET, ION_BUDGET
from lmconv.faces.crops import FaceCrops
from lmconv.judging import parity
from lmconv.judging.accuracy import Interval, bootstrap
from lmconv.networks.outputs import Outputs
from lmconv.types import Float64, Json

Verdict: TypeAlias = Literal["within", "outside", "too few faces"]
CERTAIN = 1.96
"""Half-width of a 95 % interval in standard errors, in the normal approximation."""
ROUNDING = 1e-4
"""Largest difference in ION points that rounding explains: the loss of fp32 from one runtime to another."""
MOST = 1e5
"""Number of faces above which asking for more faces is pointless."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Losses:
    """Loss of each face, ION points.

    Attributes:
        ion: (n,) float64, ION of the face minus the source's ION.
        drift: (n,) float64, mean distance to the source's points.
    """

    ion: Float64
    drift: Float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Loss on n faces: means with 95 % bootstrap intervals, ION points.

    Attributes:
        ion: Paired difference of the ION to the source's.
        drift: Mean distance to the source's points.
        largest: Largest drift of a face.
        deviation: Standard deviation of the paired difference.
        n: Number of faces.
    """

    ion: Interval
    drift: Interval
    largest: float
    deviation: float
    n: int

    def to_json(self) -> Json:
        """Returns plain JSON; a figure that is not finite is null."""

        def plain(value: object) -> object:
            if isinstance(value, dict):
                return {key: plain(inner) for key, inner in value.items()}
            return None if isinstance(value, float) and not math.isfinite(value) else value

        return {key: plain(value) for key, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, document: Json) -> Loss:
        """Inverse of `to_json`."""

        def number(value: float | None) -> float:
            return math.inf if value is None else value

        def interval(values: Json) -> Interval:
            return Interval(**{key: number(value) for key, value in values.items()})

        return cls(
            ion=interval(document["ion"]),
            drift=interval(document["drift"]),
            largest=number(document["largest"]),
            deviation=number(document["deviation"]),
            n=document["n"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Largest loss allowed on faces, ION points.

    Attributes:
        ion: Largest mean of the paired difference; the 95 % interval must exclude twice this value.
        drift: Largest mean drift; None for no limit.
        strict: True if the upper end of the interval must be within `ion`, too.
    """

    ion: float = ION_BUDGET
    drift: float | None = DRIFT_BUDGET
    strict: bool = False

    def judge(self, loss: Loss) -> tuple[Verdict, str]:
        """Returns the verdict on a loss, and the reason unless the loss is within the budget."""
        if not loss.ion.mean <= max(self.ion, ROUNDING):  # NaN is outside
            return "outside", f"ION {loss.ion.mean:+.3f} points, allowed {self.ion:g}"
        if self.drift is not None and not loss.drift.mean <= max(self.drift, ROUNDING):
            return "outside", f"drift {loss.drift.mean:.3f} ION points, allowed {self.drift:g}"
        limit = max(self.ion if self.strict else 2 * self.ion, ROUNDING)
        if loss.ion.high <= limit:
            return "within", ""
        room = limit - loss.ion.mean
        needed = (CERTAIN * loss.deviation / room) ** 2 if room > 0 else math.inf
        enough = f"about {math.ceil(needed)} faces would tell" if needed < MOST else "no number of faces would tell"
        return "too few faces", (
            f"ION {loss.ion.mean:+.3f} points, but its 95 % interval on {loss.n} faces reaches {loss.ion.high:+.3f} "
            f"and has to stay below {limit:g}: {enough}"
        )


def losses(actual: Outputs, expected: Outputs, faces: FaceCrops) -> Losses:
    """Returns the loss of each face.

    Args:
        actual: Outputs of the graph for the faces.
        expected: Outputs of the source for the faces.
        faces: The annotated faces.
    """
    return Losses(
        ion=parity.errors(actual, faces) - parity.errors(expected, faces),
        drift=parity.drift(actual, expected, faces),
    )


def loss(losses: Losses) -> Loss:
    """Summarises the losses of at least one face."""
    return Loss(
        ion=bootstrap(losses.ion),
        drift=bootstrap(losses.drift),
        largest=float(np.max(losses.drift)),
        deviation=float(np.std(losses.ion)) if np.isfinite(losses.ion).all() else math.inf,
        n=len(losses.ion),
    )
