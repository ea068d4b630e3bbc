"""The options of `lmconv export`, as typed by the user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmconv.errors import UsageError
from lmconv.options import SourceOptions
from lmconv.types import Cpu, Io, Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest(SourceOptions):
    """Options of `lmconv export`; each field has the name of its option, or of the option's variable.

    Attributes:
        without: Names of the passes in `--no-PASS`.
    """

    models: tuple[str, ...]
    everything: bool
    targets: tuple[str, ...]
    precisions: tuple[str, ...]
    ios: tuple[Io, ...]
    out: Path
    random_weights: bool
    seed: int | None
    calibration: Path | None
    split: str
    compact_px: float | None
    cpu: Cpu | None
    exact: bool
    recipes: tuple[Path, ...]
    explain: bool
    budget_ion: float | None
    budget_drift: float | None
    force: bool
    no_guard: bool
    batch: str
    workspace: str | None
    builder_level: int | None
    timing_cache: Path | None
    locked: bool
    version_compatible: bool
    hardware_compatible: bool
    without: tuple[str, ...]

    def network_options(self) -> Json:
        """Returns the arguments of `lmconv.sources.resolve.resolve`, without the model.

        Raises:
            UsageError: An option cannot be parsed, or `--seed` stands without `--random-weights`.
        """
        if self.seed is not None and not self.random_weights:
            raise UsageError("--seed is for random weights", hint="add --random-weights, or omit --seed")
        return self.source_arguments((self.seed or 0) if self.random_weights else None)

    def needs_faces(self, option: str) -> None:
        """Refuses an option that needs faces if the user gave no faces.

        Raises:
            UsageError: `--calibration` is missing.
        """
        if self.calibration is None:
            hint = "give --calibration DIR, a folder of annotated training faces"
            raise UsageError(f"{option} needs real faces, and no faces are given", hint=hint)
