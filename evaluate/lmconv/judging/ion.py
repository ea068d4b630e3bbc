"""ION: the point error normalised by the distance of the outer eye corners (inter-ocular), as 300-W publishes it.

Where the scheme of the points has another normaliser, because a profile has one eye or a challenge measures the face by
its box, the figure is the NME by that rule; it keeps the name, and is comparable only with figures by the same rule.
"""

from __future__ import annotations

import numpy as np

from lmconv import plugins
from lmconv.data import Metric
from lmconv.errors import InputError, UsageError
from lmconv.scheme import Scheme, scheme
from lmconv.types import Float32, Float64


def ion(predicted: Float32 | Float64, truth: Float64, normaliser: str | None = None) -> Float64:
    """The error of each face: 100 x mean distance of its points / distance of its outer eye corners.

    Sagonas et al., "300 Faces in-the-Wild Challenge: The First Facial Landmark Localization Challenge", ICCVW 2013. It
    is divided by what the scheme with L points says (`Scheme.normalisers`), which need not be the eye corners.

    Args:
        predicted: (n, L, 2) float, pixels of the picture, x before y.
        truth: (n, L, 2) float64, the annotation in the same convention.
        normaliser: Another one of its scheme, by name.

    Returns:
        (n,) float64, percent. A face with a predicted point that is not finite is infinitely wrong, so that no mean
        and no limit lets it pass.
    """
    if predicted.shape != truth.shape or truth.ndim != 3:
        raise ValueError(f"points of shape {predicted.shape} cannot be judged by an annotation of shape {truth.shape}")
    rule = scheme_of(truth.shape[1]).normaliser(normaliser)
    scale = rule.sizes(truth)
    if not (scale > 0).all():
        face = int(np.argmin(scale > 0))
        what = f"face {face} (counted from 0) cannot be judged: the {rule.measure} is {scale[face]:g}"
        raise InputError(what, hint="correct its annotation, or remove it together with its picture")
    distance = np.linalg.norm(predicted.astype(np.float64) - truth, axis=-1)
    errors: Float64 = 100.0 * distance.mean(axis=-1) / scale
    return np.where(np.isfinite(errors), errors, np.inf)


def scheme_of(landmarks: int) -> Scheme:
    """The scheme of faces with this many points; a `UsageError` where no plug-in knows one."""
    found = scheme(landmarks)
    if found is None:
        known: dict[str, Scheme] = plugins.load_all("schemes")
        listed = ", ".join(str(number) for number in sorted(one.landmarks for one in known.values()))
        hint = f"it is for {listed}; another package adds one as an entry point of lmconv.schemes (docs/points.md)"
        raise UsageError(f"ION is not defined for {landmarks} points", hint=hint)
    return found


def _mean(errors: Float64) -> float:
    return float(np.mean(errors))


plugin = Metric(
    name="ion",
    unit="%",
    summary="mean over the faces of 100 x mean point error / distance of the outer eye corners, or what the scheme has",
    better="lower",
    compute=_mean,
)
