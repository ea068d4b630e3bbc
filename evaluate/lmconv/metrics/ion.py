"""ION: the point error normalised by the distance of the outer eye corners (inter-ocular), as 300-W publishes it."""

from __future__ import annotations

import numpy as np

from lmconv.data import Metric
from lmconv.errors import InputError, UsageError
from lmconv.types import Float32, Float64

EYE_CORNERS = {68: (36, 45)}
"""The outer corners of both eyes, 0-based, by number of points."""


def ion(predicted: Float32 | Float64, truth: Float64) -> Float64:
    """The error of each face: 100 x mean distance of its points / distance of its outer eye corners.

    Sagonas et al., "300 Faces in-the-Wild Challenge: The First Facial Landmark Localization Challenge", ICCVW 2013.

    Args:
        predicted: (n, L, 2) float, pixels of the picture, x before y.
        truth: (n, L, 2) float64, the annotation in the same convention; L is 68.

    Returns:
        (n,) float64, percent. A face with a predicted point that is not finite is infinitely wrong, so that no mean
        and no limit lets it pass.
    """
    if predicted.shape != truth.shape or truth.ndim != 3:
        raise ValueError(f"points of shape {predicted.shape} cannot be judged by an annotation of shape {truth.shape}")
    corners = EYE_CORNERS.get(truth.shape[1])
    if corners is None:
        raise UsageError(f"ION is not defined for {truth.shape[1]} points", hint="it is for 68")
    scale = np.linalg.norm(truth[:, corners[0]] - truth[:, corners[1]], axis=-1)
    if not (scale > 0).all():
        face = int(np.argmin(scale > 0))
        raise InputError(f"face {face} (counted from 0) has both outer eye corners in one place", hint="ION needs two")
    distance = np.linalg.norm(predicted.astype(np.float64) - truth, axis=-1)
    errors: Float64 = 100.0 * distance.mean(axis=-1) / scale
    return np.where(np.isfinite(errors), errors, np.inf)


def _mean(errors: Float64) -> float:
    return float(np.mean(errors))


plugin = Metric(
    name="ion",
    unit="%",
    summary="mean over the faces of 100 x mean point error / distance of the outer eye corners",
    better="lower",
    compute=_mean,
)
