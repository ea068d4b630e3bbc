"""Failure rate at 8 % ION, as the JD-landmark challenge counts it."""

from __future__ import annotations

from lmconv.metrics.failure_rate import above

plugin = above(8.0, "failure_rate_8")
