"""`lmconv verify`: parity with the source network, ION on annotated faces, and gates on both."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lmconv.console import Console, Finite, Outcome, attempt, command, table
from lmconv.data import DATASETS
from lmconv.options import TRUST
from lmconv.sources import usercode
from lmconv.visual.tables import interval, ion, number

if TYPE_CHECKING:
    from lmconv.types import Json

HELP = """Holds artefacts against the network they came from.

Without --data, on seeded random inputs. With it, on every annotated face too: drift, and ION of the artefact and of its
source with 95 % bootstrap intervals. The source network is found by its sha256; without it, or without PyTorch, the
outputs kept in reference.npz stand in for it. An artefact that was calibrated on any of these faces is refused: name
others.

An artefact that takes a frame gets seeded frames with boxes, and whole pictures; its fp32 gate is max_px <= 0.05 in
place of max_abs (heatmaps: max_map <= 0.01 and, on faces, mean_px <= 0.05).

A face detector has no ION: its raw outputs are compared, at an odd size too where it takes any. Its gates are fp32
max_abs <= 1e-4, fp16 max_map <= 0.01 and bf16 max_map <= 0.05.

--data is a folder in the layout of a data set, or a file of annotations (docs/datasets.md). What errors are divided by
is --normaliser: inter-ocular, inter-pupil, box-diagonal or box-side, as far as the points have it (docs/points.md).
--curve writes the cumulative error curves of all artefacts and their sources.

With --boxes detector:NAME faces are cut around the detector's box that overlaps most with that of their landmarks, by
more than 0.3: what they are cut around where nobody has annotated them. Faces that it does not find are named, and
counted in "of". These figures are not kept in the artefact's manifest.

With -v every subset is shown, with failure rate and AUC at 10 and at 8 %. Default gates: fp32 max_abs <= 1e-5 (tensorrt
1e-4); fp16 max_px <= 0.1; bf16 and int8 ion_loss <= 5 % (int8 on onnx 10 %). Of heatmaps: fp32 max_map <= 1e-4 too;
fp16 max_map <= 0.01 and, on faces, mean_px <= 0.1. A gate that needs faces is not judged without them, and then the
artefact has not passed. Of random weights no ION is given.

