"""`lmconv tune`: search for the fastest mix of precisions on a target within a budget of accuracy."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmconv.building.limits import DRIFT_BUDGET, ION_BUDGET
from lmconv.console import Console, Finite, Outcome, attempt, command, table
from lmconv.errors import MissingRuntime, UsageError
from lmconv.options import OUT, SPLIT, TO, WEIGHTS, SourceOptions, source_options
from lmconv.plugins import TARGETS
from lmconv.types import DEFAULT_TARGET
from lmconv.visual.tables import number

if TYPE_CHECKING:
    from lmconv.building.jobs import Job
    from lmconv.types import Json

HELP = """Searches for the fastest mix of precisions for MODEL within a budget of accuracy, and exports the result.

The search times all precisions of a target on this machine, on the compacted graph: fp32, fp16, bf16, int8, and int8
with some layers in float if that is faster or loses less. The loss is measured on the faces of --calibration: the
paired difference of the ION to the source network's ION, and the drift of the points. int8 is cross-fitted in five
folds: each face is judged by a network that was calibrated without this face.

Both means must be within the budget, and the 95 % interval of the ION difference below twice the budget (--strict:
within the budget). If there are too few faces for a verdict, the command says how many faces would be enough.

The artefact is written to OUT/MODEL/TARGET-mixed/, even if all layers have the same precision. OUT/MODEL/tune-TARGET/
has all measurements, tuned.json and two pictures: front.svg shows time against drift, layers.svg shows drift and time
of every layer. An interrupted search continues from its measurements; a search with another budget reuses them.

\b
Examples:
  lmconv tune pfld --to openvino --calibration 300w/
  lmconv tune mobilefacenet --to onnx --to openvino --calibration 300w/ --budget-ion 0.02 --strict
"""


@command(name="tune", help=HELP, short_help="Find the fastest artefact within a budget of accuracy.")
@click.argument("model")
@click.option("--to", "targets", multiple=True, default=(DEFAULT_TARGET,), show_default=True, help=TO)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    envvar="LMCONV_FACES",
    show_envvar=True,
    help="Folder or file of annotated training faces; do not use the same faces to report ION.",
)
@click.option("--split", type=click.Choice(["train", "test", "all"]), default="train", show_default=True, help=SPLIT)
@click.option(
    "--budget-ion",
    type=Finite(0),
    default=ION_BUDGET,
    show_default=True,
    help="Largest rise of the mean ION, ION points.",
)
@click.option(
    "--budget-drift", type=Finite(0), default=DRIFT_BUDGET, show_default=True, help="Largest mean drift, ION points."
)
@click.option("--strict", is_flag=True, help="Require the 95 % interval of the ION rise to be within the budget.")
@click.option(
    "--time", "limit", default="5m", show_default=True, help="Time for the search of a target, such as 90s, 10m or 1h."
)
@click.option("--fresh", is_flag=True, help="Discard the measurements of earlier searches.")
@click.option("--layers", is_flag=True, help="Print the drift and time of every layer.")
@click.option("--out", type=click.Path(path_type=Path), default="build", show_default=True, help=OUT)
@click.option("--weights", type=click.Path(path_type=Path), help=WEIGHTS)
@source_options
def plugin(console: Console, **options: Any) -> Outcome:
    return _tune(console, TuneRequest(**options))


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRequest(SourceOptions):
    """Options of `lmconv tune`; each field has the name of its option, or of the option's variable."""

    model: str
    targets: tuple[str, ...]
    calibration: Path | None
    split: str
    budget_ion: float
    budget_drift: float
    strict: bool
    limit: str
    fresh: bool
    layers: bool
    out: Path


def _tune(console: Console, request: TuneRequest) -> Outcome:
    """Checks the whole request before any work, then searches for each target and exports the chosen mix."""
    from lmconv.building.jobs import convert
    from lmconv.store.files import writing
    from lmconv.types import Precision, Variant

    job = _job(console, request)
    with writing(request.out):
        request.out.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(document={"artifacts": []})
    for name in dict.fromkeys(request.targets):
        if attempt(console, functools.partial(_require, name), outcome.errors, target=name) is None:
            continue
        done = convert(replace(job, variants=(Variant(target=name, precision=Precision.MIXED),)))
        outcome.document["artifacts"] += done.artifacts
        outcome.errors += done.errors
    rows = [row for row in outcome.document["artifacts"] if "tuned" in row]
    outcome.text = "\n\n".join(_text(row, request.layers) for row in rows)
    return outcome


