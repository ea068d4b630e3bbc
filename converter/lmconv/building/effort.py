"""Effort of measurements that decide: an object, so that a caller can measure less, as the tests do."""

from __future__ import annotations

from dataclasses import dataclass

from lmconv.building.limits import SLOWER


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """Effort of the guard of `lmconv export`, of the race of `lmconv best` and of the search of `lmconv tune`.

    Attributes:
        slower: Largest ratio of an artefact's time to its parent's time, see `lmconv.building.limits.SLOWER`.
        guard_rounds: Largest number of rounds in which an artefact and its parent are timed.
        guard_seconds: Largest time for these runs, seconds.
        guard_attempts: Number of times that an artefact must be slower before it is refused: other work on the machine
            may disturb one attempt.
        screening_seconds: Time for a first comparison of some mixes of precisions, seconds.
        race_seconds: Time for the last comparison of all candidates, seconds.
        race_rounds: Smallest number of rounds of this comparison, also beside other work on the machine.
    """

    slower: float = SLOWER
    guard_rounds: int = 10
    guard_seconds: float = 20.0
    guard_attempts: int = 2
    screening_seconds: float = 1.5
    race_seconds: float = 12.0
    race_rounds: int = 20


DEFAULT = Effort()


def of_command() -> Effort:
    """Returns the effort that `lmconv.cli.run` received, inside a command; `DEFAULT` without one."""
    import click

    return click.get_current_context().find_object(Effort) or DEFAULT
