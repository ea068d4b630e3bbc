"""`lmconv verify`: parity with the source network, ION on annotated faces, and gates on both."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmconv.building.limits import Relative, beside
from lmconv.console import Console, Finite, Outcome, attempt, command, table
from lmconv.options import OWN_MODEL, SOURCE_WEIGHTS, SPLIT, TRUST
from lmconv.visual.tables import interval, ion, number

if TYPE_CHECKING:
    from lmconv.detecting.loading import LoadedDetector
    from lmconv.judging.face_errors import FaceErrors
    from lmconv.judging.verification import Verifier
    from lmconv.types import Json

HELP = """Compares artefacts with their source network.

Of a folder, all artefacts below it are compared, without plain graphs. A plain graph is compared if it is named alone.

Without --data, the comparison uses seeded random inputs. With --data, every annotated face is used too: the result then
has the drift, and the ION of artefact and source with 95 % bootstrap intervals. lmconv finds the source network by its
sha256. If the network or PyTorch is missing, the artefact is compared with the stored outputs in reference.npz. An
artefact that was calibrated on any of the faces is refused: use other faces.

An artefact that takes a frame is compared on seeded frames with boxes, and on whole pictures. A face detector has no
ION: its raw outputs are compared. A detector that takes any size is also compared at an odd size.

--data is a folder in the layout of a data set, or an annotation file (docs/datasets.md). --normaliser is the length by
which errors are divided: inter-ocular, inter-pupil, box-diagonal or box-side, if defined for the points
(docs/points.md). --curve writes the cumulative error curves of all artefacts and their sources.

--boxes detector:NAME crops each face around a box of a detector, as in use, where no face is annotated. The box is the
detected box with the largest IoU with the box of the landmarks; the IoU must be above 0.3. Faces without a box are
listed, and counted in "of". These figures are not stored in the artefact's manifest.

\b
Default gates:
  fp32           max_abs <= 1e-5 (tensorrt 1e-4); heatmaps also max_map <= 1e-4
  fp32, frames   max_px <= 0.05; heatmaps max_map <= 0.01, mean_px <= 0.05
  fp16           max_px <= 0.1; heatmaps max_map <= 0.01, mean_px <= 0.1
  bf16           ion_loss <= 0.15
  int8, mixed    ion_loss <= 0.15 (onnx 0.3)
  detectors      fp32 max_abs <= 1e-4; fp16 max_map <= 0.01; bf16 max_map <= 0.05

These limits are for outputs up to 1, such as fractions of the input. For larger outputs, max_abs and max_px are
multiplied by the largest absolute coordinate of the source. max_px of fp16 is for inputs up to 64 pixels, and grows
with the longer side of larger inputs. A point where the source itself jumps when its input is rounded is a tie: ties
are counted as undecided and left out.

mean_px, ion_loss and drift need faces; the last two are in ION points. A gate that needs faces is not judged without
faces; the artefact has then not passed. ION is not computed for random weights. For an fp32 artefact of export
--compact-px, the only default gate is the bound on the distance of a point on faces (for frames, the bound plus 0.05).

-v shows every subset, with failure rate and AUC at 10 % and 8 %.

\b
Examples:
  lmconv verify build/pfld/onnx-fp32
  lmconv verify build --data 300w/ --max-drift 0.5
  lmconv verify build/pfld --data 300w/ --normaliser inter-pupil --curve ced.svg
  lmconv verify build/pfld --data 300w/ --boxes detector:rfb320
"""


class IonLoss(Finite):
    """Type of an option: a rise of ION in points, or with "%" a `Relative` rise."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parses the number; fails with click's usage error."""
        if isinstance(value, str) and value.endswith("%"):
            return Relative(percent=super().convert(value[:-1], param, ctx))
        return super().convert(value, param, ctx)