\b
Examples:
  lmconv verify build/pfld/onnx-fp32
  lmconv verify build/pfld/* --data 300w/ --max-drift 0.5
  lmconv verify build/pfld/* --data 300w/ --normaliser inter-pupil --curve ced.svg
  lmconv verify build/pfld/* --data 300w/ --boxes detector:rfb320
"""


@command(name="verify", help=HELP, short_help="Compare artefacts with the network they came from.")
@click.argument("artifacts", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="ARTIFACT...")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    envvar="LMCONV_FACES",
    show_envvar=True,
    help="Folder or file of annotated faces.",
)
@click.option("--dataset", help="Layout of --data, such as dlib_xml, where more than one would fit.")
@click.option("--split", type=click.Choice(["test", "train", "all"]), default="test", show_default=True)
@click.option("--most", type=click.IntRange(1), help="At most so many faces, evenly spread over the data set.")
@click.option("--normaliser", help="What errors are divided by; default: what is usual with the points.")
@click.option("--curve", type=click.Path(path_type=Path), help="Write cumulative error curves: FILE.csv or FILE.svg.")
@click.option(
    "--boxes",
    metavar="BOXES",
    default="landmarks",
    show_default=True,
    help="What faces are cut around: their landmarks, or detector:NAME, or detector:ARTIFACT,... of its networks.",
)
@click.option("--weights", type=click.Path(path_type=Path), help="The checkpoint, or a folder to look in first.")
@click.option("--model", help="FILE.py:NAME of a network of your own; its code runs only when you name it.")
@click.option("--trust", is_flag=True, help=TRUST)
@click.option(
    "--max-abs", type=Finite(0), help="Largest difference of a coordinate, fractions of the input; or of a raw output."
)
@click.option("--max-px", type=Finite(0), help="Largest distance of a point, pixels of the network's input.")
@click.option("--max-mean-px", type=Finite(0), help="Mean distance of a point on faces, pixels of the network's input.")
@click.option(
    "--max-map", type=Finite(0), help="Largest difference of a heatmap, or raw output, fractions of its range."
)
@click.option("--max-ion-loss", type=Finite(-100), help="Rise of the mean ION over the source's, percent of it.")
@click.option("--max-drift", type=Finite(0), help="Mean drift on faces, ION points.")
def plugin(
    console: Console,
    *,
    artifacts: tuple[Path, ...],
    data: Path | None,
    dataset: str | None,
    split: str,
    most: int | None,
    normaliser: str | None,
    curve: Path | None,
    boxes: str,
    weights: Path | None,
    model: str | None,
    trust: bool,
    max_abs: float | None,
    max_px: float | None,
    max_mean_px: float | None,
    max_map: float | None,
    max_ion_loss: float | None,
    max_drift: float | None,
) -> Outcome:
    if model:
        usercode.require_factory(model)
    _check(dataset, normaliser, curve)
    from lmconv.detecting.opening import chosen
    from lmconv.judging.face_errors import FaceErrors
    from lmconv.judging.verification import Verifier, to_json
    from lmconv.visual import curves

    given = {"max_abs": max_abs, "max_px": max_px, "mean_px": max_mean_px, "max_map": max_map}
    given |= {"ion_loss": max_ion_loss, "drift": max_drift}
    outcome, drawn = Outcome(document={"artifacts": []}), list[FaceErrors]()
    with chosen(boxes, weights=weights, trust=trust) as finder:
        verifier = Verifier(
            data=data,
            split=split,
            dataset=dataset,
            most=most,
            normaliser=normaliser,
            finder=finder,
            weights=weights,
            model=model,
            trust=trust,
            limits=given,
        )
        with console.progress(len(artifacts), "verifying") as step:
            for path in artifacts:
                row = attempt(console, functools.partial(verifier.verify, path), outcome.errors, path=path)
                outcome.document["artifacts"] += [to_json(row)] if row else []
                drawn += row.curves if row else ()
                step()
    if curve and drawn:
        curves.write(curve, drawn)
    elif curve:
        console.note(f"{curve} is not written: no ION was measured")
    for note in verifier.notes:
        console.note(note)
    rows = outcome.document["artifacts"]
    if data is None and any(
        row["trained"] and not row["caveat"] and "not judged" in row["gates"].values() for row in rows
    ):
        console.note("gates on ION are not judged: name annotated faces with --data")
    outcome.failed = any("failed" in row["gates"].values() for row in rows)
    outcome.text = "\n\n".join([_text(rows), *([_subsets(rows)] if console.verbose else [])])
    return outcome


def _check(dataset: str | None, normaliser: str | None, curve: Path | None) -> None:
    """Refuses unknown names and file types before any work."""
    if dataset:
        DATASETS.load(dataset)
    if normaliser:
        from lmconv.scheme import check_normaliser

        check_normaliser(normaliser)
    if curve:
        from lmconv.visual.curves import check

        check(curve)


def _text(rows: list[Json]) -> str:
    header = [
        "artefact",
        "against",
        "max px",
        "mean px",
        "faces max",
        "faces mean",
        "drift",
        "ION %",
        "source",
        "gates",
    ]
    return table(header, [_cells(row) for row in rows]) if rows else ""


def _cells(row: Json) -> list[str]:
    gap = row["parity"]
    return [
        row["path"],
        gap["against"],
        number(gap["max_px"], ".2g") + (f" ({gap['undecided']} undecided)" if gap["undecided"] else ""),
        number(gap["mean_px"], ".2g"),
        number(gap["max_px_faces"], ".2g"),
        number(gap["mean_px_faces"], ".2g"),
        number(gap["mean_ion"], ".3f"),
        ion(row["ion"]) if row["trained"] else "no trained weights",
        ion(row["source_ion"]),
        ", ".join(_gate(name, verdict, row) for name, verdict in row["gates"].items()),
    ]


def _subsets(rows: list[Json]) -> str:
    """Table of every subset of every artefact, for `-v`."""
    header = ["artefact", "subset", "faces", "ION %", "source", "difference"]
    header += ["> 10 %", "> 8 %", "AUC 10", "AUC 8"]
    cells = [
        [
            row["path"],
            name,
            f"{found['n']}/{found['of']}",
            interval({name: found}, ".3f"),
            interval({name: row["source_ion"][name]} if row["source_ion"] else None, ".3f"),
            interval({name: row["delta_ion"][name]} if row["delta_ion"] else None, "+.3f"),
            *(number(found.get(name), ".1f") for name in ("failure_rate", "failure_rate_8")),
            *(number(found.get(name), ".3f") for name in ("auc", "auc_8")),
        ]
        for row in rows
        for name, found in (row["ion"] or {}).items()
    ]
    return table(header, cells, left=2) if cells else ""


def _gate(name: str, verdict: str, row: Json) -> str:
    figure = number(row["figures"].get(name), ".2g")
    return f"{name} {figure} (limit {row['limits'][name]:g}) {verdict}"
