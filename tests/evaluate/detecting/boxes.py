"""Boxes for the tests of overlap and suppression."""

from __future__ import annotations

import numpy as np

from lmconv.detecting.overlap import Over
from lmconv.types import Float64

OVERS: list[Over] = ["union", "smaller"]


def box(*sides: float) -> Float64:
    return np.array(sides, np.float64)


def drawn(seed: int, count: int = 12) -> tuple[Float64, Float64]:
    """Random boxes, some of which overlap, with scores that all differ."""
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 60, (count, 2))
    return np.concatenate([corner, corner + random.uniform(1, 40, (count, 2))], 1), random.permutation(count) / count
