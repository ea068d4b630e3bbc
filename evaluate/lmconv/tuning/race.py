"""One race of all candidates of a network, on all targets together, and the choice of a winner.

Every candidate and the plain graph without denormal numbers, in ONNX Runtime fp32, are timed in the same rounds.
Candidates are then judged on faces, fastest first. int8 is calibrated for every fold of the faces; an int8 candidate
that is slower than the winner and its runner-up is therefore not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from lmconv.console import phase
from lmconv.inference.latency import Gain, faster
from lmconv.judging.loss import Budget, Loss, Verdict
from lmconv.tuning.trials import Trials
from lmconv.types import Float64, MixedPrecision, Precision

EQUAL_SPEED_RATIO = 1.01
"""Two candidates count as equally fast if their times do not differ significantly by more than this factor ..."""
EQUAL_MEDIAN_RATIO = 1.03
"""... and if their medians differ by at most this factor: a noisy race does not make a slow candidate fast."""
DRIFT_STEP = 0.01
"""Drifts that differ by less count as equal, ION points."""

Times: TypeAlias = Sequence[Float64]
"""For the plain graph and then for each candidate, the median of each block, (rounds,) float64, milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A mix that takes part in a race.

    Attributes:
        trials: Measurements of the network on the mix's target.
        mix: The mix.
        name: Description of the mix for the user.
    """

    trials: Trials
    mix: MixedPrecision
    name: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A timed mix.

    Attributes:
        target: Name of the target.
        name: Description of the mix for the user.
        mix: Precisions, rewrites and decisions.
        times: (rounds,) float64, median of each block, milliseconds.
        faster: Speed-up over the plain graph without denormal numbers in ONNX Runtime.
        loss: Loss on faces; None if not judged.
        verdict: Verdict of the budget on the loss; None if not judged.
        why: Reason of the verdict; empty if the loss is within the budget.
    """

    target: str
    name: str
    mix: MixedPrecision
    times: Float64
    faster: Gain
    loss: Loss | None = None
    verdict: Verdict | None = None
    why: str = ""

    @property
    def ms(self) -> float:
        """Median time of a run on one thread, with one input or the network's fixed batch, milliseconds."""
        return float(np.median(self.times))

    @property
    def label(self) -> str:
        """Target and mix, for the user."""
        return f"{self.target} {self.name}"

    def faster_than(self, other: Candidate) -> Gain:
        """Returns the speed-up of this candidate over another one of the same race."""
        return _faster(other.times, self.times)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """Result of a race.

    Attributes:
        winner: The chosen candidate.
        why: Reason of the choice, for the user.
        runner_up: The fastest of the other candidates within the budget; None if there is none.
        lead: Speed-up of the winner over the runner-up.
    """

    winner: Candidate
    why: str
    runner_up: Candidate | None = None
    lead: Gain | None = None

    @property
    def level(self) -> bool:
        """True if winner and runner-up are equally fast."""
        return self.lead is not None and _level(self.lead)


def judged(
    entrants: Sequence[Entrant], times: Times, budget: Budget, note: Callable[[str], object] = lambda text: None
) -> tuple[Candidate, ...]:
    """Judges the entrants of a race, fastest first.

    Args:
        entrants: The entrants.
        times: Times of the race, see `Times`.
        budget: Largest loss allowed.
        note: Receives messages about the progress.

    Returns:
        All candidates, fastest first.
    """
    plain, *own = times
    candidates: list[Candidate] = []
    for entrant, each in sorted(zip(entrants, own, strict=True), key=lambda pair: float(np.median(pair[1]))):
        trials = entrant.trials
        candidate = Candidate(
            target=trials.target.name, name=entrant.name, mix=entrant.mix, times=each, faster=_faster(plain, each)
        )
        if entrant.mix.precision != Precision.INT8 or not _decided(candidates, candidate):
            with phase(candidate.label):
                loss = trials.loss(entrant.mix, budget.drift)
            verdict, why = budget.judge(loss)
            candidate = replace(candidate, loss=loss, verdict=verdict, why=why)
            result = why or "within the budget"
            note(f"{candidate.label}: ION {loss.ion.mean:+.4f}, drift {loss.drift.mean:.3f}: {result}")
        candidates.append(candidate)
    return tuple(candidates)


def _decided(faster: Sequence[Candidate], slower: Candidate) -> bool:
    """True if two faster candidates are within the budget, and a slower one is not as fast as either."""
    fitting = [candidate for candidate in faster if candidate.verdict == "within"]
    return len(fitting) > 1 and not any(_level(each.faster_than(slower)) for each in fitting[:2])


def choose(candidates: Sequence[Candidate]) -> Choice | None:
    """Chooses the candidate with the least drift from all candidates within the budget that are equally fast.

    Args:
        candidates: All candidates of a race, fastest first.

    Returns:
        The choice; None if no candidate is within the budget.
    """
    fitting = [candidate for candidate in candidates if candidate.verdict == "within"]
    if not fitting:
        return None
    level = [each for each in fitting if _level(fitting[0].faster_than(each))]
    winner = min(level, key=lambda each: (_drift(each), each.ms))
    outside = [each for each in candidates if each.verdict not in (None, "within") and each.ms < winner.ms]
    others = [each for each in fitting if each is not winner]
    why = "fastest within the budget"
    if winner is not fitting[0]:
        why = f"not significantly slower than {fitting[0].label}, with less drift"
    if outside:
        why += f"; {outside[0].label} is faster, but {outside[0].why}"
    if not others:
        return Choice(winner=winner, why=why)
    return Choice(winner=winner, why=why, runner_up=others[0], lead=winner.faster_than(others[0]))


def _level(gain: Gain) -> bool:
    """True if the speed-up of the faster of two candidates does not count."""
    return gain.low <= EQUAL_SPEED_RATIO and gain.median <= EQUAL_MEDIAN_RATIO


def _drift(candidate: Candidate) -> float:
    """Drift of a judged candidate in steps of `DRIFT_STEP`, ION points."""
    assert candidate.loss
    return float(np.round(candidate.loss.drift.mean / DRIFT_STEP)) * DRIFT_STEP


def _faster(before: Float64, after: Float64) -> Gain:
    return faster(before[:, None], after[:, None])
