"""AUC: the area under the cumulative error curve."""

from __future__ import annotations

import numpy as np

from lmconv.data import Metric
from lmconv.types import Float64

LIMIT = 10.0
"""Where the curve is cut off: ION in percent."""


def up_to(limit: float, name: str) -> Metric:
    """The area up to a limit, ION in percent."""

    def area(errors: Float64) -> float:
        # With F(e) = share of faces whose ION is at most e, AUC = (1 / limit) * integral of F from 0 to limit. F is a
        # sum of steps, and a face's step at its ION adds the rest of the interval: exact, no bins.
        return float(np.mean(np.clip(1.0 - errors / limit, 0.0, 1.0)))

    return Metric(
        name=name,
        unit="",
        summary=f"area under the cumulative error curve from 0 to {limit:g} % ION, divided by {limit:g}: 1 is perfect",
        better="higher",
        compute=area,
    )


plugin = up_to(LIMIT, "auc")
