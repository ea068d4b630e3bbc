"""`lmconv draw`: faces to try everything with, where there are none; and where an artefact fails on those that are."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lmconv.console import Console, Outcome, attempt, command, table
from lmconv.errors import UsageError
from lmconv.options import TRUST
from lmconv.visual.tables import number

if TYPE_CHECKING:
    from lmconv.types import Json
    from lmconv.visual.portraying import Plan

HELP = """Draws faces with their landmarks: those of PATH, a folder or file of annotated faces, or new ones into PATH.

Where artefacts are named, or PATH holds annotated faces other than drawn ones alone, pictures of these are drawn:
annotated points green, those that the artefact finds red, a yellow line from each to its own, ION and name below. Worst
faces come first; OUT/MODEL/ARTEFACT has them, overview.jpg and faces.csv. Without artefacts the annotation alone is
drawn, into OUT/annotated.

Otherwise faces are drawn, into PATH/drawn, laid out as 300-W is. They are test data that every machine can make:
`verify --data PATH`, `export --calibration PATH` and the others take the folder. Test faces are drawn from wider ranges
than training faces. A figure measured on them says nothing about photographs. The same options give the same files.

\b
Examples:
  lmconv draw 300w/ build/pfld/openvino-int8 --worst 30
  lmconv draw faces
  lmconv export drawn68 --to openvino --precision int8 --calibration faces
  lmconv verify build/drawn68/* --data faces
"""
MOST = 99_999
NEW, THERE = ("faces", "train", "seed", "landmarks"), ("out", "worst", "split", "dataset", "normaliser", "trust")
"""Options that are for new faces alone, and for those that are there."""


@command(name="draw", help=HELP, short_help="Draw faces with landmarks: new ones, or where an artefact fails.")
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path), metavar="[ARTIFACT]...")
@click.option("--faces", type=click.IntRange(0, MOST), default=100, show_default=True, help="New test faces.")
@click.option("--train", type=click.IntRange(0, MOST), default=300, show_default=True, help="New training faces.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another one draws other new faces.")
@click.option(
    "--landmarks",
    type=click.Choice(["68", "98"]),
    default="68",
    show_default=True,
    help="Points of new faces: 68 iBUG, 98 WFLW.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default="portraits", show_default=True, help="Where pictures of PATH go."
)
@click.option("--worst", type=click.IntRange(1, MOST), default=50, show_default=True, help="Pictures of PATH, at most.")
@click.option("--split", type=click.Choice(["test", "train", "all"]), default="test", show_default=True)
@click.option("--dataset", help="Layout of PATH, such as dlib_xml, where more than one would fit.")
@click.option("--normaliser", help="What errors are divided by; default: what is usual with the points.")
@click.option("--trust", is_flag=True, help=TRUST)
@click.option("--force", is_flag=True, help="Replace other drawn faces, or other pictures, that are there.")
def plugin(
    console: Console,
    *,
    path: Path,
    artifacts: tuple[Path, ...],
    faces: int,
    train: int,
    seed: int,
    landmarks: str,
    out: Path,
    worst: int,
    split: str,
    dataset: str | None,
    normaliser: str | None,
    trust: bool,
    force: bool,
) -> Outcome:
    if artifacts or dataset or _annotated(path):
        _refuse(NEW, "is for drawing new faces", f"leave it out, or name a folder without annotated faces, not {path}")
        return _existing(
            console, _plan(path, dataset, normaliser, out, split, worst, trust=trust, force=force), artifacts
        )
    _refuse(THERE, f"is for faces that are there, and {path} holds none", "name a folder with annotated faces")
    return _new(console, path, faces, train, seed, int(landmarks), force=force)


def _annotated(path: Path) -> bool:
    if not path.is_dir():
        return path.exists() and path.suffix != ""  # a file of annotations, or meant to be one
    from lmconv.faces.lookup import matching_datasets

    return any(found.name != "drawn" for found in matching_datasets(path))


def _refuse(options: tuple[str, ...], what: str, hint: str) -> None:
    """Refuses options that would do nothing."""
    context = click.get_current_context()
    given = [name for name in options if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    if given:
        raise UsageError(f"--{given[0]} {what}", hint=hint)


def _new(console: Console, out: Path, faces: int, train: int, seed: int, landmarks: int, *, force: bool) -> Outcome:
    if not faces + train:
        raise UsageError("no faces to draw", hint="give --faces or --train")
    from lmconv.synthetic.folder import write

    counts = {"testset": faces, "trainset": train}
    with console.progress(faces + train, "drawing") as step:
        digest = write(out, counts, seed=seed, landmarks=landmarks, force=force, step=step)
    folder = out / "drawn"
    document = {"folder": str(folder), **counts, "landmarks": landmarks, "seed": seed, "sha256": digest}
    return Outcome(document=document, text=f"{folder}: {faces} test faces, {train} training faces, {landmarks} points")


def _plan(
    path: Path, dataset: str | None, normaliser: str | None, out: Path, split: str, worst: int, **how: bool
) -> Plan:
    """What was asked for, with unknown names refused before any work."""
    from lmconv.faces.lookup import find_dataset
    from lmconv.scheme import check_normaliser
    from lmconv.visual.portraying import Plan

    if normaliser:
        check_normaliser(normaliser)
    layout = find_dataset(path, dataset)
    return Plan(data=path, layout=layout, split=split, normaliser=normaliser, out=out, worst=worst, **how)


def _existing(console: Console, plan: Plan, artifacts: tuple[Path, ...]) -> Outcome:
    from lmconv.visual import portraying

    outcome = Outcome(document={"drawings": [] if artifacts else portraying.annotation(plan)})
    with console.progress(len(artifacts), "drawing") as step:
        for artifact in artifacts:
            action = functools.partial(portraying.artifact, plan, artifact)
            row = attempt(console, action, outcome.errors, path=artifact)
            outcome.document["drawings"] += [row] if row else []
            step()
    outcome.text = _text(outcome.document["drawings"])
    return outcome


def _text(drawings: list[Json]) -> str:
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
    return table(["of", "ION %", "first", "face", "drawn", "folder"], rows) if rows else ""
