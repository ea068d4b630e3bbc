"""`lmconv export`: converts networks to artefacts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from lmconv.console import Console, Finite, Outcome, command
from lmconv.errors import UsageError
from lmconv.options import OUT, SPLIT, TO, WEIGHTS, source_options
from lmconv.plugins import PASSES
from lmconv.types import DEFAULT_TARGET, Cpu, Io

if TYPE_CHECKING:
    from lmconv.building.jobs import Job
    from lmconv.exporting.request import ExportRequest
    from lmconv.faces.training import TrainingFaces
    from lmconv.judging.guard import Guard
    from lmconv.tuning.tune import FaceTuner
    from lmconv.types import Json

HELP = """Converts networks to artefacts, and compares each artefact with its network before writing it.

MODEL is a name from `lmconv models`, an .onnx file, or FILE.py:NAME for your own network. NAME is a function that
returns a torch.nn.Module, or a class of modules; if NAME has a parameter `landmarks`, lmconv passes --landmarks. Each
combination of target and precision is written to OUT/MODEL/TARGET-PRECISION/.

A face detector that takes pictures of any size takes any size as an artefact, too; --input fixes the size, as a
TensorRT engine requires. Detectors are compared by their raw outputs, and have no int8.

\b
--io selects the input of the artefact. image and frame are appended to the
name of the folder.
  tensor  float32 input of the network; landmarks in the network's unit
  image   uint8 crops (N,H,W,3) in the network's colour order; landmarks in
          pixels of the crop
  frame   one uint8 frame (H,W,3) of any size and boxes (N,4); landmarks in
          pixels of the frame

\b
Examples:
  lmconv export pfld --weights pfld_model_best.pth.tar
  lmconv export pfld mobilefacenet --to onnx --to openvino --precision fp32 --precision int8 --calibration 300w/
  lmconv export face.onnx --output-slice 0:136 --preprocess BGR,1/127,1,1 --to openvino
  lmconv export my_models.py:build --input 3x112x112 --landmarks 68 --weights x.pth
  lmconv export pfld --to onnx --explain
  lmconv export pfld mobilefacenet --to openvino --precision int8 --calibration 300w/ --recipe build/
  lmconv export --all --random-weights --to onnx --to openvino
  lmconv export pfld --to onnx --io image --io frame
  lmconv export retinaface --to openvino --input 3x480x640
  lmconv export pfld --to tensorrt --precision fp16 --batch 1:8:64

Before the precision is lowered, passes make the graph smaller and faster: `compact` removes dead channels, and other
passes rewrite operators to the form that is fastest on the target. --no-PASS skips a pass, for example --no-compact;
docs/passes.md describes all passes.

Every artefact is judged before it is written. An artefact is refused if it is slower than its parent, or if its loss on
the faces of --calibration is above the budget. "Slower" means: the lower end of the 95 % interval of time / time of the
parent is above 1.03. The parent is fp32 on the same target; the parent of fp32 is the plain graph on the same target.
fp16 is for small files and for GPUs: on a CPU, the size of the files is judged instead of the speed.

