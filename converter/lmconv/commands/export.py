"""`lmconv export`: networks to artefacts."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import click

from lmconv import plugins
from lmconv.console import Console, Finite, Outcome, attempt, command, table
from lmconv.errors import MissingRuntime, UsageError
from lmconv.options import source_arguments, source_options
from lmconv.types import Cpu, Io, Mix, Precision

if TYPE_CHECKING:
    from lmconv.judging.loss import Budget
    from lmconv.pipeline import Choices
    from lmconv.types import Json, Pass, Target

Wanted: TypeAlias = tuple[str, Precision, Io]

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
    """Adds `--no-PASS` for every pass there is."""

    def switch(name: str, context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            context.meta.setdefault(WITHOUT, []).append(name)

    for name in plugins.names("passes"):
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
def plugin(
    console: Console,
    *,
    models: tuple[str, ...],
    everything: bool,
    targets: tuple[str, ...],
    precisions: tuple[str, ...],
    ios: tuple[Io, ...],
    out: Path,
    weights: Path | None,
    random_weights: bool,
    seed: int | None,
    calibration: Path | None,
    split: str,
    compact_px: float | None,
    cpu: Cpu | None,
    recipe: Path | None,
    explain: bool,
    budget_ion: float | None,
    budget_drift: float | None,
    force: bool,
    no_guard: bool,
    batch: str,
    workspace: str | None,
    builder_level: int | None,
    timing_cache: Path | None,
    locked: bool,
    version_compatible: bool,
    hardware_compatible: bool,
    **network: Any,
) -> Outcome:
    from lmconv.building.jobs import Job, convert, convert_apart

    if seed is not None and not random_weights:
        raise UsageError("--seed is for random weights", hint="add --random-weights, or leave it out")
    wanted, skipped = _combinations(targets, precisions, ios)
    size, profile = _batch(batch)
    engine = _engine(
        targets,
        profile=profile,
        workspace=_bytes(workspace),
        builder_level=builder_level,
        cache=timing_cache,
        locked=locked or None,
        version_compatible=version_compatible or None,
        hardware_compatible=hardware_compatible or None,
    )
    choices = _with_engine(_choices(compact_px, cpu, recipe, calibration, wanted), engine)
    budget = _budget(budget_ion, budget_drift, calibration, no_guard)
    if force and no_guard:
        raise UsageError("--force is for what was judged, and --no-guard judges nothing", hint="leave one out")
    options = source_arguments(weights, (seed or 0) if random_weights else None, **network)
    models, left_out = _all(models, options) if everything else (models, [])
    _check_models(models, options)
    possible, impossible = _possible(models, wanted, options["size"], everything=everything)
    skipped += impossible
    _check_faces(wanted, calibration)
    outcome = Outcome(document={"artifacts": [], "skipped": [*left_out, *skipped]})
    for row in outcome.document["skipped"]:
        console.note(f"left out: {' '.join(row[key] for key in row if key != 'reason')}: {row['reason']}")
    missing = _missing(console, wanted, outcome.errors)
    wanted = [each for each in wanted if each[0] not in missing]
    if wanted:
        _check_out(out)

    faces = (calibration, split) if calibration else None
    job = Job(
        model="",
        options=options,
        wanted=tuple(wanted),
        out=out,
        calibration=faces,
        batch=size,
        choices=choices,
        explain=explain,
        guard="force" if force else "skip" if no_guard else "refuse",
        budget=budget,
        console=console,
    )
    asked = {model: tuple(each for each in possible[model] if each in wanted) for model in models}
    jobs = [replace(job, model=model, wanted=each) for model, each in asked.items() if each]
    with console.progress(sum(1 + len(job.wanted) for job in jobs), "converting") as step:
        for job in jobs:
            done = convert_apart(job, step) if len(jobs) > 1 else convert(job, step)
            outcome.document["artifacts"] += done.artifacts
            outcome.errors += done.errors
    rows = outcome.document["artifacts"]
    explained = [row for row in rows if "explained" in row]
    parts = [_text(rows), *map(_explained, explained), _failures(outcome, models)]
    outcome.text = "\n\n".join(filter(None, parts))
    return outcome


def _choices(
    compact_px: float | None, cpu: Cpu | None, recipe: Path | None, calibration: Path | None, wanted: list[Wanted]
) -> Choices:
    """How graphs are made; refuses what contradicts itself."""
    from lmconv.pipeline import PLAIN, Choices
    from lmconv.store import artifact as artifacts

    without: list[str] = click.get_current_context().meta.get(WITHOUT, [])
    for name in without:
        step: Pass = plugins.load("passes", name)
        if step.required or name in PLAIN:
            raise UsageError(f"--no-{name} leaves out a pass without which there is no artefact", hint="leave it out")
    for name in ("freeze", "compact"):
        if compact_px is not None and name in without:
            raise UsageError(f"--compact-px and --no-{name} contradict each other", hint="leave one out")
    if compact_px is not None and calibration is None:
        hint = "give --calibration DIR, a folder of annotated training faces"
        raise UsageError("--compact-px is judged on real faces, and none are named", hint=hint)
    if recipe is None:
        return Choices(without=tuple(without), compact_px=compact_px, cpu=cpu)
    if without or compact_px is not None or cpu is not None:
        hint = "leave --no-PASS, --compact-px and --cpu out"
        raise UsageError("--recipe says which passes are run, how far, and for what CPU", hint=hint)
    told = artifacts.read(recipe)
    if any(pair[:2] != (told.target, told.precision) for pair in wanted):
        hint = f"ask for --to {told.target} --precision {told.precision} alone"
        raise UsageError(f"{recipe} is the recipe of {told.target} {told.precision}", hint=hint)
    frozen = artifacts.decided(told.recipe, "freeze")
    if frozen and calibration is None:
        hint = "give --calibration DIR, the faces that it was made with"
        raise UsageError(f"{recipe} was compacted within a bound on real faces, and none are named", hint=hint)
    mix = told.recipe.get("mix")
    return Choices(
        compact_px=frozen["bound_px"] if frozen else None,
        recipe=told,
        mix=Mix.of(mix) if mix else None,
        pictures=tuple(told.recipe["faces"]) if mix else (),
    )


def _budget(ion: float | None, drift: float | None, calibration: Path | None, unjudged: bool) -> Budget:
    """How much may be lost on faces; refuses one that would not be judged."""
    from lmconv.judging.loss import Budget

    given: Json = {name: value for name, value in (("ion", ion), ("drift", drift)) if value is not None}
    for name in given:
        if calibration is None:
            hint = "give --calibration DIR, a folder of annotated training faces"
            raise UsageError(f"--budget-{name} is judged on real faces, and none are named", hint=hint)
        if unjudged:
            raise UsageError(f"--budget-{name} and --no-guard contradict each other", hint="leave one out")
    return Budget(**given)


def _combinations(
    targets: tuple[str, ...], precisions: tuple[str, ...], ios: tuple[Io, ...]
) -> tuple[list[Wanted], list[Json]]:
    """Every target with every precision it can have and all it can take, and what is left out.

    What no target has is refused.
    """
    known = {str(precision): precision for precision in Precision}
    for name in precisions:
        if name not in known:
            raise plugins.unknown("precision", name, list(known))
    loaded: dict[str, Target] = {name: plugins.load("targets", name) for name in targets}
    pairs: list[tuple[str, Precision]] = []
    skipped: list[Json] = []
    for name in dict.fromkeys(precisions):
        able = [target for target in loaded if known[name] in loaded[target].precisions]
        if not able:
            raise UsageError(f"{' and '.join(loaded)} cannot be built in {name}", hint="see `lmconv doctor`")
        pairs += [(target, known[name]) for target in able]
        reason = f"the target has no {name}"
        skipped += [{"target": t, "precision": name, "reason": reason} for t in loaded if t not in able]
    wanted: list[Wanted] = []
    for io in dict.fromkeys(ios):
        able_pairs = [(t, p) for t, p in pairs if io in loaded[t].ios and not (io == "frame" and p == Precision.BF16)]
        if not able_pairs:
            asked = " and ".join(f"{target} {precision}" for target, precision in pairs)
            raise UsageError(f"{asked} cannot be built with --io {io}", hint="docs/io.md says what can")
        wanted += [(target, precision, io) for target, precision in able_pairs]
        skipped += [
            {"target": t, "precision": str(p), "io": io, "reason": f"it has no --io {io}"}
            for t, p in pairs
            if (t, p) not in able_pairs
        ]
    return wanted, skipped


def _missing(console: Console, wanted: list[Wanted], errors: list[Json]) -> list[str]:
    """Targets whose runtime is not here, each noted as an error once."""

    def look(target: str) -> None:
        if needed := plugins.load("targets", target).requires():
            raise MissingRuntime(f"target {target} cannot be built here", hint=needed)

    targets = list(dict.fromkeys(target for target, _, _ in wanted))
    before = len(errors)
    for target in targets:
        attempt(console, functools.partial(look, target), errors, target=target)
    return [error["target"] for error in errors[before:]]


def _batch(text: str) -> tuple[int | None, tuple[int, int, int] | None]:
    """A fixed batch size, and an engine's profile; None where not given."""
    if text == "dynamic":
        return None, None
    if re.fullmatch("[1-9][0-9]{0,3}", text):
        return int(text), None
    if re.fullmatch("[1-9][0-9]{0,3}(:[1-9][0-9]{0,3}){2}", text):
        smallest, best, largest = map(int, text.split(":"))
        if smallest <= best <= largest:
            return None, (smallest, best, largest)
        raise UsageError(f"--batch {text} does not rise", hint="the smallest, the best and the largest: 1:8:64")
    hint = "such as --batch 1, or --batch 1:8:64 for an engine"
    raise UsageError(f"--batch {text!r} is no size below 10000, nor three of them, nor dynamic", hint=hint)


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    if found := re.fullmatch("([1-9][0-9]{0,5})(MiB|GiB)", text):
        return int(found[1]) << {"MiB": 20, "GiB": 30}[found[2]]
    raise UsageError(f"--workspace {text!r} is no size", hint="such as --workspace 512MiB or 2GiB")


