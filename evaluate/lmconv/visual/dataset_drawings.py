"""Draws the faces of a data set: with the landmarks that an artefact predicts, or the annotation alone."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lmconv.data import Dataset
from lmconv.errors import UsageError
from lmconv.faces.crops import load_face_crops
from lmconv.inference.loading import usable
from lmconv.judging import parity
from lmconv.judging.nme import scheme_of
from lmconv.networks.squares import to_picture
from lmconv.store import artifact as artifacts
from lmconv.store.files import finite
from lmconv.types import Json, OpenOptions, landmark_spec
from lmconv.visual.worst_faces import Predictions, write_faces


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingRequest:
    """Faces to draw, and the folder for the pictures.

    Attributes:
        data: Folder or file of annotated faces.
        layout: Data set plug-in that reads `data`.
        split: Split of the data set: "test", "train" or "all".
        normaliser: Name of the normaliser of the errors; None for the default of the point scheme.
        out: Folder that holds a folder of pictures per artefact.
        worst: Largest number of faces per artefact.
        trust: See `OpenOptions`.
        force: True to replace the pictures of an earlier call.
    """

    data: Path
    layout: Dataset
    split: str = "test"
    normaliser: str | None = None
    out: Path
    worst: int = 50
    trust: bool = False
    force: bool = False


def draw_annotation(plan: DrawingRequest) -> list[Json]:
    """Draws the annotated points alone, in one folder per number of points.

    Returns:
        A row of `lmconv draw --json` per folder.
    """
    counts = sorted(Counter(len(face.points) for face in plan.layout.faces(plan.data, plan.split).faces))
    rows = []
    for count in counts:
        spec = landmark_spec("annotated", "annotated", size=(1, 1), landmarks=count)
        faces = load_face_crops(plan.data, spec, plan.split, dataset=plan.layout, most=plan.worst)
        folder = plan.out / (f"annotated-{count}" if len(counts) > 1 else "annotated")
        face_rows = write_faces(folder, faces, None, count=plan.worst, force=plan.force)
        rows.append({"path": None, "folder": str(folder), "normaliser": None, "mean": None, "faces": face_rows})
    return rows


def draw_predictions(plan: DrawingRequest, path: Path) -> Json:
    """Draws the landmarks that one artefact predicts, the faces with the largest errors first.

    Returns:
        A row of `lmconv draw --json`.

    Raises:
        InputError: The artefact, the faces or the output folder are missing or broken.
        MissingRuntime: The runtime of the artefact is not installed.
        UsageError: The artefact predicts no landmarks, or ION is not defined for its number of landmarks.
    """
    artifact, options = artifacts.read(path), OpenOptions(trust=plan.trust)
    if artifact.spec.task != "landmarks":
        raise UsageError(f"{path} detects faces, not landmarks", hint="name an artefact of a landmark network")
    scheme = scheme_of(artifact.spec.landmarks)
    scheme.normaliser(plan.normaliser)
    target = usable(artifact, options)
    faces = load_face_crops(plan.data, artifact.spec, plan.split, dataset=plan.layout)
    faces = dataclasses.replace(faces, normaliser=plan.normaliser)
    with target.open(artifact, options) as session:
        outputs = parity.on_faces(session, artifact.spec, faces)
    points = to_picture(outputs.landmarks, faces.squares)
    predictions = Predictions(points=points, errors=parity.errors(outputs, faces))
    folder = plan.out / artifact.spec.name / path.absolute().name
    return {
        "path": str(path),
        "folder": str(folder),
        "normaliser": plan.normaliser or scheme.default,
        "mean": finite(float(predictions.errors.mean())),
        "faces": write_faces(folder, faces, predictions, count=plan.worst, force=plan.force),
    }