A refused artefact is not written, the error message has the figures, and the exit code is 1. Its fp32 parent is written
instead. An artefact that cannot be judged on this machine is written, and its manifest says so.
"""


def _switches(command: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Adds the hidden option `--no-PASS` for every pass."""

    def switch(name: str, context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            context.meta.setdefault(WITHOUT, []).append(name)

    for name in PASSES.names():
        callback = functools.partial(switch, name)
        option = click.option(f"--no-{name}", is_flag=True, hidden=True, expose_value=False, callback=callback)
        command = option(command)
    return command


WITHOUT = "lmconv.without"
"""Key of click's context for the passes that `--no-PASS` skips."""


@command(name="export", help=HELP, short_help="Convert networks to artefacts.")
@click.argument("models", nargs=-1, metavar="[MODEL...]")
@click.option("--all", "everything", is_flag=True, help="Convert every network whose weights are available.")
@click.option("--to", "targets", multiple=True, default=(DEFAULT_TARGET,), show_default=True, help=TO)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    default=("fp32",),
    show_default=True,
    help="Precision: fp32, fp16, bf16, int8 or mixed; may be repeated.",
)
@click.option(
    "--io",
    "ios",
    multiple=True,
    type=click.Choice(get_args(Io)),
    default=("tensor",),
    show_default=True,
    help="Input of the artefact; may be repeated.",
)
@click.option("--out", type=click.Path(path_type=Path), default="build", show_default=True, help=OUT)
@click.option("--weights", type=click.Path(path_type=Path), help=WEIGHTS)
@click.option(
    "--random-weights",
    is_flag=True,
    help="Use seeded random weights if a checkpoint is missing, to measure size, speed and parity.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed for --random-weights.  [default: 0]")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    envvar="LMCONV_FACES",
    show_envvar=True,
    help="Folder or file of annotated training faces, for int8 calibration, comparison of passes, and the budget.",
)
@click.option("--split", type=click.Choice(["train", "test", "all"]), default="train", show_default=True, help=SPLIT)
@click.option(
    "--compact-px",
    type=Finite(0, min_open=True),
    help="Largest movement of a landmark on faces, input pixels; lmconv then also removes channels that hardly change.",
)
@_switches
@click.option(
    "--cpu", type=click.Choice(get_args(Cpu)), help="Kind of CPU to build int8 for.  [default: this machine's kind]"
)
@click.option(
    "--exact",
    is_flag=True,
    help="Rewrite all operators that a target computes inexactly. Without this option lmconv does so only where an "
    "artefact would fail.",
)
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of earlier artefacts: lmconv repeats the passes and measured decisions of the artefact of the same "
    "network, target and precision. May be repeated; the first artefact that fits counts.",
)
@click.option("--explain", is_flag=True, help="Time every pass on the target, also passes that are not used.")
@click.option(
    "--budget-ion", type=Finite(0), help="Largest rise of the mean ION on the faces, ION points.  [default: 0.03]"
)
@click.option("--budget-drift", type=Finite(0), help="Largest mean drift on the faces, ION points.  [default: 0.4]")
@click.option("--force", is_flag=True, help="Write refused artefacts, too; the manifest records the refusal.")
@click.option("--no-guard", is_flag=True, help="Judge neither speed nor budget; the manifest records this.")
@click.option(
    "--batch",
    default="dynamic",
    show_default=True,
    help="Batch size: a fixed number, dynamic, or MIN:BEST:MAX for an engine; dynamic means 1:8:64 for an engine.",
)
@click.option("--workspace", help="Limit of GPU memory for building an engine, such as 512MiB.  [default: 2GiB]")
@click.option(
    "--builder-level",
    type=click.IntRange(0, 5),
    help="Effort of TensorRT's search for fast kernels.  [default: 3]",
)
@click.option(
    "--timing-cache",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of kernel times from earlier builds.  [default: OUT/tensorrt-VERSION-GPU.cache]",
)
@click.option("--locked", is_flag=True, help="Refuse to build an engine if the timing cache would change.")
@click.option("--version-compatible", is_flag=True, help="Build an engine that newer TensorRT versions can run, too.")
@click.option(
    "--hardware-compatible", is_flag=True, help="Build an engine for every GPU with compute capability 8.0 or higher."
)
@source_options
def plugin(console: Console, **options: Any) -> Outcome:
    from lmconv.exporting.request import ExportRequest

    without = tuple(click.get_current_context().meta.get(WITHOUT, []))
    return _export(console, ExportRequest(**options, without=without))


