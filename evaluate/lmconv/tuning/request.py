"""Options that `lmconv best` and `lmconv tune` share: faces, budget, stored measurements, folder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lmconv.building.limits import DRIFT_BUDGET, ION_BUDGET
from lmconv.console import Console, Finite, attempt
from lmconv.errors import MissingRuntime, UsageError
from lmconv.options import OUT, SPLIT, WEIGHTS, SourceOptions, source_options
from lmconv.plugins import TARGETS

if TYPE_CHECKING:
    from lmconv.faces.training import TrainingFaces
    from lmconv.judging.loss import Budget
    from lmconv.types import Json

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS = (
    click.option(
        "--calibration",
        type=click.Path(path_type=Path),
        envvar="LMCONV_FACES",
        show_envvar=True,
        help="Folder or file of annotated training faces; do not use the same faces to report ION.",
    ),
    click.option(
        "--split", type=click.Choice(["train", "test", "all"]), default="train", show_default=True, help=SPLIT
    ),
    click.option(
        "--budget-ion",
        type=Finite(0),
        default=ION_BUDGET,
        show_default=True,
        help="Largest rise of the mean ION, ION points.",
    ),
    click.option(
        "--budget-drift",
        type=Finite(0),
        default=DRIFT_BUDGET,
        show_default=True,
        help="Largest mean drift, ION points.",
    ),
    click.option("--strict", is_flag=True, help="Require the 95 % interval of the ION rise to be within the budget."),
    click.option("--fresh", is_flag=True, help="Discard the measurements of earlier runs."),
    click.option("--out", type=click.Path(path_type=Path), default="build", show_default=True, help=OUT),
    click.option("--weights", type=click.Path(path_type=Path), help=WEIGHTS),
)


def race_options(command: F) -> F:
    """Adds the options of `RaceOptions`."""
    command = source_options(command)
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceOptions(SourceOptions):
    """Base class of the requests: values of `race_options`; each field has the name of its option."""

    calibration: Path | None
    split: str
    budget_ion: float
    budget_drift: float
    strict: bool
    fresh: bool
    out: Path

    def budget(self) -> Budget:
        """Returns the budget."""
        from lmconv.judging.loss import Budget

        return Budget(ion=self.budget_ion, drift=self.budget_drift, strict=self.strict)

    def training_faces(self) -> TrainingFaces:
        """Returns the faces, after checking the layout of their folder.

        Raises:
            UsageError: No faces are given.
            InputError: The folder has no known layout.
        """
        from lmconv.faces.lookup import find_dataset
        from lmconv.faces.training import TrainingFaces

        if self.calibration is None:
            hint = "give --calibration DIR, a folder of annotated training faces"
            raise UsageError("int8 and the loss of ION need real faces, and no faces are given", hint=hint)
        find_dataset(self.calibration)
        return TrainingFaces(folder=self.calibration, split=self.split)


def installed(console: Console, targets: Iterable[str], errors: list[Json]) -> tuple[str, ...]:
    """Returns the targets whose runtime is installed; adds an error for each of the others."""
    names = dict.fromkeys(targets)
    return tuple(
        name for name in names if attempt(console, functools.partial(_require, name), errors, target=name) is not None
    )


def _require(target: str) -> bool:
    """Returns True if the target's runtime is installed.

    Raises:
        MissingRuntime: The runtime is missing.
    """
    if missing := TARGETS.load(target).requires():
        raise MissingRuntime(f"target {target} cannot be built here", hint=missing)
    return True
