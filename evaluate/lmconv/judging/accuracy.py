"""Accuracy per subset from the error of each face, with bootstrap intervals.

An interval states how much a mean may differ on other faces of the same kind.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmconv.judging.curve_figures import LIMIT_JD, auc, failure_rate
from lmconv.store.files import finite
from lmconv.types import Float64, Json

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 0
PUBLISHED = ("common", "challenge", "full")
"""Subsets of 300-W that come first in tables, in this order."""
CHUNK = 1_000_000
"""Number of values resampled at once: limits the memory of a bootstrap to about 16 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean and its 95 % bootstrap interval; ION points."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetAccuracy:
    """Accuracy of the predicted landmarks on one subset.

    Attributes:
        mean: Mean ION, percent.
        low: Lower end of the 95 % bootstrap interval of the mean, percent.
        high: Upper end of the interval, percent.
        n: Number of faces.
        of: Number of faces in the full subset.
        failure_rate: Percentage of faces with an ION above 10 %.
        auc: Area under the cumulative error curve up to 10 % ION, from 0 to 1.
        failure_rate_8: Percentage of faces with an ION above 8 %.
        auc_8: Area under the cumulative error curve up to 8 % ION, from 0 to 1.
    """

    mean: float
    low: float
    high: float
    n: int
    of: int
    failure_rate: float
    auc: float
    failure_rate_8: float
    auc_8: float


def accuracy(
    errors: Float64, subsets: Sequence[tuple[str, ...]], totals: Mapping[str, int]
) -> dict[str, SubsetAccuracy]:
    """Accuracy on each subset.

    The order is common, challenge, full, then the other subsets by name. If the faces are in common and in challenge,
    full is the union of both.

    Args:
        errors: (n,) float64, ION of each face, percent.
        subsets: Subsets of each of the n faces.
        totals: Number of faces in each full subset; by default the number of faces in `errors`.
    """
    result = {}
    for name, indices in members(subsets).items():
        part = errors[indices]
        interval = bootstrap(part)
        result[name] = SubsetAccuracy(
            mean=interval.mean,
            low=interval.low,
            high=interval.high,
            n=len(part),
            of=totals.get(name, len(part)),
            failure_rate=failure_rate(part),
            auc=auc(part),
            failure_rate_8=failure_rate(part, LIMIT_JD),
            auc_8=auc(part, LIMIT_JD),
        )
    return result


def paired(errors_a: Float64, errors_b: Float64, subsets: Sequence[tuple[str, ...]]) -> dict[str, Interval]:
    """Mean of a - b on the same faces, ION points, for each subset in the order of `accuracy`.

    A positive mean says that a is less accurate. The difference is paired: a face that is hard for both networks does
    not widen the interval.

    Args:
        errors_a: (n,) float64, ION of each face, percent.
        errors_b: (n,) float64, ION of the same faces in the same order, percent.
        subsets: Subsets of each of the n faces.
    """
    if errors_a.shape != errors_b.shape:
        raise ValueError(f"errors of {len(errors_a)} and of {len(errors_b)} faces cannot be paired")
    with np.errstate(invalid="ignore"):  # inf - inf is NaN, and bootstrap returns infinity for NaN
        delta = errors_a - errors_b
    return {name: bootstrap(delta[indices]) for name, indices in members(subsets).items()}


def bootstrap(values: Float64, *, resamples: int = RESAMPLES, seed: int = SEED) -> Interval:
    """Mean and its 95 % percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: (n,) float64, one value per face, n at least 1. A value that is not finite makes mean and interval
            infinite.
        resamples: Number of samples of n faces, drawn with replacement.
        seed: Seed of the draws; the same seed gives the same interval.
    """
    if not np.isfinite(values).all():
        return Interval(mean=math.inf, low=math.inf, high=math.inf)
    random = np.random.default_rng(seed)
    n = len(values)
    means = np.empty(resamples)
    step = max(1, CHUNK // n)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        means[start : start + rows] = values[random.integers(0, n, (rows, n))].mean(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(mean=float(values.mean()), low=float(low), high=float(high))


def to_json(figures: Mapping[str, SubsetAccuracy] | Mapping[str, Interval]) -> Json:
    """Returns the figures as JSON: subset, then field name. Infinity becomes null, because JSON has no infinity."""
    return {name: finite(dataclasses.asdict(figure)) for name, figure in figures.items()}


def curve(errors: Float64) -> tuple[Float64, Float64]:
    """Steps of the exact cumulative error curve.

    The curve is constant between two steps.

    Args:
        errors: (n,) float64, ION of each face, percent; the curve has no step at an error that is not finite.

    Returns:
        (k,) float64, the different errors in rising order, and (k,) float64, the fraction of faces with at most this
        error, from 0 to 1.
    """
    steps, counts = np.unique(errors[np.isfinite(errors)], return_counts=True)
    return steps, np.cumsum(counts) / len(errors)


def members(subsets: Sequence[tuple[str, ...]]) -> dict[str, NDArray[np.intp]]:
    """Indices of the faces of each subset, in the order of `accuracy`."""
    indices: dict[str, list[int]] = {}
    for index, names in enumerate(subsets):
        for name in names:
            indices.setdefault(name, []).append(index)
    if "common" in indices and "challenge" in indices:
        indices["full"] = sorted({*indices["common"], *indices["challenge"]})
    order = sorted(indices, key=lambda name: (PUBLISHED.index(name) if name in PUBLISHED else len(PUBLISHED), name))
    return {name: np.array(indices[name]) for name in order}
