"""From the error of each face to accuracy per subset, with the uncertainty of having seen only these faces."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmconv.metrics import auc, auc_8, failure_rate, failure_rate_8
from lmconv.store.files import finite
from lmconv.types import Float64, Json

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 0
PUBLISHED = ("common", "challenge", "full")
CHUNK = 1_000_000
"""Values resampled at once: keeps a bootstrap of any size below some 16 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean and its 95 % bootstrap interval; ION points."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetAccuracy:
    """How well one subset was found.

    Attributes:
        mean: Mean ION, percent.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        n: Number of faces.
        of: How many the full subset has.
        failure_rate: Share of faces with an ION above 10 %, percent.
        auc: Area under the cumulative error curve up to 10 % ION, between 0 and 1.
        failure_rate_8: Share of faces with an ION above 8 %, percent.
        auc_8: Area under the curve up to 8 % ION, between 0 and 1.
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
    """Accuracy on each subset: common, challenge, full when both are there, then the source folders by name.

    Args:
        errors: (n,) float64, ION of each face, percent.
        subsets: The subsets each of the n faces counts in.
        totals: How many faces each subset has in full; a subset that is not in it is taken to be all here.
    """
    result = {}
    for name, chosen in members(subsets).items():
        part = errors[chosen]
        interval = bootstrap(part)
        result[name] = SubsetAccuracy(
            mean=interval.mean,
            low=interval.low,
            high=interval.high,
            n=len(part),
            of=totals.get(name, len(part)),
            failure_rate=failure_rate.plugin.compute(part),
            auc=auc.plugin.compute(part),
            failure_rate_8=failure_rate_8.plugin.compute(part),
            auc_8=auc_8.plugin.compute(part),
        )
    return result


def paired(errors_a: Float64, errors_b: Float64, subsets: Sequence[tuple[str, ...]]) -> dict[str, Interval]:
    """How much worse `a` is than `b` on the same faces, per subset as in `accuracy`: mean of a - b, ION points.

    Paired, so that what makes a face hard for both does not widen the interval.

    Args:
        errors_a: (n,) float64, ION of each face, percent.
        errors_b: (n,) float64, the same faces in the same order.
        subsets: The subsets each of the n faces counts in.
    """
    if errors_a.shape != errors_b.shape:
        raise ValueError(f"errors of {len(errors_a)} and of {len(errors_b)} faces cannot be paired")
    with np.errstate(invalid="ignore"):  # two infinite errors: not a number, which bootstrap takes as infinite
        delta = errors_a - errors_b
    return {name: bootstrap(delta[chosen]) for name, chosen in members(subsets).items()}


def bootstrap(values: Float64, *, resamples: int = RESAMPLES, seed: int = SEED) -> Interval:
    """The mean with its 95 % percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: (n,) float64, one per face, n at least 1. One that is not finite makes the interval infinite.
        resamples: How many samples of n faces are drawn, with replacement.
        seed: The same seed gives the same interval.
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
    """As JSON: subset, then the fields by name. An infinite figure becomes null, as JSON has no infinity."""
    return {name: finite(dataclasses.asdict(figure)) for name, figure in figures.items()}


def curve(errors: Float64) -> tuple[Float64, Float64]:
    """The cumulative error curve, exactly: it steps to a share at an error, and stays until the next.

    Args:
        errors: (n,) float64, ION of each face, percent; one that is not finite is never reached.

    Returns:
        (k,) float64 errors, rising, and (k,) float64, the share of faces with at most each, between 0 and 1.
    """
    at, counts = np.unique(errors[np.isfinite(errors)], return_counts=True)
    return at, np.cumsum(counts) / len(errors)


def members(subsets: Sequence[tuple[str, ...]]) -> dict[str, NDArray[np.intp]]:
    """The faces of each subset, by index, in the order of `accuracy`."""
    found: dict[str, list[int]] = {}
    for index, names in enumerate(subsets):
        for name in names:
            found.setdefault(name, []).append(index)
    if "common" in found and "challenge" in found:
        found["full"] = sorted({*found["common"], *found["challenge"]})
    order = sorted(found, key=lambda name: (PUBLISHED.index(name) if name in PUBLISHED else len(PUBLISHED), name))
    return {name: np.array(found[name]) for name in order}