ENGINE = {
    "profile": "--batch MIN:BEST:MAX",
    "workspace": "--workspace",
    "builder_level": "--builder-level",
    "cache": "--timing-cache",
    "locked": "--locked",
    "version_compatible": "--version-compatible",
    "hardware_compatible": "--hardware-compatible",
}
"""Fields of `BuildOptions`, and what sets them."""


def _engine(targets: tuple[str, ...], **given: Any) -> Json:
    """What was said of engines; refuses it where none is built."""
    said = {name: value for name, value in given.items() if value is not None}
    if said and not any(plugins.load("targets", name).engines for name in targets):
        hint = "add --to tensorrt, or leave it out"
        raise UsageError(f"{ENGINE[next(iter(said))]} is for engines, and no target here builds one", hint=hint)
    return said


def _with_engine(choices: Choices, said: Json) -> Choices:
    """The choices with what was said of engines; a recipe says all but where the timing cache is."""
    if choices.recipe:
        if decided := [ENGINE[name] for name in said if name not in ("cache", "locked")]:
            raise UsageError(f"--recipe says how the engine is built, {decided[0]} too", hint="leave one out")
        told = dict(choices.recipe.recipe.get("engine", {}))
        if batches := told.pop("batches", None):
            told["profile"] = tuple(batches)
        said = told | said
    return replace(choices, engine=replace(choices.engine, **said))


