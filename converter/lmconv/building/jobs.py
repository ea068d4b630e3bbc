"""Converts whole networks for `lmconv export`: every variant is tried, and failures are collected.

Several networks are converted in one process each: peak memory is that of the largest network, and a network that kills
its process stops no other.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lmconv.console import Console, announce, announced, attempt, phase
from lmconv.errors import InputError, Refused, UsageError
from lmconv.types import Json, MixedPrecision, ModelSpec, Precision, Variant

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from lmconv.building.request import Choices, Conversion, Crops
    from lmconv.types import Artifact

ROW = (
    "execution",
    "bytes",
    "weights",
    "parameters",
    "flops",
    "source_parameters",
    "source_flops",
    "seconds",
    "guard",
    "int8",
)
"""Keys of a row of `lmconv export --json` after the identity of the artefact, see `lmconv.store.summary`."""


class Faces(Protocol):
    """Annotated training faces."""

    @property
    def folder(self) -> Path:
        """Folder of the faces, for messages."""
        ...

    def crops(self, spec: ModelSpec) -> Crops:
        """Returns the crops for a network."""
        ...


class Guard(Protocol):
    """Rules for refusing artefacts that are slower than their parent or lose too much on faces."""

    def judge(self, conversion: Conversion, place: Path) -> Callable[[Artifact], Json]:
        """Returns the judge of one network's artefacts; `place` is a temporary folder for their parents.

        The judge returns its figures, and raises `Refused`.
        """
        ...


class Tuner(Protocol):
    """Chooses the content of precision "mixed"."""

    def tune(self, conversion: Conversion, target: str, note: Callable[[str], object]) -> tuple[MixedPrecision, Json]:
        """Returns the choice, and a document about the search with the faces' identities as `pictures`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One network and the variants to build.

    Attributes:
        model: The network, as the user typed its name.
        options: The other arguments of `lmconv.sources.resolve.resolve`.
        variants: The variants to build.
        out: Folder of all artefacts.
        choices: User options for building the graph.
        recipes: Earlier artefacts; each variant repeats the one of the same network, target and precision.
        console: Receives notes and errors.
        faces: Faces for calibration and comparison; None if none are given.
        guard: Refuses artefacts; None if the user switched the guard off.
        tuner: Chooses "mixed" where `choices` does not; None where no faces are given.
        explain: True if the gain of each pass is to be measured.
    """

    model: str
    options: Json
    variants: tuple[Variant, ...]
    out: Path
    choices: Choices
    console: Console
    recipes: tuple[Artifact, ...] = ()
    faces: Faces | None = None
    guard: Guard | None = None
    tuner: Tuner | None = None
    explain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Rows of `lmconv export --json` for the artefacts, and the errors."""

    artifacts: list[Json] = field(default_factory=list)
    errors: list[Json] = field(default_factory=list)


def convert(job: Job, step: Callable[[], object] = lambda: None) -> Done:
    """Converts one network in this process; calls `step` after each part."""
    done = Done()
    attempt(job.console, functools.partial(_convert, job, done, step), done.errors, model=job.model)
    return done


def _convert(job: Job, done: Done, step: Callable[[], object]) -> None:
    conversion = conversion_of(job)
    step()
    build_variants(job, conversion, done, step)


def conversion_of(job: Job) -> Conversion:
    """Resolves the network of a job and makes its plain graph.

    Raises:
        LmconvError: The network is unknown, broken or refused.
    """
    from lmconv.building.plain import plain_graph
    from lmconv.building.request import Conversion
    from lmconv.sources.resolve import resolve

    batch = job.variants[0].batch if job.variants else None
    with phase(f"{job.model} plain graph"):
        source = resolve(job.model, **job.options)
        crops = _crops(job, source.spec)
        base = plain_graph(source, job.out, crops=crops, batch=batch)
    for warning in base.warnings:
        job.console.note(f"{job.model}: {warning}")
    return Conversion(base=base, out=job.out, crops=crops, choices=job.choices)


def build_variants(job: Job, conversion: Conversion, done: Done, step: Callable[[], object] = lambda: None) -> None:
    """Builds every variant of a job; calls `step` after each variant."""
    from lmconv.networks.interfaces import folder_name

    with tempfile.TemporaryDirectory() as place:
        judge = job.guard.judge(conversion, Path(place)) if job.guard else lambda artifact: {"skipped": "--no-guard"}
        for variant in job.variants:
            with phase(f"{conversion.base.artifact.spec.name} {folder_name(variant)}"):
                _attempt(job, conversion, variant, judge, done)
            step()


def _attempt(job: Job, conversion: Conversion, variant: Variant, judge: Callable[[Artifact], Json], done: Done) -> None:
    """Builds one variant; if the variant is refused, builds its fp32 parent unless that exists or is also wanted."""
    from lmconv.networks.interfaces import folder_name

    row = _row(job, conversion, variant, judge, done)
    if row is not None:
        done.artifacts.append(row)
        return
    parent = replace(variant, precision=Precision.FP32)
    exists = (job.out / conversion.base.artifact.spec.name / folder_name(parent)).exists()
    if done.errors[-1]["kind"] != Refused.kind or exists or parent in job.variants:
        return
    conversion = replace(conversion, choices=replace(job.choices, recipe=None, mix=None, decisions={}))
    row = _row(job, conversion, parent, judge, done)
    if row is not None:
        done.artifacts.append(row | {"kept_for": folder_name(variant)})


