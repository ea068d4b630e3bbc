"""Race of all targets in their uniform precisions, without a search: the work of `lmconv best`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from lmconv.building import effort
from lmconv.building.effort import Effort
from lmconv.building.request import Conversion
from lmconv.console import phase
from lmconv.errors import GateFailed, LmconvError
from lmconv.faces.training import TrainingFaces
from lmconv.judging.loss import Budget
from lmconv.tuning.documents import answer_of, point_of
from lmconv.tuning.faces import FOLDS
from lmconv.tuning.race import Choice, Entrant, choose, judged
from lmconv.tuning.search import Search
from lmconv.tuning.setting import folded_faces, race_times, trials_on
from lmconv.types import Json, Precision

PRECISIONS = (Precision.FP32, Precision.BF16, Precision.INT8)
"""Precisions of the race. fp16 is for size and for GPUs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """Options of the race.

    Attributes:
        targets: Names of the targets.
        precisions: Precisions to race, where a target and this machine have them.
        faces: The annotated faces.
        budget: Largest loss allowed.
        fresh: True if measurements of earlier races and searches are to be repeated.
        effort: Effort of the measurements.
    """

    targets: Sequence[str]
    faces: TrainingFaces
    precisions: Sequence[Precision] = PRECISIONS
    budget: Budget = field(default_factory=Budget)
    fresh: bool = False
    effort: Effort = effort.DEFAULT


def run(race: Race, conversion: Conversion, note: Callable[[str], object]) -> tuple[Choice, Json]:
    """Races a network on all targets.

    Args:
        race: The options.
        conversion: The network and its options.
        note: Receives messages about the progress.

    Returns:
        The choice, and the document of the race; `left_out` has a reason for each target that cannot run the network.

    Raises:
        UsageError: The weights are random, or ION is not defined for the network's number of points.
        InputError: The data set has too few faces, or the folder cannot be written.
        GateFailed: No candidate is within the budget, or no target can run the network.
    """
    start, name = time.perf_counter(), conversion.base.artifact.spec.name
    with phase("cropping faces"):
        faces = folded_faces(conversion, race.faces)
    entrants: list[Entrant] = []
    left_out: dict[str, str] = {}
    for target in race.targets:
        try:
            with phase(f"preparing {target}"):
                trials = trials_on(conversion, target, faces, fresh=race.fresh, effort=race.effort)
                search = Search(trials=trials, budget=race.budget, seconds=0.0, note=note)
                entrants += search.uniform(race.precisions)
        except LmconvError as error:
            left_out[target] = error.message
            note(f"{target} is left out: {error}")
    if not entrants:
        raise GateFailed(f"no target here can run {name}", hint="; ".join(left_out.values()))
    times = race_times(conversion, entrants, fresh=race.fresh, effort=race.effort, note=note)
    candidates = judged(entrants, times, race.budget, note)
    choice = choose(candidates)
    if choice is None:
        raise GateFailed(f"no form of {name} is within the budget", hint=f"{candidates[0].label}: {candidates[0].why}")
    return choice, {
        "model": name,
        "faces": len(faces.crops.truth),
        "folds": FOLDS,
        "budget": asdict(race.budget),
        "points": [point_of(candidate, candidates, choice.winner) for candidate in candidates],
        "left_out": left_out,
        "answer": answer_of(choice),
        "plain_ms": float(np.median(times[0])),
        "seconds": round(time.perf_counter() - start, 1),
    }
