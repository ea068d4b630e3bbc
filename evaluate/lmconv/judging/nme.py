"""Normalised mean error (NME) of landmarks.

The usual normaliser is the distance of the outer eye corners (inter-ocular), as 300-W publishes the error. The figure
is called ION in tables and in JSON. A landmark scheme may have another default normaliser, because a profile shows one
eye only or because a challenge measures the face by its box. The figure is then the NME by that normaliser and is still
called ION. Compare only figures by the same normaliser.
"""

from __future__ import annotations

import numpy as np

from lmconv.errors import InputError, UsageError
from lmconv.scheme import SCHEMES, Normaliser, Scheme, scheme
from lmconv.types import Float32, Float64


def nme(predicted: Float32 | Float64, truth: Float64, normaliser: str | None = None) -> Float64:
    """Normalised mean error of each face: 100 x mean distance of the landmarks / size of the face.

    Sagonas et al., "300 Faces in-the-Wild Challenge: The First Facial Landmark Localization Challenge", ICCVW 2013. The
    size comes from the landmark scheme with L landmarks (`Scheme.normalisers`). For 300-W the size is the distance of
    the outer eye corners.

    Args:
        predicted: (n, L, 2) float, pixels of the picture, x before y.
        truth: (n, L, 2) float64, the annotated landmarks in the same convention.
        normaliser: Name of a normaliser of the scheme; by default the first.

    Returns:
        (n,) float64, percent. The error is infinite if a predicted coordinate of the face is not finite, because an
        infinite error passes no limit on a face and no limit on a mean.

    Raises:
        InputError: The size of a face is not positive.
        UsageError: No scheme has L landmarks, or the scheme has no normaliser of this name.
    """
    if predicted.shape != truth.shape or truth.ndim != 3:
        raise ValueError(f"predicted points of shape {predicted.shape} do not match annotated points of {truth.shape}")
    sizes = face_sizes(truth, scheme_of(truth.shape[1]).normaliser(normaliser))
    distances = np.linalg.norm(predicted.astype(np.float64) - truth, axis=-1)
    errors: Float64 = 100.0 * distances.mean(axis=-1) / sizes
    return np.where(np.isfinite(errors), errors, np.inf)


def face_sizes(truth: Float64, rule: Normaliser) -> Float64:
    """Returns the size of each face, (n,) float64, pixels.

    Args:
        truth: (n, L, 2) float64, the annotated landmarks, pixels of the picture.
        rule: The normaliser.

    Raises:
        InputError: The size of a face is not positive.
    """
    sizes = rule.sizes(truth)
    if not (sizes > 0).all():
        face = int(np.argmin(sizes > 0))
        message = f"face {face} (counted from 0) cannot be judged: the {rule.measure} is {sizes[face]:g}"
        raise InputError(message, hint="correct the annotation of the face, or remove the annotation and the picture")
    return sizes


def scheme_of(landmarks: int) -> Scheme:
    """Returns the landmark scheme with this number of landmarks.

    Raises:
        UsageError: No plug-in has this number of landmarks.
    """
    result = scheme(landmarks)
    if result is None:
        schemes = SCHEMES.load_all()
        counts = ", ".join(str(count) for count in sorted(known.landmarks for known in schemes.values()))
        hint = f"schemes exist for {counts}; a package can register a scheme under lmconv.schemes (docs/points.md)"
        raise UsageError(f"ION is not defined for {landmarks} points", hint=hint)
    return result
