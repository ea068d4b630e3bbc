"""Draws the faces of a data set: what artefacts find in them, or the annotation alone."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lmconv.data import Dataset
from lmconv.errors import UsageError
from lmconv.faces import crops
from lmconv.inference.loading import usable
from lmconv.judging import parity
from lmconv.judging.ion import scheme_of
from lmconv.networks.squares import to_picture
from lmconv.store import artifact as artifacts
from lmconv.store.files import finite
from lmconv.types import Json, OpenOptions, landmark_spec
from lmconv.visual import portraits


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is drawn, and where.

    Attributes:
        data: Folder or file of annotated faces.
        layout: Its data set.
        split: Which part of it: "test", "train" or "all".
        normaliser: What errors are divided by, by name; None for what is usual with the points.
        out: The folder of folders.
        worst: How many faces of each artefact at most.
        trust: See `OpenOptions`.
        force: Whether pictures that are there are replaced.
    """

    data: Path
    layout: Dataset
    split: str = "test"
    normaliser: str | None = None
    out: Path
    worst: int = 50
    trust: bool = False
    force: bool = False


def annotation(plan: Plan) -> list[Json]:
    """Draws the annotation alone, of each number of points."""
    counts = sorted(Counter(len(face.points) for face in plan.layout.faces(plan.data, plan.split).faces))
    rows = []
    for count in counts:
        spec = landmark_spec("annotated", "annotated", size=(1, 1), landmarks=count)
        faces = crops.load(plan.data, spec, plan.split, dataset=plan.layout, most=plan.worst)
        folder = plan.out / (f"annotated-{count}" if len(counts) > 1 else "annotated")
        drawn = portraits.write(folder, faces, None, most=plan.worst, force=plan.force)
        rows.append({"path": None, "folder": str(folder), "normaliser": None, "mean": None, "faces": drawn})
    return rows


def artifact(plan: Plan, path: Path) -> Json:
    """Draws what one artefact finds, worst faces first.

    Raises:
        InputError: The artefact, the faces or the place are missing or broken.
        MissingRuntime: Its runtime is not here.
        UsageError: It finds no landmarks, or such as ION is not defined for.
    """
    found, options = artifacts.read(path), OpenOptions(trust=plan.trust)
    if found.spec.task != "landmarks":
        raise UsageError(f"{path} finds faces, not landmarks", hint="name an artefact of a landmark network")
    rule = scheme_of(found.spec.landmarks)
    rule.normaliser(plan.normaliser)
    target = usable(found, options)
    faces = crops.load(plan.data, found.spec, plan.split, dataset=plan.layout)
    faces = dataclasses.replace(faces, normaliser=plan.normaliser)
    with target.open(found, options) as session:
        points = parity.on_faces(session, found.spec, faces)
    answer = portraits.Found(points=to_picture(points.landmarks, faces.squares), errors=parity.errors(points, faces))
    folder = plan.out / found.spec.name / path.absolute().name
    return {
        "path": str(path),
        "folder": str(folder),
        "normaliser": plan.normaliser or rule.default,
        "mean": finite(float(answer.errors.mean())),
        "faces": portraits.write(folder, faces, answer, most=plan.worst, force=plan.force),
    }
