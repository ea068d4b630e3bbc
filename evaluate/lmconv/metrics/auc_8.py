"""AUC up to 8 % ION, where the JD-landmark challenge cuts the curve off."""

from __future__ import annotations

from lmconv.metrics.auc import up_to

plugin = up_to(8.0, "auc_8")
