"""`lmconv export`: converts networks to artefacts."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from lmconv.building.jobs import Job, convert, convert_apart
from lmconv.console import Console, Finite, Outcome, command
from lmconv.errors import UsageError
from lmconv.options import source_options
from lmconv.plugins import PASSES
from lmconv.types import Cpu, Io

if TYPE_CHECKING:
    from lmconv.exporting.request import ExportRequest
    from lmconv.faces.training import TrainingFaces
    from lmconv.judging.guard import Guard
    from lmconv.tuning.tune import FaceTuner
    from lmconv.types import Json

HELP = """Converts networks, and compares each artefact with the network before it is put in place.

MODEL is a name of `lmconv models`, an .onnx file, or FILE.py:NAME, what builds a network of your own: a function that
gives a torch.nn.Module, called with `landmarks` if it has such a parameter. Each combination of target and precision
goes to OUT/MODEL/TARGET-PRECISION/.

A face detector that takes pictures of any size does so as an artefact too; --input fixes its size, which an engine
needs. It is compared by its raw outputs, and has no int8.

\b
--io says what the artefact takes, and ends the folder's name:
  tensor  the network's own input, float32; landmarks as the network gives them
  image   uint8 crops (N,H,W,3) in the network's order of colours; landmarks in pixels of the crop
  frame   one uint8 frame (H,W,3) of any size and boxes (N,4); landmarks in pixels of the frame

\b
Examples:
  lmconv export pfld --weights pfld_model_best.pth.tar
  lmconv export pfld mobilefacenet --to onnx --to openvino --precision fp32 --precision int8 --calibration 300w/
  lmconv export face.onnx --output-slice 0:136 --preprocess BGR,1/127,1,1 --to openvino
  lmconv export my_models.py:build --input 3x112x112 --landmarks 68 --weights x.pth
  lmconv export pfld --to onnx --explain
  lmconv export --all --random-weights --to onnx --to openvino
  lmconv export pfld --to onnx --io image --io frame
  lmconv export retinaface --to openvino --input 3x480x640
  lmconv export pfld --to tensorrt --precision fp16 --batch 1:8:64

Before a target's precision, passes make the graph smaller and faster: dead channels go (compact), operators are written
as the target computes them fastest. --no-PASS leaves one out, such as --no-compact; docs/passes.md has them all.

