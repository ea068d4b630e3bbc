"""What `lmconv export` does with each network: all that is asked for, whatever of it fails.

Several networks are converted each in a process of its own: memory is then that of the largest, and one that takes its
process down takes no other with it.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lmconv.console import Console, attempt
from lmconv.errors import InputError, OtherPoints, Refused, UsageError
from lmconv.types import Io, Json, ModelSpec, Precision

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from lmconv.judging.guard import Guard
    from lmconv.judging.loss import Budget
    from lmconv.pipeline import Choices, Crops, Plain
    from lmconv.tuning.tune import Options
    from lmconv.types import Artifact

FIGURES = (
    "execution",
    "bytes",
    "weights",
    "parameters",
    "flops",
    "source_parameters",
    "source_flops",
    "seconds",
    "guard",
)
"""Figures of an artefact in its row of `lmconv export --json`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One network and what shall come of it.

    Attributes:
        model: What the user called it.
        options: The other arguments of `lmconv.sources.resolve.resolve`.
        wanted: Targets, precisions, and what the artefacts take.
        out: Where artefacts go.
        calibration: A folder of annotated faces, and of which split.
        batch: A fixed batch size, None for a free one.
        choices: See `pipeline.Choices`.
        explain: Whether to time what each pass bought.
        guard: What happens to an artefact that is slower than its parent or outside its budget: it is refused, or
            written all the same, or not even judged.
        budget: How much may be lost on the faces.
        console: How much is said.
        tuning: How "mixed" is chosen, where `choices` do not say what it is.
    """

    model: str
    options: Json
    wanted: tuple[tuple[str, Precision, Io], ...]
    out: Path
    calibration: tuple[Path, str] | None
    batch: int | None
    choices: Choices
    explain: bool
    guard: Literal["refuse", "force", "skip"]
    budget: Budget
    console: Console
    tuning: Options | None = None


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
    from lmconv import pipeline
    from lmconv.sources import resolve as source

    found = source.resolve(job.model, **job.options)
    crops = _crops(job, found.spec)
    plain = pipeline.plain(found, job.out, crops=crops)
    for warning in plain.warnings:
        job.console.note(f"{job.model}: {warning}")
    step()
    with tempfile.TemporaryDirectory() as place:
        guard = _guard(job, plain, crops, Path(place))
        for target, precision, io in job.wanted:
            _attempt(job, plain, target, precision, io, guard, done)
            step()


def _guard(job: Job, plain: Plain, crops: Crops | None, place: Path) -> Guard:
    from lmconv.judging.guard import Guard

    return Guard(
        base=plain,
        budget=job.budget,
        calibration=job.calibration,
        crops=crops,
        batch=job.batch,
        choices=job.choices,
        out=job.out,
        place=place,
        force=job.guard == "force",
    )


def _attempt(job: Job, plain: Plain, target: str, precision: Precision, io: Io, guard: Guard, done: Done) -> None:
    """Builds one artefact; where it is refused, its fp32 parent, unless that is there or will be."""
    from lmconv import pipeline

    make: Callable[[], Json] = functools.partial(_make, job, plain, target, precision, io, guard)
    if made := attempt(job.console, make, done.errors, model=job.model, target=target, precision=precision):
        done.artifacts.append(made)
        return
    parent = (target, Precision.FP32, io)
    there = (job.out / plain.artifact.spec.name / pipeline.folder(*parent)).exists()
    if done.errors[-1]["kind"] != Refused.kind or there or parent in job.wanted:
        return
    job = replace(job, choices=replace(job.choices, recipe=None, mix=None))
    make = functools.partial(_make, job, plain, target, Precision.FP32, io, guard)
    if kept := attempt(job.console, make, done.errors, model=job.model, target=target, precision=Precision.FP32):
        done.artifacts.append(kept | {"kept_for": pipeline.folder(target, precision, io)})


def _make(job: Job, plain: Plain, target: str, precision: Precision, io: Io, guard: Guard) -> Json:
    """Builds one artefact; gives what `lmconv export --json` says of it."""
    from lmconv import pipeline
    from lmconv.store import artifact as artifacts
    from lmconv.store.summary import summary

    def judge(artifact: Artifact) -> Json:
        return {"skipped": "--no-guard"} if job.guard == "skip" else guard.judge(artifact)

    tuned: Json = {}
    if precision == Precision.MIXED and job.choices.mix is None:
        job, tuned = _tuned(job, plain, target, guard.crops)
    artifact = pipeline.build(
        plain,
        target,
        precision,
        out=job.out,
        crops=guard.crops,
        batch=job.batch,
        io=io,
        choices=job.choices,
        judge=judge,
    )
    budget = (artifact.measured.get("guard") or {}).get("budget", {})
    few = f"not enough faces to judge it: {budget['reason']}" if budget.get("verdict") == "too few faces" else ""
    for warning in (*artifact.measured["warnings"], artifacts.doubt(artifact), few):
        if warning:
            job.console.note(f"{artifact.path}: {warning}")
    row = summary(artifact, *FIGURES) | tuned
    if job.explain and io == job.wanted[0][2]:  # what an artefact takes makes no difference to its passes
        from lmconv.building.explain import explain

        row["explained"] = explain(plain, artifact, job.choices, guard.crops)
    return row


def _tuned(job: Job, plain: Plain, target: str, crops: Crops | None) -> tuple[Job, Json]:
    """Chooses what "mixed" is, on the faces of a job; what was found goes to the artefact's row as `tuned`."""
    from lmconv.tuning.tune import Options, tune

    if job.calibration is None:
        hint = "give --calibration DIR, a folder of annotated training faces"
        raise UsageError("what is mixed is chosen on real faces, and none are named", hint=hint)
    options = job.tuning or Options()
    mix, found = tune(plain, target, job.choices, crops, job.calibration, job.out, options, job.console.note)
    chosen = replace(job.choices, mix=mix, pictures=tuple(found["pictures"]))
    return replace(job, choices=chosen), {"tuned": {key: part for key, part in found.items() if key != "pictures"}}


def convert_apart(job: Job, step: Callable[[int], object] = lambda parts: None) -> Done:
    """Converts one network in a process of its own; `step` is called with the number of its parts."""
    done = Done()
    found = attempt(job.console, functools.partial(_apart, job), done.errors, model=job.model)
    step(1 + len(job.wanted))
    return found or done


def _apart(job: Job) -> Done:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(job, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        done: Done = ours.recv()
    except EOFError as error:
        process.join()
        hint = "out of memory? convert it alone, and see what the system says"
        message = f"the process that converted {job.model} ended with {process.exitcode}"
        raise InputError(message, hint=hint) from error
    process.join()
    return done


def _send(job: Job, to: Connection) -> None:
    # Whoever started this says so, or is gone.
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError), job.console.logs():
        to.send(convert(job))


def _crops(job: Job, spec: ModelSpec) -> Crops | None:
    """The faces of a job, cut out when they are first needed; none where they have another number of points."""
    if job.calibration is None:
        return None
    from lmconv.faces.crops import calibrated, calibration, check
    from lmconv.pipeline import Crops

    folder, split = job.calibration
    if spec.detects:
        job.console.note(f"{job.model}: a detector is not compared on faces: those in {folder} are left out")
        return None
    try:
        check(folder, split, spec)
    except OtherPoints as error:
        job.console.note(f"{error.message}: they are left out")
        return None
    return Crops(
        cut=functools.cache(functools.partial(calibration, folder, spec, split)),
        pictures=functools.cache(functools.partial(calibrated, folder, spec, split)),
    )
