"""`lmconv draw`: draws synthetic faces with their landmarks, or the annotated faces on which an artefact is worst."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmconv.console import Console, Outcome, attempt, command, table
from lmconv.errors import UsageError
from lmconv.options import TRUST
from lmconv.visual.tables import number

if TYPE_CHECKING:
    from lmconv.types import Json
    from lmconv.visual.dataset_drawings import DrawingRequest

HELP = """Draws faces with their landmarks: the annotated faces in PATH, or new synthetic faces into PATH.

Annotated faces are drawn if artefacts are named, or if PATH is a file or folder of annotated faces other than synthetic
faces. Each picture shows the annotated points in green, the points of the artefact in red, a yellow line from each
point to its counterpart, and ION and name. The faces with the largest errors come first. OUT/MODEL/ARTEFACT holds the
pictures, overview.jpg and faces.csv. Without artefacts, the annotation alone is drawn into OUT/annotated.

Otherwise, new faces are drawn into PATH/drawn, in the layout of 300-W. Every machine can make this test data: `verify
--data PATH`, `export --calibration PATH` and the other commands accept the folder. Test faces are drawn from wider
ranges than training faces. Figures measured on synthetic faces say nothing about photographs. The same options give the
same files.

\b
Examples:
  lmconv draw 300w/ build/pfld/openvino-int8 --worst 30
  lmconv draw faces
  lmconv export drawn68 --to openvino --precision int8 --calibration faces
  lmconv verify build/drawn68 --data faces