@command(name="verify", help=HELP, short_help="Compare artefacts with their source network.")
@click.argument("artifacts", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="ARTIFACT|DIR...")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    envvar="LMCONV_FACES",
    show_envvar=True,
    help="Folder or file of annotated faces.",
)
@click.option("--dataset", help="Layout of --data, such as dlib_xml, if several layouts match.")
@click.option("--split", type=click.Choice(["test", "train", "all"]), default="test", show_default=True, help=SPLIT)
@click.option("--most", type=click.IntRange(1), help="Largest number of faces, evenly spread over the data set.")
@click.option("--normaliser", help="Length by which errors are divided.  [default: the usual length for the points]")
@click.option(
    "--curve", type=click.Path(path_type=Path), help="File for cumulative error curves: FILE.csv or FILE.svg."
)
@click.option(
    "--boxes",
    metavar="BOXES",
    default="landmarks",
    show_default=True,
    help="Boxes to crop faces around: landmarks, detector:NAME, or detector:ARTIFACT,... with all its networks.",
)
@click.option("--weights", type=click.Path(path_type=Path), help=SOURCE_WEIGHTS)
@click.option("--model", help=OWN_MODEL)
@click.option("--trust", is_flag=True, help=TRUST)
@click.option(
    "--max-abs",
    type=Finite(0),
    help="Limit of the largest difference of a coordinate, fractions of the input, or of a raw output.",
)
@click.option(
    "--max-px", type=Finite(0), help="Limit of the largest distance of a point, pixels of the network's input."
)
@click.option(
    "--max-mean-px",
    type=Finite(0),
    help="Limit of the mean distance of a point on faces, pixels of the network's input.",
)
@click.option(
    "--max-map",
    type=Finite(0),
    help="Limit of the largest difference of a heatmap, or of a raw output, fractions of its range.",
)
@click.option(
    "--max-ion-loss",
    type=IonLoss(-100),
    metavar="POINTS|PERCENT%",
    help="Limit of the rise of the mean ION, ION points; 5% for percent of the source network's ION.",
)
@click.option("--max-drift", type=Finite(0), help="Limit of the mean drift on faces, ION points.")
def plugin(console: Console, **options: Any) -> Outcome:
    return _verify(console, VerifyRequest(**options))


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """Options of `lmconv verify`; each field has the name of its option or argument."""

    artifacts: tuple[Path, ...]
    data: Path | None
    dataset: str | None
    split: str
    most: int | None
    normaliser: str | None
    curve: Path | None
    boxes: str
    weights: Path | None
    model: str | None
    trust: bool
    max_abs: float | None
    max_px: float | None
    max_mean_px: float | None
    max_map: float | None
    max_ion_loss: float | Relative | None
    max_drift: float | None

    def limits(self) -> dict[str, float | Relative | None]:
        """Returns the limits by name of the gate; None keeps the default."""
        return {
            "max_abs": self.max_abs,
            "max_px": self.max_px,
            "mean_px": self.max_mean_px,
            "max_map": self.max_map,
            "ion_loss": self.max_ion_loss,
            "drift": self.max_drift,
        }

    def verifier(self, box_detector: LoadedDetector | None) -> Verifier:
        """Returns the verifier of all artefacts; `box_detector` is the detector of `--boxes`, None for landmarks."""
        from lmconv.judging.verification import Verifier

        return Verifier(
            data=self.data,
            split=self.split,
            dataset=self.dataset,
            most=self.most,
            normaliser=self.normaliser,
            box_detector=box_detector,
            weights=self.weights,
            model=self.model,
            trust=self.trust,
            limits=self.limits(),
        )


