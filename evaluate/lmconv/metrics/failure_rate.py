"""Failure rate: how many faces are beyond use."""

from __future__ import annotations

import numpy as np

from lmconv.data import Metric
from lmconv.types import Float64

THRESHOLD = 10.0
"""A face with an ION above this, in percent, has failed; one at it has not."""


def _failure_rate(errors: Float64) -> float:
    return 100.0 * float(np.mean(errors > THRESHOLD))


plugin = Metric(
    name="failure_rate",
    unit="%",
    summary=f"share of the faces with an ION above {THRESHOLD:g} %",
    better="lower",
    compute=_failure_rate,
)
