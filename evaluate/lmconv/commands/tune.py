"""`lmconv tune`: search for the fastest mix of precisions on a target within a budget of accuracy."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmconv.building.jobs import Job, convert
from lmconv.console import Console, Finite, Outcome, attempt, command, table
from lmconv.errors import MissingRuntime, UsageError
from lmconv.options import SourceOptions, source_options
from lmconv.plugins import TARGETS
from lmconv.visual.tables import number

if TYPE_CHECKING:
    from lmconv.types import Json

HELP = """Looks for the fastest way to compute MODEL on a target that loses no more than a budget, and exports it.

Everything the target has is timed on this machine, on the compacted graph: fp32, fp16, bf16, int8, and int8 with some
layers left in float, where that is faster or loses less. What each loses is measured on the faces of --calibration: the
paired difference of their ION to the source network's, and the drift of their points. int8 is cross-fitted: in five
folds, every face is judged by a network that was calibrated without it. The mean has to be within the budget, and its
95 % interval below twice as much (--strict: within it, too); where there are too few faces to tell, it says how many
would do.

The artefact goes to OUT/MODEL/TARGET-mixed/, whatever is in it; OUT/MODEL/tune-TARGET/ has every measurement, two
pictures (front.svg: time against drift; layers.svg: what int8 and float cost each layer) and tuned.json. A search that
was interrupted goes on where it was, and another budget reuses its measurements.

\b
Examples:
  lmconv tune pfld --to openvino --calibration 300w/
  lmconv tune mobilefacenet --to onnx --to openvino --calibration 300w/ --budget-ion 0.02 --strict
"""


@command(name="tune", help=HELP, short_help="Find the fastest artefact within a budget of accuracy.")
@click.argument("model")
@click.option("--to", "targets", multiple=True, default=("onnx",), show_default=True, help="Target; may be repeated.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    envvar="LMCONV_FACES",
    show_envvar=True,
    help="Folder of annotated faces, none of them among those that ION will be reported on.",
)
@click.option("--split", type=click.Choice(["train", "test", "all"]), default="train", show_default=True)
@click.option("--budget-ion", type=Finite(0), default=0.03, show_default=True, help="Rise of the mean ION, points.")
@click.option("--budget-drift", type=Finite(0), default=0.4, show_default=True, help="Mean drift, ION points.")
@click.option("--strict", is_flag=True, help="The 95 % interval of the rise of ION has to be within the budget too.")
@click.option("--time", "limit", default="5m", show_default=True, help="Search so long, such as 90s, 10m or 1h.")
@click.option("--fresh", is_flag=True, help="Measure anew what an earlier search has measured.")
@click.option("--layers", is_flag=True, help="Show what int8 and float cost each layer.")
@click.option("--out", type=click.Path(path_type=Path), default="build", show_default=True, help="Where artefacts go.")
@click.option("--weights", type=click.Path(path_type=Path), help="The checkpoint, or a folder to look in first.")
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
    from lmconv.building.request import Choices
    from lmconv.faces.lookup import find_dataset
    from lmconv.faces.training import TrainingFaces
    from lmconv.judging.guard import Guard
    from lmconv.judging.loss import Budget
    from lmconv.sources import resolve as source
    from lmconv.store.files import writing
    from lmconv.tuning.tune import FaceTuner
    from lmconv.types import Precision, Variant

    seconds = _seconds(request.limit)
    options = request.source_arguments()
    for name in request.targets:
        target = TARGETS.load(name)
        if Precision.MIXED not in target.precisions:
            raise UsageError(f"target {name} cannot be tuned", hint="see `lmconv doctor`")
    source.check(request.model, **options)
    if request.calibration is None:
        hint = "give --calibration DIR, a folder of annotated training faces"
        raise UsageError("tuning is judged on real faces, and none are named", hint=hint)
    find_dataset(request.calibration)
    with writing(request.out):
        request.out.mkdir(parents=True, exist_ok=True)
    budget = Budget(ion=request.budget_ion, drift=request.budget_drift, strict=request.strict)
    faces = TrainingFaces(folder=request.calibration, split=request.split)
    job = Job(
        model=request.model,
        options=options,
        variants=(),
        out=request.out,
        choices=Choices(),
        console=console,
        faces=faces,
        guard=Guard(budget=budget, faces=faces),
        tuner=FaceTuner(faces=faces, budget=budget, seconds=seconds, fresh=request.fresh),
    )
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


def _require(target: str) -> bool:

    if missing := TARGETS.load(target).requires():
        raise MissingRuntime(f"target {target} cannot be built here", hint=missing)
    return True


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text)
    if not found:
        raise UsageError(f"--time {text!r} is not a time", hint="such as --time 90s, 10m or 1h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


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
        f"*: nothing beats it in both time and drift. Chosen: {_chosen(tuned)['name']}: {tuned['why']}.\n"
        f"{row['path']}, searched for {tuned['seconds']:.0f} s; pictures and measurements: {tuned['folder']}",
    ]
    if with_layers and tuned["layers"]:
        parts.insert(2, _layers(tuned["layers"]))
    return "\n\n".join(parts)


def _chosen(tuned: Json) -> Json:
    found: Json = next(point for point in tuned["points"] if point["chosen"])
    return found


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
    header = ["layer", "in", "drift, it alone in int8", "time of it in float, ms"]
    return table(
        header,
        [
            [row["layer"], "int8" if row["int8"] else "float", f"{row['drift']:.4f}", number(row["cost_ms"], "+.3f")]
            for row in rows
        ],
        left=2,
    )