def _verify(console: Console, request: VerifyRequest) -> Outcome:
    """Checks the whole request before any work, then verifies every artefact."""
    _check(request)
    from lmconv.detecting.loading import load_boxes_option
    from lmconv.judging.verification import to_json
    from lmconv.store import artifact as store

    paths = store.below(request.artifacts)
    outcome = Outcome(document={"artifacts": []})
    curves: list[FaceErrors] = []
    with load_boxes_option(request.boxes, weights=request.weights, trust=request.trust) as box_detector:
        verifier = request.verifier(box_detector)
        with console.progress(len(paths), "verifying") as step:
            for path in paths:
                result = attempt(console, functools.partial(verifier.verify, path), outcome.errors, path=path)
                outcome.document["artifacts"] += [to_json(result)] if result else []
                curves += result.curves if result else ()
                step()
    if request.curve:
        _write_curves(console, request.curve, curves)
    rows = outcome.document["artifacts"]
    for note in (*verifier.notes, *_missing_faces(rows, request)):
        console.note(note)
    outcome.failed = any("failed" in row["gates"].values() for row in rows)
    outcome.text = "\n\n".join([_text(rows), *([_subsets(rows)] if console.verbose else [])])
    return outcome


def _check(request: VerifyRequest) -> None:
    """Refuses unknown names and file types before any work.

    Raises:
        UsageError: An option is refused.
    """
    if request.model:
        from lmconv.sources import usercode

        usercode.require_factory(request.model)
    if request.dataset:
        from lmconv.data import DATASETS

        DATASETS.load(request.dataset)
    if request.normaliser:
        from lmconv.scheme import check_normaliser

        check_normaliser(request.normaliser)
    if request.curve:
        from lmconv.visual.curves import check_suffix

        check_suffix(request.curve)


def _write_curves(console: Console, path: Path, curves: list[FaceErrors]) -> None:
    from lmconv.visual.curves import write

    if curves:
        write(path, curves)
    else:
        console.note(f"{path} is not written: no ION was measured")


def _missing_faces(rows: list[Json], request: VerifyRequest) -> list[str]:
    """Returns a note if a gate is not judged only because no faces are given."""
    unjudged = [row for row in rows if "not judged" in row["gates"].values() and row["trained"] and not row["caveat"]]
    if request.data is None and unjudged:
        return ["gates on faces are not judged: give annotated faces with --data"]
    return []


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
    parity = row["parity"]
    return [
        row["path"],
        parity["against"],
        number(parity["max_px"], ".2g") + (f" ({parity['undecided']} undecided)" if parity["undecided"] else ""),
        number(parity["mean_px"], ".2g"),
        number(parity["max_px_faces"], ".2g"),
        number(parity["mean_px_faces"], ".2g"),
        number(parity["mean_ion"], ".3f"),
        ion(row["ion"]) if row["trained"] else "no trained weights",
        ion(row["source_ion"]),
        ", ".join(_gate(name, verdict, row) for name, verdict in row["gates"].items()),
    ]


def _subsets(rows: list[Json]) -> str:
    """Returns a table of every subset of every artefact, for `-v`."""
    header = ["artefact", "subset", "faces", "ION %", "source", "difference"]
    header += ["> 10 %", "> 8 %", "AUC 10", "AUC 8"]
    cells = [
        [
            row["path"],
            name,
            f"{accuracy['n']}/{accuracy['of']}",
            interval({name: accuracy}, ".3f"),
            interval({name: row["source_ion"][name]} if row["source_ion"] else None, ".3f"),
            interval({name: row["delta_ion"][name]} if row["delta_ion"] else None, "+.3f"),
            *(number(accuracy.get(key), ".1f") for key in ("failure_rate", "failure_rate_8")),
            *(number(accuracy.get(key), ".3f") for key in ("auc", "auc_8")),
        ]
        for row in rows
        for name, accuracy in (row["ion"] or {}).items()
    ]
    return table(header, cells, left=2) if cells else ""


def _gate(name: str, verdict: str, row: Json) -> str:
    figure, limit = row["figures"].get(name), row["limits"][name]
    known = figure is not None and limit is not None
    texts = beside(figure, limit) if known else (number(figure, ".2g"), number(limit, ".4g"))
    return f"{name} {texts[0]} (limit {texts[1]}) {verdict}"