def _job(console: Console, request: TuneRequest) -> Job:
    """Returns the job of all targets, without variants, after checking the request.

    Raises:
        UsageError: A target has no precision mixed, an option does not fit the network, or no faces are given.
        InputError: The folder of the faces has no known layout.
    """
    from lmconv.building import effort
    from lmconv.building.jobs import Job
    from lmconv.building.request import Choices
    from lmconv.faces.lookup import find_dataset
    from lmconv.faces.training import TrainingFaces
    from lmconv.judging.guard import Guard
    from lmconv.judging.loss import Budget
    from lmconv.sources import resolve as source
    from lmconv.tuning.tune import FaceTuner
    from lmconv.types import Precision

    seconds, options, measuring = _seconds(request.limit), request.source_arguments(), effort.of_command()
    for name in request.targets:
        if Precision.MIXED not in TARGETS.load(name).precisions:
            hint = "choose a target with precision mixed in `lmconv doctor`"
            raise UsageError(f"target {name} cannot be tuned, because it has no precision mixed", hint=hint)
    source.check_options(request.model, **options)
    if request.calibration is None:
        hint = "give --calibration DIR, a folder of annotated training faces"
        raise UsageError("tuning needs real faces, and no faces are given", hint=hint)
    find_dataset(request.calibration)
    budget = Budget(ion=request.budget_ion, drift=request.budget_drift, strict=request.strict)
    faces = TrainingFaces(folder=request.calibration, split=request.split)
    return Job(
        model=request.model,
        options=options,
        variants=(),
        out=request.out,
        choices=Choices(),
        console=console,
        faces=faces,
        guard=Guard(budget=budget, faces=faces, effort=measuring),
        tuner=FaceTuner(faces=faces, budget=budget, seconds=seconds, fresh=request.fresh, effort=measuring),
    )


def _require(target: str) -> bool:
    """Returns True if the target's runtime is installed.

    Raises:
        MissingRuntime: The runtime is missing.
    """
    if missing := TARGETS.load(target).requires():
        raise MissingRuntime(f"target {target} cannot be built here", hint=missing)
    return True


def _seconds(text: str) -> float:
    """Parses a duration such as `90s`, `10m` or `1h`; a number without a unit means seconds."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text)
    if not match:
        raise UsageError(f"--time {text!r} is not a duration", hint="give a duration such as --time 90s, 10m or 1h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _text(row: Json, with_layers: bool) -> str:
    tuned = row["tuned"]
    budget = tuned["budget"]
    title = (
        f"{tuned['model']} for {tuned['target']}: {tuned['faces']} faces in {tuned['folds']} folds; "
        f"budget {budget['ion']:g} ION points{' (strict)' if budget['strict'] else ''}, drift {budget['drift']:g}"
    )
    header = ["", "computed in", "ms", "times faster than fp32", "drift", "ION, paired", "faces", "budget"]
    rows = [_point(point) for point in tuned["points"]]
    parts = [
        title,
        table(header, rows, left=2),
        f"*: no other row has both less time and less drift. Chosen: {_chosen(tuned)['name']}: {tuned['why']}.\n"
        f"{row['path']}; the search took {tuned['seconds']:.0f} s; pictures and measurements: {tuned['folder']}",
    ]
    if with_layers and tuned["layers"]:
        parts.insert(2, _layers(tuned["layers"]))
    return "\n\n".join(parts)


def _chosen(tuned: Json) -> Json:
    chosen: Json = next(point for point in tuned["points"] if point["chosen"])
    return chosen


def _point(point: Json) -> list[str]:
    gain, loss = point["faster"], point["loss"]
    mark = f"{'->' if point['chosen'] else ''}{'*' if point['front'] else ''}"
    return [
        mark,
        point["name"],
        f"{point['ms']:.2f}",
        f"{gain['median']:.2f} [{gain['low']:.2f}, {gain['high']:.2f}]",
        number(loss["drift"]["mean"], ".3f"),
        f"{number(loss['ion']['mean'], '+.3f')} [{number(loss['ion']['low'], '+.3f')}, "
        f"{number(loss['ion']['high'], '+.3f')}]",
        str(loss["n"]),
        point["verdict"],
    ]


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
