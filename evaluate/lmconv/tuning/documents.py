"""JSON documents of a race, and the sentence that answers what to ship."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from lmconv.building.effort import Effort
from lmconv.tuning.race import Candidate, Choice
from lmconv.types import Json


def point_of(candidate: Candidate, candidates: Sequence[Candidate], winner: Candidate) -> Json:
    """Describes a candidate among the candidates of its table."""
    return {
        "target": candidate.target,
        "name": candidate.name,
        "mix": asdict(candidate.mix),
        "ms": candidate.ms,
        "faster": candidate.faster.to_json(),
        "loss": candidate.loss.to_json() if candidate.loss else None,
        "verdict": candidate.verdict,
        "why": candidate.why,
        "front": _is_pareto_optimal(candidate, candidates),
        "chosen": candidate is winner,
    }


def _is_pareto_optimal(candidate: Candidate, candidates: Sequence[Candidate]) -> bool:
    """True if no other judged candidate has both a smaller time and a smaller mean drift."""
    if candidate.loss is None:
        return False
    drift = candidate.loss.drift.mean
    return not any(other.ms < candidate.ms and other.loss.drift.mean < drift for other in candidates if other.loss)


def answer_of(choice: Choice) -> Json:
    """Describes the winner of a race, and its lead over the runner-up."""
    winner, other = choice.winner, choice.runner_up
    assert winner.loss
    return {
        "target": winner.target,
        "precision": str(winner.mix.precision),
        "name": winner.name,
        "ms": winner.ms,
        "faster": winner.faster.to_json(),
        "loss": winner.loss.to_json(),
        "why": choice.why,
        "runner_up": {"target": other.target, "name": other.name, "ms": other.ms} if other else None,
        "lead": choice.lead.to_json() if choice.lead else None,
        "equally_fast": choice.level,
    }


def chosen_of(document: Json) -> Json:
    """Returns the chosen point of a document."""
    point: Json = next(point for point in document["points"] if point["chosen"])
    return point


def speed_of(point: Json, effort: Effort) -> Json:
    """Returns the speed of a point in the form of `lmconv.judging.guard`: time relative to that of the plain graph."""
    gain = point["faster"]
    ratio = {"median": 1 / gain["median"], "low": 1 / gain["high"], "high": 1 / gain["low"]}
    against = "the plain graph without denormal numbers in ONNX Runtime"
    return {"against": against, "limit": effort.slower, "ratio": ratio, "threads": 1, "verdict": "passed"}
