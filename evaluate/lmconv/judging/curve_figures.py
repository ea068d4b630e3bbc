"""Figures of the cumulative error curve: area under the curve (AUC) and failure rate.

By default the curve ends at an ION of 10 %; the JD-landmark challenge ends the curve at 8 %.
"""

from __future__ import annotations

import numpy as np

from lmconv.types import Float64

LIMIT = 10.0
"""Largest error of the curve: ION in percent."""
LIMIT_JD = 8.0
"""Largest error of the curve in the JD-landmark challenge: ION in percent."""


def auc(errors: Float64, limit: float = LIMIT) -> float:
    """Area under the cumulative error curve from 0 to `limit`, divided by `limit`.

    Args:
        errors: (n,) float64, ION of each face, percent; n at least 1.
        limit: Largest error of the curve: ION in percent.

    Returns:
        A number from 0 to 1; 1 means that every error is 0.
    """
    # F(e) is the fraction of faces whose ION is at most e, and AUC = (1 / limit) * integral of F from 0 to limit.
    # F is a sum of steps: the step of a face adds the interval from the face's ION to the limit. The sum needs no bins
    # and is exact.
    return float(np.mean(np.clip(1.0 - errors / limit, 0.0, 1.0)))


def failure_rate(errors: Float64, threshold: float = LIMIT) -> float:
    """Percentage of the faces with an error above a threshold.

    Args:
        errors: (n,) float64, ION of each face, percent; n at least 1.
        threshold: ION in percent; an error equal to the threshold is no failure.

    Returns:
        A number from 0 to 100.
    """
    return 100.0 * float(np.mean(errors > threshold))