"""
MAX_COUNT = 99_999
SYNTHETIC_OPTIONS = ("faces", "train", "seed", "landmarks")
"""Options for synthetic faces only."""
ANNOTATED_OPTIONS = ("out", "worst", "split", "dataset", "normaliser", "trust")
"""Options for annotated faces only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Parameters of the command line.

    Attributes:
        path: Folder or file of annotated faces; or the folder for synthetic faces.
        artifacts: Folders of artefacts.
        faces: Number of synthetic test faces.
        train: Number of synthetic training faces.
        seed: Seed of the synthetic faces.
        landmarks: Number of points of a synthetic face, "68" or "98".
        out: Folder for the pictures of annotated faces.
        worst: Largest number of pictures per artefact.
        split: Split of the annotated faces: "test", "train" or "all".
        dataset: Name of the data set's layout; None to detect the layout.
        normaliser: Name of the normaliser of the errors; None for the default of the point scheme.
        trust: See `OpenOptions`.
        force: True to replace the files of an earlier run.
    """

    path: Path
    artifacts: tuple[Path, ...]
    faces: int
    train: int
    seed: int
    landmarks: str
    out: Path
    worst: int
    split: str
    dataset: str | None
    normaliser: str | None
    trust: bool
    force: bool


@command(name="draw", help=HELP, short_help="Draw synthetic faces, or the worst faces of an artefact.")
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path), metavar="[ARTIFACT|DIR]...")
@click.option(
    "--faces", type=click.IntRange(0, MAX_COUNT), default=100, show_default=True, help="Number of new test faces."
)
@click.option(
    "--train", type=click.IntRange(0, MAX_COUNT), default=300, show_default=True, help="Number of new training faces."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed for new faces.")
@click.option(
    "--landmarks",
    type=click.Choice(["68", "98"]),
    default="68",
    show_default=True,
    help="Points of new faces: 68 iBUG, 98 WFLW.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="portraits",
    show_default=True,
    help="Folder for pictures of annotated faces.",
)
@click.option(
    "--worst",
    type=click.IntRange(1, MAX_COUNT),
    default=50,
    show_default=True,
    help="Largest number of pictures of annotated faces.",
)
@click.option("--split", type=click.Choice(["test", "train", "all"]), default="test", show_default=True)
@click.option("--dataset", help="Layout of PATH, such as dlib_xml, if more than one fits.")
@click.option("--normaliser", help="Normaliser of the errors; default: the usual one for the points.")
@click.option("--trust", is_flag=True, help=TRUST)
@click.option("--force", is_flag=True, help="Replace synthetic faces, or pictures, of an earlier run.")
def plugin(console: Console, **parameters: Any) -> Outcome:
    request = Request(**parameters)
    path = request.path
    if request.artifacts or request.dataset or _is_annotated(path):
        hint = f"leave out the option, or name a folder without annotated faces, not {path}"
        _refuse_options(SYNTHETIC_OPTIONS, "is for new faces only", hint)
        return _draw_annotated(console, _plan(request), request.artifacts)
    problem = f"is for annotated faces only, and {path} holds none"
    _refuse_options(ANNOTATED_OPTIONS, problem, "name a folder with annotated faces")
    return _draw_synthetic(console, request)


def _is_annotated(path: Path) -> bool:
    """Returns True if the path is a file of annotations, or a folder of annotated faces other than synthetic faces."""
    if not path.is_dir():
        return path.exists() and path.suffix != ""
    from lmconv.faces.lookup import matching_datasets

    return any(dataset.name != "drawn" for dataset in matching_datasets(path))


def _refuse_options(options: tuple[str, ...], problem: str, hint: str) -> None:
    """Raises a `UsageError` if the user gave any of these options."""
    context = click.get_current_context()
    given = [name for name in options if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    if given:
        raise UsageError(f"--{given[0]} {problem}", hint=hint)


def _draw_synthetic(console: Console, request: Request) -> Outcome:
    """Draws synthetic faces into `PATH/drawn`."""
    total = request.faces + request.train
    if not total:
        raise UsageError("no faces to draw", hint="give --faces or --train")
    from lmconv.synthetic.folder import write

    counts, landmarks = {"testset": request.faces, "trainset": request.train}, int(request.landmarks)
    with console.progress(total, "drawing") as step:
        digest = write(request.path, counts, seed=request.seed, landmarks=landmarks, force=request.force, step=step)
    folder = request.path / "drawn"
    document = {"folder": str(folder), **counts, "landmarks": landmarks, "seed": request.seed, "sha256": digest}
    text = f"{folder}: {request.faces} test faces, {request.train} training faces, {landmarks} points"
    return Outcome(document=document, text=text)


def _plan(request: Request) -> DrawingRequest:
    """Returns the plan for drawing annotated faces; refuses unknown names before any work."""
    from lmconv.faces.lookup import find_dataset
    from lmconv.scheme import check_normaliser
    from lmconv.visual.dataset_drawings import DrawingRequest

    if request.normaliser:
        check_normaliser(request.normaliser)
    return DrawingRequest(
        data=request.path,
        layout=find_dataset(request.path, request.dataset),
        split=request.split,
        normaliser=request.normaliser,
        out=request.out,
        worst=request.worst,
        trust=request.trust,
        force=request.force,
    )


def _draw_annotated(console: Console, plan: DrawingRequest, artifacts: tuple[Path, ...]) -> Outcome:
    """Draws annotated faces with the points of each artefact; without artefacts, the annotation alone."""
    from lmconv.store import artifact as store
    from lmconv.visual.dataset_drawings import draw_annotation, draw_predictions

    paths = store.below(artifacts)
    outcome = Outcome(document={"drawings": [] if paths else draw_annotation(plan)})
    with console.progress(len(paths), "drawing") as step:
        for artifact in paths:
            action = functools.partial(draw_predictions, plan, artifact)
            row = attempt(console, action, outcome.errors, path=artifact)
            outcome.document["drawings"] += [row] if row else []
            step()
    outcome.text = _text(outcome.document["drawings"])
    return outcome


def _text(drawings: list[Json]) -> str:
    """Returns the table for a terminal, a row per folder of pictures."""
    rows = [
        [
            drawing["path"] or "annotation",
            number(drawing["mean"], ".3f"),
            number(drawing["faces"][0]["ion"], ".2f"),
            drawing["faces"][0]["name"],
            str(len(drawing["faces"])),
            drawing["folder"],
        ]
        for drawing in drawings
    ]
    return table(["landmarks of", "mean ION %", "first face", "name", "pictures", "folder"], rows) if rows else ""