Every artefact is judged before it is written, and refused (exit code 1, with the figures) where it is slower than its
parent: fp32 on the same target, or, for fp32, the plain graph. The lower end of the 95 % interval of the time by the
parent's may be 1.03. fp16 is for size and for GPUs: it has to be smaller instead. So is one refused that loses more
than its budget on the faces of --calibration. The fp32 parent of what is refused is written. What cannot be judged here
is written, and its manifest says so.
"""


def _switches(command: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Adds the hidden option `--no-PASS` for every pass."""

    def switch(name: str, context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            context.meta.setdefault(WITHOUT, []).append(name)

    for name in PASSES.names():
        call = functools.partial(switch, name)
        command = click.option(f"--no-{name}", is_flag=True, hidden=True, expose_value=False, callback=call)(command)
    return command


WITHOUT = "lmconv.without"


@command(name="export", help=HELP, short_help="Convert networks to artefacts.")
@click.argument("models", nargs=-1, metavar="[MODEL...]")
@click.option("--all", "everything", is_flag=True, help="Every network whose weights are found.")
@click.option("--to", "targets", multiple=True, default=("onnx",), show_default=True, help="Target; may be repeated.")
@click.option("--precision", "precisions", multiple=True, default=("fp32",), show_default=True, help="May be repeated.")
@click.option(
    "--io",
    "ios",
    multiple=True,
    type=click.Choice(get_args(Io)),
    default=("tensor",),
    show_default=True,
    help="What the artefact takes; may be repeated.",
)
@click.option("--out", type=click.Path(path_type=Path), default="build", show_default=True, help="Where artefacts go.")
@click.option("--weights", type=click.Path(path_type=Path), help="The checkpoint, or a folder to look in first.")
@click.option("--random-weights", is_flag=True, help="Seeded random weights where none are found: size, speed, parity.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Of the random weights; default: 0.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    envvar="LMCONV_FACES",
    show_envvar=True,
    help="Folder of annotated faces: int8 is calibrated on them, every pass is compared on them.",
)
@click.option("--split", type=click.Choice(["train", "test", "all"]), default="train", show_default=True)
@click.option(
    "--compact-px",
    type=Finite(0, min_open=True),
    help="Take channels for constant that hardly change, as long as no landmark of a face moves further; pixels.",
)
@_switches
@click.option("--cpu", type=click.Choice(get_args(Cpu)), help="What int8 is for; default: this machine's.")
@click.option("--recipe", type=click.Path(path_type=Path), help="An artefact whose measured choices are made again.")
@click.option("--explain", is_flag=True, help="Time every pass on the target: what it bought, what was left out.")
@click.option("--budget-ion", type=Finite(0), help="Rise of the mean ION on the faces, points.  [default: 0.03]")
@click.option("--budget-drift", type=Finite(0), help="Mean drift on them, ION points.  [default: 0.4]")
@click.option("--force", is_flag=True, help="Write what would be refused, marked so.")
@click.option("--no-guard", is_flag=True, help="Do not judge, neither speed nor budget; marked so.")
@click.option(
    "--batch",
    default="dynamic",
    show_default=True,
    help="A fixed batch size, dynamic, or of an engine MIN:BEST:MAX; dynamic is then 1:8:64.",
)
@click.option("--workspace", help="Of a GPU's memory while an engine is built, such as 512MiB.  [default: 2GiB]")
@click.option("--builder-level", type=click.IntRange(0, 5), help="How long to look for fast kernels.  [default: 3]")
@click.option(
    "--timing-cache",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Kernels that were timed before.  [default: OUT/tensorrt-VERSION-GPU.cache]",
)
@click.option("--locked", is_flag=True, help="Refuse to build an engine if the timing cache would change.")
@click.option("--version-compatible", is_flag=True, help="An engine that newer TensorRT runs too.")
@click.option("--hardware-compatible", is_flag=True, help="An engine for every GPU from compute capability 8.0 on.")
@source_options
def plugin(console: Console, **options: Any) -> Outcome:
    from lmconv.exporting.request import ExportRequest

    without = tuple(click.get_current_context().meta.get(WITHOUT, []))
    return _export(console, ExportRequest(**options, without=without))


def _export(console: Console, request: ExportRequest) -> Outcome:
    """Checks the whole request before any work, then converts every network."""
    from lmconv.exporting.choices import choices_of
    from lmconv.exporting.engine import engine_options, parse_batch, with_engine
    from lmconv.exporting.networks import all_networks, check_networks
    from lmconv.exporting.tables import text_of
    from lmconv.exporting.variants import check_faces, combinations, missing_targets, per_network

    options = request.network_options()
    batch, profile = parse_batch(request.batch)
    variants, skipped = combinations(request, batch)
    choices = with_engine(choices_of(request, variants), engine_options(request, profile))
    guard = _guard(request)
    models, without_weights = all_networks(request.models, options) if request.everything else (request.models, [])
    check_networks(models, options)
    possible, impossible = per_network(models, variants, options["size"], everything=request.everything)
    check_faces(request, variants)
    faces = _faces(request)
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
        console=console,
        faces=faces,
        guard=guard,
        tuner=_tuner(faces),
        explain=request.explain,
    )
    wanted = {model: tuple(v for v in possible[model] if v.target not in missing) for model in models}
    _run([replace(job, model=model, variants=each) for model, each in wanted.items() if each], console, outcome)
    outcome.text = text_of(outcome, models)
    return outcome


def _run(jobs: list[Job], console: Console, outcome: Outcome) -> None:
    """Runs the jobs and adds their rows and errors to the outcome; each of several jobs has a process of its own."""
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
    from lmconv.judging.guard import Guard
    from lmconv.judging.loss import Budget

    given = {"ion": request.budget_ion, "drift": request.budget_drift}
    budget: Json = {name: value for name, value in given.items() if value is not None}
    for name in budget:
        request.needs_faces(f"--budget-{name}")
        if request.no_guard:
            raise UsageError(f"--budget-{name} and --no-guard contradict each other", hint="leave one out")
    if request.force and request.no_guard:
        raise UsageError("--force is for what was judged, and --no-guard judges nothing", hint="leave one out")
    if request.no_guard:
        return None
    return Guard(budget=Budget(**budget), faces=_faces(request), force=request.force)


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
    from lmconv.tuning.tune import FaceTuner

    return FaceTuner(faces=faces)


def _check_out(out: Path) -> None:
    """Refuses a folder that cannot be written, before any conversion.

    Raises:
        InputError: The folder cannot be written.
    """
    from lmconv.store.files import writing

    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