def _all(models: tuple[str, ...], options: Json) -> tuple[tuple[str, ...], list[Json]]:
    """Every network with weights, or with random ones where asked for; and what is left out."""
    from lmconv.sources import checkpoints

    if models or options["name"]:
        raise UsageError("--all is every network, by its own name", hint="leave --all out, or what contradicts it")
    known = plugins.names("backbones")
    found = [model for model in known if checkpoints.find(model, options["weights"])]
    built = [model for model in known if model not in found and not checkpoints.is_published_as_onnx(model)]
    if options["seed"] is not None:
        found, built = sorted([*found, *built]), []
    reason = "no trained weights here"
    hints = dict.fromkeys(built, f"{reason} (--random-weights converts it all the same)")
    missing = [model for model in known if model not in found]
    return tuple(found), [{"model": model, "reason": hints.get(model, reason)} for model in missing]


def _possible(
    models: tuple[str, ...], wanted: list[Wanted], size: tuple[int, int] | None, *, everything: bool
) -> tuple[dict[str, list[Wanted]], list[Json]]:
    """What each network can be made into, and what is left out: of networks that are named, nothing is."""
    from lmconv.pipeline import calibrated, check_network
    from lmconv.sources import resolve as source

    skipped: list[Json] = []
    possible = {model: list(wanted) for model in models}
    special = [each for each in wanted if calibrated(each[1]) or each[2] != "tensor" or _engines(each[0])]
    for model in models if special else ():
        spec = source.spec_of(model, size)
        if spec is None:
            continue
        for each in special:
            try:
                check_network(spec, plugins.load("targets", each[0]), each[1], each[2])
            except UsageError as error:
                if not everything:
                    raise
                possible[model].remove(each)
                told = {"model": model, "target": each[0], "precision": str(each[1]), "io": each[2]}
                skipped.append({**told, "reason": error.message})
    return possible, skipped


