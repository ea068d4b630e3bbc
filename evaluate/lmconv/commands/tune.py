"""`lmconv tune`: search for the fastest mix of precisions on a target within a budget of accuracy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from lmconv.console import Console, Outcome, command, table
from lmconv.errors import UsageError
from lmconv.options import TO
from lmconv.plugins import TARGETS
from lmconv.tuning.request import RaceOptions, installed, race_options
from lmconv.tuning.text import NOTE, answer, race_table
from lmconv.types import DEFAULT_TARGET
from lmconv.visual.tables import number

if TYPE_CHECKING:
    from lmconv.building.jobs import Job
    from lmconv.tuning.tune import FaceTuner
    from lmconv.types import Json

HELP = """Searches for the fastest mix of precisions for MODEL within a budget of accuracy, and exports the result.

The search times the precisions of each target on this machine: fp32, bf16, int8, and int8 with some layers in float
if that is faster or loses less. The finalists of all targets, and the plain graph without denormal numbers in ONNX
Runtime, are then timed in one race. The loss is measured on the faces of --calibration: the paired difference of the
ION to the source network's ION, and the drift of the points. int8 is cross-fitted in folds: each face is judged by a
network that was calibrated without this face.

Both means must be within the budget, and the 95 % interval of the ION difference below twice the budget (--strict:
within the budget). If there are too few faces for a verdict, the command says how many faces would be enough.

One artefact a target is written to OUT/MODEL/TARGET-mixed/, even if all layers have the same precision; the last line
says which one to ship. OUT/MODEL/tune-TARGET/ has all measurements, tuned.json and two pictures: front.svg shows time
against drift, layers.svg shows drift and time of every layer, if --layers or the search has measured the layers. An
interrupted search continues from its measurements; a search with another budget reuses them, and the same search is
not repeated.

`lmconv best` races the uniform precisions alone, which is quicker.

\b
Examples:
  lmconv tune pfld --to openvino --calibration 300w/
  lmconv tune mobilefacenet --to onnx --to openvino --calibration 300w/ --budget-ion 0.02 --strict
"""


@command(name="tune", help=HELP, short_help="Find the fastest artefact within a budget of accuracy.")
@click.argument("model")
@click.option("--to", "targets", multiple=True, default=(DEFAULT_TARGET,), show_default=True, help=TO)
@click.option(
    "--time", "limit", default="3m", show_default=True, help="Time for the search of a target, such as 90s, 10m or 1h."
)
@click.option("--layers", is_flag=True, help="Measure and print the drift and time of every layer.")
@race_options
def plugin(console: Console, **options: Any) -> Outcome:
    return _tune(console, TuneRequest(**options))


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRequest(RaceOptions):
    """Options of `lmconv tune`; each field has the name of its option, or of the option's variable."""

    model: str
    targets: tuple[str, ...]
    limit: str
    layers: bool


def _tune(console: Console, request: TuneRequest) -> Outcome:
    """Checks the whole request before any work, then searches for each target and exports the chosen mixes."""
    from dataclasses import replace

    from lmconv.building.jobs import convert
    from lmconv.store.files import writing
    from lmconv.types import Precision, Variant

    outcome = Outcome(document={"artifacts": [], "answer": None})
    _check(request)
    tuner = _tuner(request)
    targets = installed(console, request.targets, outcome.errors)
    if not targets:
        return outcome
    with writing(request.out):
        request.out.mkdir(parents=True, exist_ok=True)
    tuner = replace(tuner, targets=targets)
    variants = tuple(Variant(target=name, precision=Precision.MIXED) for name in targets)
    with console.progress(1 + len(variants), "tuning") as step:
        done = convert(replace(_job(console, request, tuner), variants=variants), step)
    outcome.document["artifacts"] = done.artifacts
    outcome.errors += done.errors
    rows = [row for row in done.artifacts if "tuned" in row]
    if rows:
        outcome.document["answer"] = _answer(rows)
        outcome.text = _text(rows, outcome.document["answer"], with_layers=request.layers)
    return outcome


