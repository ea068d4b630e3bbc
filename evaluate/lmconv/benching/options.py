"""Options and result of a benchmark, on the CPU or a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Literal

from lmconv.errors import LmconvError
from lmconv.inference.latency import BLOCK, ROUNDS, Block
from lmconv.types import Json, OpenOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingOptions:
    """Options of a benchmark.

    Attributes:
        device: Device that runs the artefacts.
        threads: Number of intra-op threads on the CPU, of each stream.
        batch: Number of inputs per run.
        samples: Number of timed runs per artefact.
        baselines: True to time the baselines too.
        cold: True to time cold runs too.
        streams: Number of runs at the same time for the throughput; None for no throughput.
        weights: Checkpoint of the network, or a folder to search first, see `lmconv.sources.resolve.recover`.
        model: `FILE.py:NAME` of a user's own network, see `recover`; None if the user named no code to run.
        trust: See `OpenOptions`.
    """

    device: Literal["cpu", "gpu"] = "cpu"
    threads: int = 1
    batch: int = 1
    samples: int = 200
    baselines: bool = True
    cold: bool = False
    streams: int | None = None
    weights: Path | None = None
    model: str | None = None
    trust: bool = False

    @property
    def rounds(self) -> int:
        """Number of rounds of blocks on the CPU."""
        return max(ROUNDS, ceil(self.samples / BLOCK.timed))

    @property
    def block(self) -> Block:
        """Block of an artefact on the CPU; smaller than `BLOCK` if there are few samples for the rounds."""
        return Block(timed=ceil(self.samples / self.rounds))

    @property
    def open_options(self) -> OpenOptions:
        """Options for opening an artefact."""
        return OpenOptions(device=self.device, threads=self.threads, trust=self.trust)


@dataclass(slots=True, kw_only=True)
class Rows:
    """Result of a benchmark.

    Attributes:
        artifacts: Rows of `lmconv bench --json` for the artefacts.
        baselines: Rows for the baselines.
        notes: Messages for the user.
        failed: Errors of failed artefacts by path.
    """

    artifacts: list[Json] = field(default_factory=list)
    baselines: list[Json] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: dict[str, LmconvError] = field(default_factory=dict)