def _row(
    job: Job, conversion: Conversion, variant: Variant, judge: Callable[[Artifact], Json], done: Done
) -> Json | None:
    """Builds one variant; returns its row of `lmconv export --json`, or None after adding an error."""
    make = functools.partial(_make, job, conversion, variant, judge)
    label = {"model": job.model, "target": variant.target, "precision": variant.precision}
    return attempt(job.console, make, done.errors, **label)


def _make(job: Job, conversion: Conversion, variant: Variant, judge: Callable[[Artifact], Json]) -> Json:
    from lmconv.building.assembling import build
    from lmconv.building.recipe import needs_tuning
    from lmconv.store import artifact as artifacts
    from lmconv.store.summary import summary

    tuned: Json = {}
    if job.recipes:
        recipe = _recipe_of(job, conversion.base.artifact, variant)
        conversion = replace(conversion, choices=conversion.choices.repeating(recipe))
    if needs_tuning(variant, conversion.choices):
        conversion, tuned = _tuned(job, conversion, variant.target)
    artifact = build(conversion, variant, judge)
    budget = (artifact.measured.get("guard") or {}).get("budget", {})
    few = f"not enough faces to judge it: {budget['reason']}" if budget.get("verdict") == "too few faces" else ""
    for warning in (*artifact.measured["warnings"], artifacts.forced_reason(artifact), few):
        if warning:
            job.console.note(f"{artifact.path}: {warning}")
    row = summary(artifact, *ROW) | tuned
    if job.explain and variant.io == job.variants[0].io:  # the input of an artefact does not change its passes
        from lmconv.building.explain import explain

        row["explained"] = explain(conversion, artifact)
    return row


def _recipe_of(job: Job, base: Artifact, variant: Variant) -> Artifact:
    """Returns the artefact of `--recipe` that a variant repeats.

    Raises:
        UsageError: No artefact is of the network.
    """
    kind = [each for each in job.recipes if (each.target, each.precision) == (variant.target, variant.precision)]
    source = base.parents["source"]["sha256"]
    own = [each for each in kind if each.parents["source"]["sha256"] == source] or [
        each for each in kind if each.spec.name == base.spec.name or len(job.recipes) == 1
    ]
    if not own:
        what = f"{base.spec.name} as {variant.target} {variant.precision}"
        raise UsageError(f"--recipe has no artefact of {what}", hint="name its folder with another --recipe")
    return min(own, key=lambda each: each.spec.io != variant.io)


def _tuned(job: Job, conversion: Conversion, target: str) -> tuple[Conversion, Json]:
    """Chooses the content of "mixed"; the document of the search becomes `tuned` in the artefact's row."""
    if job.tuner is None:
        hint = "give --calibration DIR, a folder of annotated training faces"
        raise UsageError("what is mixed is chosen on real faces, and none are named", hint=hint)
    mix, document = job.tuner.tune(conversion, target, job.console.note)
    pictures = tuple(document.pop("pictures"))
    choices = replace(conversion.choices, mix=mix, pictures=pictures)
    return replace(conversion, choices=choices), {"tuned": document}


def convert_apart(job: Job, step: Callable[[int], object] = lambda parts: None) -> Done:
    """Converts one network in a process of its own; calls `step` with the number of parts that are finished."""
    done, left = Done(), 1 + len(job.variants)

    def stepped(parts: int) -> None:
        nonlocal left
        left -= parts
        step(parts)

    result = attempt(job.console, functools.partial(_apart, job, stepped), done.errors, model=job.model)
    step(left)
    return result or done


def _apart(job: Job, step: Callable[[int], object]) -> Done:
    """Runs the process; it sends the number of finished parts, the names of open phases, and at the end the result."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(job, sender), daemon=True)
    process.start()
    sender.close()
    try:
        while not isinstance(received := receiver.recv(), Done):
            (step if isinstance(received, int) else announce)(received)
    except EOFError as error:
        process.join()
        hint = "out of memory? convert it alone, and see what the system says"
        message = f"the process that converted {job.model} ended with {process.exitcode}"
        raise InputError(message, hint=hint) from error
    process.join()
    return received


def _send(job: Job, to: Connection) -> None:
    # The parent process reports an interrupt, or has ended.
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError), job.console.logs(), announced(to.send):
        to.send(convert(job, functools.partial(to.send, 1)))


def _crops(job: Job, spec: ModelSpec) -> Crops | None:
    """Returns the face crops of a job; None without faces, or for a detector."""
    from lmconv.networks.heads import head_of

    if job.faces is None:
        return None
    if not head_of(spec).on_faces:
        job.console.note(f"{job.model}: a detector is not compared on faces: those in {job.faces.folder} are left out")
        return None
    crops = job.faces.crops(spec)
    if crops.note:
        job.console.note(crops.note)
    return crops
