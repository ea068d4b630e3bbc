"""What a graph loses on annotated faces against the network it came from, and whether a budget allows it."""

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
"""Standard errors that a 95 % interval reaches from its mean, in the normal approximation."""
ROUNDING = 1e-4
"""ION points below which all is rounding: what fp32 loses from one runtime to another."""
MOST = 1e5
"""More faces than these nobody has."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Losses:
    """Of each face, in ION points.

    Attributes:
        ion: (n,) float64, its ION less that of the source.
        drift: (n,) float64, mean distance to the source's points.
    """

    ion: Float64
    drift: Float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What is lost on n faces: means with 95 % bootstrap intervals, ION points.

    Attributes:
        ion: Paired difference of the ION to the source's.
        drift: Mean distance to the source's points.
        largest: Drift of the face that is hit hardest.
        deviation: Standard deviation of the paired difference.
        n: How many faces.
    """

    ion: Interval
    drift: Interval
    largest: float
    deviation: float
    n: int

    def to_json(self) -> Json:
        """As plain JSON; a figure that is not finite is null."""

        def plain(value: object) -> object:
            if isinstance(value, dict):
                return {key: plain(inner) for key, inner in value.items()}
            return None if isinstance(value, float) and not math.isfinite(value) else value

        return {key: plain(value) for key, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, document: Json) -> Loss:
        """What `to_json` gave."""

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
    """How much may be lost on faces, ION points.

    Attributes:
        ion: Largest mean of the paired difference; its 95 % interval has to exclude twice as much.
        drift: Largest mean drift; None for any.
        strict: Whether the interval's upper end has to be within, too.
    """

    ion: float = ION_BUDGET
    drift: float | None = DRIFT_BUDGET
    strict: bool = False

    def judge(self, loss: Loss) -> tuple[Verdict, str]:
        """Whether it allows a loss, and why not: empty where it does."""
        if not loss.ion.mean <= max(self.ion, ROUNDING):  # not a number is outside
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


def losses(found: Outputs, expected: Outputs, faces: FaceCrops) -> Losses:
    """What each face loses.

    Args:
        found: What the graph says of the faces.
        expected: What the source says of them.
        faces: The annotation.
    """
    return Losses(
        ion=parity.errors(found, faces) - parity.errors(expected, faces),
        drift=parity.drift(found, expected, faces),
    )


def loss(of: Losses) -> Loss:
    """Sums up n faces, at least one."""
    return Loss(
        ion=bootstrap(of.ion),
        drift=bootstrap(of.drift),
        largest=float(np.max(of.drift)),
        deviation=float(np.std(of.ion)) if np.isfinite(of.ion).all() else math.inf,
        n=len(of.ion),
    )