def _check(request: TuneRequest) -> None:
    """Refuses a request that cannot be carried out.

    Raises:
        UsageError: A target has no precision mixed, or an option does not fit the network.
    """
    from lmconv.sources import resolve as source
    from lmconv.types import Precision

    _seconds(request.limit)
    for name in request.targets:
        if Precision.MIXED not in TARGETS.load(name).precisions:
            hint = "choose a target with precision mixed in `lmconv doctor`"
            raise UsageError(f"target {name} cannot be tuned, because it has no precision mixed", hint=hint)
    source.check_options(request.model, **request.source_arguments())


def _tuner(request: TuneRequest) -> FaceTuner:
    """Returns the tuner, after checking the faces.

    Raises:
        UsageError: No faces are given.
        InputError: The folder of the faces has no known layout.
    """
    from lmconv.building import effort
    from lmconv.tuning.tune import FaceTuner

    return FaceTuner(
        faces=request.training_faces(),
        budget=request.budget(),
        seconds=_seconds(request.limit),
        fresh=request.fresh,
        sensitivity=request.layers,
        effort=effort.of_command(),
    )


def _job(console: Console, request: TuneRequest, tuner: FaceTuner) -> Job:
    """Returns the job of all targets, without variants. The race has timed the chosen mixes for the guard."""
    from lmconv.building.jobs import Job
    from lmconv.building.request import Choices
    from lmconv.judging.guard import Guard

    return Job(
        model=request.model,
        options=request.source_arguments(),
        variants=(),
        out=request.out,
        choices=Choices(),
        console=console,
        faces=tuner.faces,
        guard=Guard(budget=tuner.budget, faces=tuner.faces, effort=tuner.effort, raced=tuner.raced),
        tuner=tuner,
    )


def _seconds(text: str) -> float:
    """Parses a duration such as `90s`, `10m` or `1h`; a number without a unit means seconds."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text)
    if not match:
        raise UsageError(f"--time {text!r} is not a duration", hint="give a duration such as --time 90s, 10m or 1h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _answer(rows: list[Json]) -> Json:
    """Returns the answer of the race with `path`, the folder of the artefact; None if the artefact was refused."""
    answered: Json = rows[0]["tuned"]["answer"]
    paths = {row["target"]: row["path"] for row in rows}
    return answered | {"path": paths.get(answered["target"])}


def _text(rows: list[Json], answered: Json, *, with_layers: bool) -> str:
    tuned = rows[0]["tuned"]
    budget = tuned["budget"]
    title = (
        f"{tuned['model']} for {' and '.join(row['target'] for row in rows)}: {tuned['faces']} faces in "
        f"{tuned['folds']} folds; budget {budget['ion']:g} ION points{' (strict)' if budget['strict'] else ''}, "
        f"drift {budget['drift']:g}"
    )
    points = sorted((point for row in rows for point in row["tuned"]["points"]), key=lambda point: point["ms"])
    parts = [title, race_table(points, tuned["plain_ms"], budget), NOTE]
    if with_layers:
        parts += [_layers(row["tuned"]["layers"]) for row in rows if row["tuned"]["layers"]]
    parts.append("\n".join(_result(row) for row in rows))
    if answered["path"]:
        parts.append(f"{answer(answered, answered['path'])}.")
    return "\n\n".join(parts)


def _result(row: Json) -> str:
    """Returns the line of one target: the choice, and the folders."""
    tuned = row["tuned"]
    chosen = next(point for point in tuned["points"] if point["chosen"])
    return (
        f"{row['path']}: {chosen['name']}, {tuned['why']}; pictures and measurements: {tuned['folder']} "
        f"({tuned['seconds']:.0f} s)"
    )


def _layers(rows: list[Json]) -> str:
    header = ["layer", "in", "drift, only this layer int8", "extra time in float, ms"]
    return table(
        header,
        [
            [row["layer"], "int8" if row["int8"] else "float", f"{row['drift']:.4f}", number(row["cost_ms"], "+.3f")]
            for row in rows
        ],
        left=2,
    )
