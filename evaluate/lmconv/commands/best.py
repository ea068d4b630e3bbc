"""`lmconv best`: one race of all runtimes and precisions, and one answer: what to ship on this machine."""

from __future__ import annotations

import functools
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from lmconv.console import Console, Outcome, attempt, command, phase
from lmconv.errors import UsageError
from lmconv.options import SourceOptions
from lmconv.plugins import TARGETS, unknown
from lmconv.tuning.request import RaceOptions, installed, race_options
from lmconv.tuning.text import NOTE, answer, race_table
from lmconv.types import Precision

if TYPE_CHECKING:
    from lmconv.building.jobs import Job
    from lmconv.tuning.best import Race
    from lmconv.types import Artifact, Json

RACED = (Precision.FP32, Precision.BF16, Precision.INT8)
"""Default precisions. fp16 is for size and for GPUs."""

HELP = """Races all runtimes and precisions that are here, and exports the one to ship on this machine.

Every target is built in fp32, bf16 (where this CPU computes bf16) and int8. All of them, and the plain graph without
denormal numbers in ONNX Runtime, are timed in one run: one thread, batch 1, warm blocks in shuffled order. The loss is
measured on the faces of --calibration: the paired difference of the ION to the source network's ION, and the drift of
the points. int8 is cross-fitted in folds: each face is judged by a network that was calibrated without this face.

The last line is the answer: the fastest artefact within the budget, its lead over the runner-up, and its ION. Where
several are equally fast, the one with the least drift is chosen. The artefact is written to
OUT/MODEL/TARGET-PRECISION/. A second call with the same network, faces and machine measures nothing again.

`lmconv tune` also searches for int8 with some layers in float, which takes minutes.

\b
Examples:
  lmconv best pfld --calibration 300w/
  lmconv best pfld mobilefacenet --calibration 300w/ --json
  lmconv best net.onnx --calibration faces.json --to onnx --precision fp32 --precision int8
"""


@command(name="best", help=HELP, short_help="Race all runtimes and precisions: what to ship here.")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option("--to", "targets", multiple=True, help="Target; may be repeated.  [default: all that are installed here]")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    help="Precision: fp32, fp16, bf16 or int8; may be repeated.  [default: fp32, bf16 and int8]",
)
@race_options
def plugin(console: Console, **options: Any) -> Outcome:
    return _best(console, BestRequest(**options))


@dataclass(frozen=True, slots=True, kw_only=True)
class BestRequest(RaceOptions):
    """Options of `lmconv best`; each field has the name of its option, or of the option's variable."""

    models: tuple[str, ...]
    targets: tuple[str, ...]
    precisions: tuple[str, ...]


def _best(console: Console, request: BestRequest) -> Outcome:
    """Checks the whole request before any work, then races each network and exports its winner."""
    from lmconv.building import effort
    from lmconv.building.jobs import Job
    from lmconv.building.request import Choices
    from lmconv.exporting.networks import check_networks
    from lmconv.store.files import writing
    from lmconv.tuning.best import Race

    precisions, options = _precisions(request), request.source_arguments()
    asked = request.targets or tuple(name for name in TARGETS.names() if TARGETS.load(name).requires() is None)
    for name in asked:
        TARGETS.load(name)
    check_networks(request.models, options)
    faces, budget = request.training_faces(), request.budget()
    outcome = Outcome(document={"answers": []})
    targets = installed(console, asked, outcome.errors)
    if not targets:
        return outcome
    with writing(request.out):
        request.out.mkdir(parents=True, exist_ok=True)
    race = Race(
        targets=targets,
        faces=faces,
        precisions=precisions,
        budget=budget,
        fresh=request.fresh,
        effort=effort.of_command(),
    )
    job = Job(model="", options=options, variants=(), out=request.out, choices=Choices(), console=console, faces=faces)
    with console.progress(2 * len(request.models), "racing") as step:
        for model in request.models:
            action = functools.partial(_answered, race, replace(job, model=model), request, outcome, step)
            attempt(console, action, outcome.errors, model=model)
    outcome.text = "\n\n".join(map(_text, outcome.document["answers"]))
    return outcome


def _precisions(request: BestRequest) -> tuple[Precision, ...]:
    """Returns the precisions to race.

    Raises:
        UsageError: A name is unknown, or is "mixed", for which `lmconv tune` searches.
    """
    known = {str(precision): precision for precision in Precision if precision != Precision.MIXED}
    for name in request.precisions:
        if name == Precision.MIXED:
            raise UsageError("best races uniform precisions", hint="use `lmconv tune`, which searches for a mix")
        if name not in known:
            raise unknown("precision", name, list(known))
    return tuple(known[name] for name in dict.fromkeys(request.precisions)) or RACED


def _answered(race: Race, job: Job, request: BestRequest, outcome: Outcome, step: Any) -> None:
    """Races one network, exports the winner, and adds the answer to the outcome."""
    from lmconv.building.jobs import Done, build_variants, conversion_of
    from lmconv.judging.guard import Guard
    from lmconv.tuning import best
    from lmconv.tuning.documents import chosen_of, speed_of
    from lmconv.types import Variant

    conversion = conversion_of(job)
    with phase(job.model):
        choice, document = best.run(race, conversion, job.console.note)
    step()
    mix, speed = choice.winner.mix, speed_of(chosen_of(document), race.effort)

    def raced(artifact: Artifact) -> Json | None:
        """Returns the speed of the winner; None for its fp32 parent, which is built if the winner is refused."""
        return speed if artifact.precision == mix.precision else None

    guard = Guard(budget=race.budget, faces=race.faces, effort=race.effort, raced=raced)
    variant = Variant(target=choice.winner.target, precision=mix.precision)
    choices = replace(job.choices, decisions=mix.decisions)
    done = Done()
    build_variants(replace(job, variants=(variant,), guard=guard), replace(conversion, choices=choices), done)
    step()
    outcome.errors += done.errors
    document["artifact"] = done.artifacts[0] if done.artifacts else None
    if done.artifacts:
        document["answer"]["path"] = done.artifacts[0]["path"]
        document["command"] = _command(job.model, variant, request, done.artifacts[0]["path"])
    outcome.document["answers"].append(document)


def _command(model: str, variant: Any, request: BestRequest, path: str) -> str:
    """Returns the command that builds an artefact again, with the same decisions."""
    words = ["lmconv", "export", model, "--to", variant.target, "--precision", str(variant.precision)]
    words += ["--calibration", str(request.calibration)]
    words += ["--split", request.split] if request.split != "train" else []
    for name in SourceOptions.__dataclass_fields__:
        option = {"shape": "input", "constants": "constant"}.get(name, name).replace("_", "-")
        value = getattr(request, name)
        for each in value if isinstance(value, tuple) else () if value is None else (value,):
            words += [f"--{option}", str(each)]
    return shlex.join([*words, "--recipe", path])


def _text(document: Json) -> str:
    budget = document["budget"]
    title = (
        f"{document['model']}: {document['faces']} faces in {document['folds']} folds; "
        f"budget {budget['ion']:g} ION points{' (strict)' if budget['strict'] else ''}, drift {budget['drift']:g}"
    )
    lines = [title, "", race_table(document["points"], document["plain_ms"], budget), "", NOTE]
    lines += [f"{target} is left out: {reason}" for target, reason in document["left_out"].items()]
    if "command" in document:
        lines += [
            f"The same again: {document['command']}",
            "",
            f"{answer(document['answer'], document['answer']['path'])}.",
        ]
    return "\n".join(lines)
