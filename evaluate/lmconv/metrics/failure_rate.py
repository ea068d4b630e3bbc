"""Failure rate: how many faces are beyond use."""

from __future__ import annotations

import numpy as np

from lmconv.data import Metric
from lmconv.types import Float64

THRESHOLD = 10.0
"""A face with an ION above this, in percent, has failed; one at it has not."""


def above(threshold: float, name: str) -> Metric:
    """The share of faces above a threshold, ION in percent."""

    def share(errors: Float64) -> float:
        return 100.0 * float(np.mean(errors > threshold))

    summary = f"share of the faces with an ION above {threshold:g} %"
    return Metric(name=name, unit="%", summary=summary, better="lower", compute=share)


plugin = above(THRESHOLD, "failure_rate")