def _engines(target: str) -> bool:
    return bool(plugins.load("targets", target).engines)


def _check_models(models: tuple[str, ...], options: Json) -> None:
    from lmconv.sources import resolve as source

    if not models:
        raise UsageError("there is nothing to convert", hint="name a network of `lmconv models`, or use --all")
    for model in models:
        source.check(model, **options)
    names = [source.name_of(model, options["name"]) for model in models]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two models are called {name}, and would share a folder", hint="convert them apart")
    weights: Path | None = options["weights"]
    if len(models) > 1 and weights and weights.is_file():
        raise UsageError(f"{weights} cannot be the checkpoint of {len(models)} models", hint="name a folder")


def _check_faces(wanted: list[Wanted], calibration: Path | None) -> None:
    """Finds out before the work whether there are faces where they are needed, and whether a folder named has any."""
    from lmconv.pipeline import calibrated

    needy = [precision for _, precision, _ in wanted if calibrated(precision)]
    if needy and calibration is None:
        hint = "give --calibration DIR, a folder of annotated training faces"
        raise UsageError(f"{needy[0]} is calibrated on real faces, and none are named", hint=hint)
    if calibration:
        from lmconv.faces.crops import find_dataset

        find_dataset(calibration)


def _check_out(out: Path) -> None:
    """Finds out before the work whether the folder can be written."""
    import tempfile

    from lmconv.store.files import writing

    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()


def _text(artifacts: list[Json]) -> str:
    header = ["artefact", "weights", "MB", "parameters", "of source", "GFLOP", "of source", "s"]
    rows = [
        [
            row["path"],
            row["weights"],
            f"{row['bytes'] / 1e6:.2f}",
            f"{row['parameters']:,}",
            f"{row['source_parameters']:,}",
            f"{row['flops'] / 1e9:.3f}",
            f"{row['source_flops'] / 1e9:.3f}",
            f"{row['seconds']:.1f}",
        ]
        for row in artifacts
    ]
    return table(header, rows, left=2) if rows else ""


def _explained(row: Json) -> str:
    """What each pass bought for an artefact, and what was left out."""
    found = row["explained"]
    header = ["pass", "times faster", "parameters", "GFLOP", "nodes", ""]
    rows = [[step["pass"], *_bought(step), step["refused"] or ""] for step in found["passes"]]
    rows.append(["all", *_bought(found["total"]), "against the plain graph on this target"])
    out = [[step["pass"], _gain(step["faster"]), "", "", "", f"left out: {step['why']}"] for step in found["left_out"]]
    return f"{row['path']}, one thread:\n" + table(header, [*rows, *out])


def _bought(step: Json) -> list[str]:
    changes = [f"{before:,} -> {after:,}" for before, after in (step["parameters"], step["nodes"])]
    work = " -> ".join(f"{flops / 1e9:.3f}" for flops in step["flops"])
    return [_gain(step["faster"]), changes[0], work, changes[1]]


def _gain(gain: Json | None) -> str:
    return f"{gain['median']:.2f} [{gain['low']:.2f}, {gain['high']:.2f}]" if gain else "changes nothing"


def _failures(outcome: Outcome, models: tuple[str, ...]) -> str:
    """What failed and why, where several networks were converted."""
    rows = [
        [error.get("model", "all"), " ".join(error.get(key, "") for key in ("target", "precision")), error["message"]]
        for error in outcome.errors
    ]
    return table(["failed", "as", "why"], rows, left=3) if rows and len(models) > 1 else ""
