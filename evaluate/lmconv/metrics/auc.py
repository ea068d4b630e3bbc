"""AUC: the area under the cumulative error curve."""

from __future__ import annotations

import numpy as np

from lmconv.data import Metric
from lmconv.types import Float64

LIMIT = 10.0
"""Where the curve is cut off: ION in percent."""


def _auc(errors: Float64) -> float:
    # With F(e) = share of faces whose ION is at most e, AUC = (1 / LIMIT) * integral of F from 0 to LIMIT. F is a sum
    # of steps, and a face's step at its ION adds the rest of the interval: exact, no bins.
    return float(np.mean(np.clip(1.0 - errors / LIMIT, 0.0, 1.0)))


plugin = Metric(
    name="auc",
    unit="",
    summary=f"area under the cumulative error curve from 0 to {LIMIT:g} % ION, divided by {LIMIT:g}: 1 is perfect",
    better="higher",
    compute=_auc,
)
