"""What `lmconv export` does with each network: all that is asked for, whatever of it fails.

Several networks are converted each in a process of its own: memory is then that of the largest, and one that takes its
process down takes no other with it.
"""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lmconv.console import Console, attempt
from lmconv.errors import InputError
from lmconv.types import Json, ModelSpec, Precision

if TYPE_CHECKING:
    from lmconv.pipeline import Crops
    from lmconv.types import Artifact, Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One network and what shall come of it.

    Attributes:
        model: What the user called it.
        options: The other arguments of `lmconv.source.resolve`.
        wanted: Targets and precisions.
        out: Where artefacts go.
        calibration: A folder of annotated faces, and of which split.
        batch: A fixed batch size, None for a free one.
        console: How much is said.
    """

    model: str
    options: Json
    wanted: tuple[tuple[str, Precision], ...]
    out: Path
    calibration: tuple[Path, str] | None
    batch: int | None
    console: Console


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Rows of `lmconv export --json`, and what went wrong."""

    artifacts: list[Json] = field(default_factory=list)
    errors: list[Json] = field(default_factory=list)


def convert(job: Job, step: Callable[[], object] = lambda: None) -> Done:
    """Converts one network in this process; `step` is called after each part."""
    done = Done()
    attempt(job.console, functools.partial(_convert, job, done, step), done.errors, model=job.model)
    return done


def _convert(job: Job, done: Done, step: Callable[[], object]) -> None:
    from lmconv import pipeline, source

    found = source.resolve(job.model, **job.options)
    crops = _crops(found.spec, *job.calibration) if job.calibration else None
    plain = pipeline.plain(found, job.out, crops=crops)
    for warning in plain.warnings:
        job.console.note(f"{job.model}: {warning}")
    step()
    for target, precision in job.wanted:
        build: Callable[[], Artifact] = functools.partial(
            pipeline.build, plain, target, precision, out=job.out, crops=crops, batch=job.batch
        )
        made = attempt(job.console, build, done.errors, model=job.model, target=target, precision=precision)
        done.artifacts.extend([pipeline.summary(made)] if made else [])
        step()


def convert_apart(job: Job) -> Done:
    """Converts one network in a process of its own."""
    done = Done()
    found = attempt(job.console, functools.partial(_apart, job), done.errors, model=job.model)
    return found or done


def _apart(job: Job) -> Done:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(convert, job).result()
        except BrokenProcessPool as error:
            hint = "out of memory? convert it alone, and see what the system says"
            raise InputError(f"the process that converted {job.model} was killed", hint=hint) from error


def _crops(spec: ModelSpec, folder: Path, split: str) -> Crops:
    @functools.cache
    def crops() -> Float32:
        from lmconv.crops import calibration

        return calibration(folder, spec, split)

    return crops
