"""Loss of a graph on annotated faces against its source network, and the budget for the loss."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from lmconv.building.limits import DRIFT_BUDGET, ION_BUDGET, ION_ROUNDING, beside
from lmconv.faces.crops import FaceCrops
from lmconv.judging import parity
from lmconv.judging.accuracy import Interval, bootstrap
from lmconv.networks.outputs import Outputs
from lmconv.store.files import finite
from lmconv.types import Float64, Json

Verdict: TypeAlias = Literal["within", "outside", "too few faces"]
CERTAIN = 1.96
"""Half width of a 95 % interval in the normal approximation, standard errors."""
LARGEST_DATA_SET = 1e5
"""Number of faces beyond which no data set is expected to exist."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Losses:
    """Losses of n faces, one by one, ION points.

    Attributes:
        ion: (n,) float64, ION of the graph minus ION of the source.
        drift: (n,) float64, mean distance to the landmarks of the source.
    """

    ion: Float64
    drift: Float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Mean losses on n faces with 95 % bootstrap intervals, ION points.

    Attributes:
        ion: ION of the graph minus ION of the source, paired by face.
        drift: Mean distance to the landmarks of the source.
        largest: Largest drift of a face.
        deviation: Standard deviation of the paired difference of ION.
        n: Number of faces.
    """

    ion: Interval
    drift: Interval
    largest: float
    deviation: float
    n: int

    def to_json(self) -> Json:
        """Returns the loss as plain JSON; a figure that is not finite is null."""
        document: Json = finite(dataclasses.asdict(self))
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Largest loss allowed on faces, ION points.

    Attributes:
        ion: Largest mean rise of ION. The 95 % interval of the rise must exclude twice this value.
        drift: Largest mean drift; None for any drift.
        strict: True if the upper end of the interval must also be within `ion`.
    """

    ion: float = ION_BUDGET
    drift: float | None = DRIFT_BUDGET
    strict: bool = False

    def judge(self, loss: Loss) -> tuple[Verdict, str]:
        """Returns the verdict on a loss, and the reason: empty if the loss is within the budget."""
        if not loss.ion.mean <= max(self.ion, ION_ROUNDING):  # not a number is outside
            rise, allowed = beside(loss.ion.mean, max(self.ion, ION_ROUNDING), "+.3f")
            return "outside", f"ION {rise} points, allowed {allowed}"
        verdict, reason = self.judge_drift(loss.drift)
        if verdict == "outside":
            return verdict, reason
        limit = max(self.ion if self.strict else 2 * self.ion, ION_ROUNDING)
        if loss.ion.high <= limit:
            return "within", ""
        room = limit - loss.ion.mean
        needed = (CERTAIN * loss.deviation / room) ** 2 if room > 0 else math.inf
        enough = (
            f"about {math.ceil(needed)} faces would tell"
            if needed < LARGEST_DATA_SET
            else "no number of faces would tell"
        )
        high, allowed = beside(loss.ion.high, limit, "+.3f")
        return "too few faces", (
            f"ION {loss.ion.mean:+.3f} points, but its 95 % interval on {loss.n} faces reaches {high} "
            f"and has to stay below {allowed}: {enough}"
        )

    def judge_drift(self, drift: Interval) -> tuple[Verdict, str]:
        """Returns the verdict on the drift alone, and the reason: empty if the drift is within the budget."""
        if self.drift is not None and not drift.mean <= max(self.drift, ION_ROUNDING):
            moved, allowed = beside(drift.mean, max(self.drift, ION_ROUNDING), ".3f")
            return "outside", f"drift {moved} ION points, allowed {allowed}"
        return "within", ""


def losses(outputs: Outputs, expected: Outputs, faces: FaceCrops) -> Losses:
    """Returns the loss of each face.

    Args:
        outputs: Outputs of the graph for the faces.
        expected: Outputs of the source for the same faces.
        faces: The annotated faces.
    """
    return Losses(
        ion=parity.errors(outputs, faces) - parity.errors(expected, faces),
        drift=parity.drift(outputs, expected, faces),
    )


def loss(faces: Losses) -> Loss:
    """Returns the mean losses of n faces, n at least 1."""
    return Loss(
        ion=bootstrap(faces.ion),
        drift=bootstrap(faces.drift),
        largest=float(np.max(faces.drift)),
        deviation=float(np.std(faces.ion)) if np.isfinite(faces.ion).all() else math.inf,
        n=len(faces.ion),
    )