def _export(console: Console, request: ExportRequest) -> Outcome:
    """Checks the whole request before any work, then converts every network."""
    from lmconv.building.jobs import Job
    from lmconv.exporting.choices import choices_of, recipes_of
    from lmconv.exporting.engine import engine_options, parse_batch, with_engine
    from lmconv.exporting.networks import all_networks, check_networks
    from lmconv.exporting.tables import text_of
    from lmconv.exporting.variants import check_faces, combinations, missing_targets, per_network

    options = request.network_options()
    batch, profile = parse_batch(request.batch)
    variants, skipped = combinations(request, batch)
    recipes = recipes_of(request, variants)
    choices = with_engine(choices_of(request, variants, recipes), engine_options(request, profile), recipes)
    guard = _guard(request)
    models, without_weights = all_networks(request.models, options) if request.everything else (request.models, [])
    check_networks(models, options)
    possible, impossible = per_network(models, variants, options["size"], everything=request.everything)
    check_faces(request, variants)
    faces = _faces(request)
    tuner = _tuner(faces)
    outcome = Outcome(document={"artifacts": [], "skipped": [*without_weights, *skipped, *impossible]})
    for row in outcome.document["skipped"]:
        console.note(f"left out: {' '.join(row[key] for key in row if key != 'reason')}: {row['reason']}")
    missing = missing_targets(console, variants, outcome.errors)
    if any(variant.target not in missing for variant in variants):
        _check_out(request.out)
    job = Job(
        model="",
        options=options,
        variants=(),
        out=request.out,
        choices=choices,
        recipes=recipes,
        console=console,
        faces=faces,
        guard=replace(guard, raced=tuner.raced) if guard and tuner else guard,
        tuner=tuner,
        explain=request.explain,
    )
    buildable = {model: tuple(v for v in possible[model] if v.target not in missing) for model in models}
    jobs = [replace(job, model=model, variants=built) for model, built in buildable.items() if built]
    _run(jobs, console, outcome)
    outcome.text = text_of(outcome, models)
    return outcome


def _run(jobs: list[Job], console: Console, outcome: Outcome) -> None:
    """Runs the jobs and adds their rows and errors to the outcome; each of several jobs has a process of its own."""
    from lmconv.building.jobs import convert, convert_apart

    with console.progress(sum(1 + len(job.variants) for job in jobs), "converting") as step:
        for job in jobs:
            done = convert_apart(job, step) if len(jobs) > 1 else convert(job, step)
            outcome.document["artifacts"] += done.artifacts
            outcome.errors += done.errors


def _guard(request: ExportRequest) -> Guard | None:
    """Returns the guard; None for `--no-guard`.

    Raises:
        UsageError: Options of the guard contradict each other, or need faces.
    """
    from lmconv.building import effort
    from lmconv.judging.guard import Guard
    from lmconv.judging.loss import Budget

    given = {"ion": request.budget_ion, "drift": request.budget_drift}
    budget: Json = {name: value for name, value in given.items() if value is not None}
    for name in budget:
        request.needs_faces(f"--budget-{name}")
        if request.no_guard:
            message = f"--budget-{name} and --no-guard contradict each other"
            raise UsageError(message, hint="omit one of the two")
    if request.force and request.no_guard:
        message = "--force is for artefacts that were judged, and --no-guard judges nothing"
        raise UsageError(message, hint="omit one of the two")
    if request.no_guard:
        return None
    return Guard(budget=Budget(**budget), faces=_faces(request), force=request.force, effort=effort.of_command())


def _faces(request: ExportRequest) -> TrainingFaces | None:
    """Returns the faces of `--calibration` after checking the layout of the folder; None without the option."""
    if request.calibration is None:
        return None
    from lmconv.faces.lookup import find_dataset
    from lmconv.faces.training import TrainingFaces

    find_dataset(request.calibration)
    return TrainingFaces(folder=request.calibration, split=request.split)


def _tuner(faces: TrainingFaces | None) -> FaceTuner | None:
    """Returns the tuner, which chooses the content of "mixed" if no recipe does; None without faces."""
    if faces is None:
        return None
    from lmconv.building import effort
    from lmconv.tuning.tune import FaceTuner

    return FaceTuner(faces=faces, effort=effort.of_command())


def _check_out(out: Path) -> None:
    """Refuses a folder that cannot be written, before any conversion.

    Raises:
        InputError: The folder cannot be written.
    """
    import tempfile

    from lmconv.store.files import writing

    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
