"""Verdicts on the figures of an artefact: passed, failed, or not judged; a missing figure never passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from lmconv.building import limits
from lmconv.building.limits import Relative
from lmconv.networks.heads import head_of
from lmconv.plugins import TARGETS
from lmconv.store.artifact import bound_px
from lmconv.types import Artifact

Verdict: TypeAlias = Literal["passed", "failed", "not judged"]

NAMES = ("max_abs", "max_px", "mean_px", "max_map", "compact_px", "ion_loss", "drift")
"""Names of the figures that can have a gate.

- `max_abs`: largest difference of a coordinate, fractions of the input, or of a raw number of a detector.
- `max_px`: largest distance of a point, pixels of the input; `mean_px`: its mean on faces.
- `max_map`: largest difference of a heatmap value or of a detector's raw output, fractions of its range.
- `compact_px`: largest distance of a point on faces, pixels of the input, for an artefact with bounded compaction.
- `ion_loss`: rise of the mean ION over the source's, points.
- `drift`: mean drift on faces, ION points.
"""


def gates(
    artifact: Artifact,
    custom: Mapping[str, float | Relative | None],
    scale: float = 1.0,
    source_ion: float | None = None,
) -> dict[str, float]:
    """Returns the limit of each gate of an artefact.

    Args:
        artifact: The artefact.
        custom: Limits from the user, by name, beside or instead of the defaults; None keeps the default.
        scale: Largest absolute coordinate of the source, at least 1: the default limits on coordinates are multiplied
            by the scale.
        source_ion: Mean ION of the source over all faces, percent; a relative limit without it is not a number.
    """
    spec, target = artifact.spec, TARGETS.load(artifact.target)
    head = head_of(spec).name
    defaults = limits.gates(
        target, artifact.precision, head=head, io=spec.io, compact_px=bound_px(artifact), side=max(spec.input_size)
    )
    given = {
        name: limit.points(source_ion) if isinstance(limit, Relative) else limit
        for name, limit in custom.items()
        if limit is not None
    }
    return limits.scaled(defaults, scale) | given


def judge(limits: Mapping[str, float], figures: Mapping[str, float | None]) -> dict[str, Verdict]:
    """Compares each figure with its limit; a figure that was not measured (None) is not judged."""

    def verdict(name: str) -> Verdict:
        figure = figures.get(name)
        if figure is None:
            return "not judged"
        return "passed" if figure <= limits[name] else "failed"  # NaN fails

    return {name: verdict(name) for name in limits}
