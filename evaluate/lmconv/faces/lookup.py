"""Finds the data set that a path holds, and the faces in the data set that fit a network."""

from __future__ import annotations

import collections
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lmconv.data import DATASETS
from lmconv.errors import InputError, OtherPoints
from lmconv.types import ModelSpec

if TYPE_CHECKING:
    from lmconv.data import Dataset, Listing


def find_dataset(path: Path, name: str | None = None) -> Dataset:
    """Finds the data-set plug-in that reads a path.

    Args:
        path: Folder with annotated faces, or annotation file.
        name: Name of the plug-in; by default the plug-in follows from the layout of the path.

    Raises:
        InputError: The path does not exist, no plug-in knows its layout, or several plug-ins do. Several are refused,
            because figures of two data sets must not be mixed.
        UsageError: No plug-in has this name.
    """
    datasets: dict[str, Dataset] = {name: DATASETS.load(name)} if name else DATASETS.load_all()
    if not path.exists():
        raise InputError(f"{path} does not exist", hint="name a folder with annotated faces")
    if name:
        return datasets[name]
    matches = matching_datasets(path)
    if len(matches) > 1:
        names = " and ".join(dataset.name for dataset in matches)
        hint = "name a folder with one data set, or choose a data set with --dataset (verify, draw)"
        raise InputError(f"{path} holds faces of {names}", hint=hint)
    if matches:
        return matches[0]
    if not path.is_dir():
        hint = "name a folder with annotated faces, or a CSV, JSON, dlib XML or plain list file (docs/datasets.md)"
        raise InputError(f"{path} is neither a folder nor a known annotation file", hint=hint)
    summaries = "; ".join(dataset.summary for dataset in datasets.values())
    raise InputError(f"{path} has no annotated faces in a known layout", hint=f"known layouts: {summaries}")


def matching_datasets(path: Path) -> list[Dataset]:
    """Returns the data-set plug-ins whose layout a path holds; without a match, the plug-ins that read a bare path."""
    datasets = DATASETS.load_all()
    matches = [dataset for dataset in datasets.values() if dataset.matches(path)]
    return matches or [dataset for dataset in datasets.values() if dataset.matches_bare(path)]


def calibration_faces(path: Path, spec: ModelSpec, split: str, dataset: Dataset | None = None) -> Listing:
    """Lists the faces for calibration, which needs pictures and squares, and no points.

    Args:
        path: Folder with annotated faces, or annotation file.
        spec: Spec of the network.
        split: `"test"`, `"train"` or `"all"`.
        dataset: Plug-in that reads the path; by default the plug-in that matches the path.

    Returns:
        The faces with the number of points that the network predicts; if there are none, the faces with the most
        common number of points.
    """
    try:
        return find_faces(path, spec, split, dataset)
    except OtherPoints:
        listing = (dataset or find_dataset(path)).faces(path, split)
        ((common, _),) = collections.Counter(len(face.points) for face in listing.faces).most_common(1)
        return replace(listing, faces=tuple(face for face in listing.faces if len(face.points) == common))


def find_faces(path: Path, spec: ModelSpec, split: str, dataset: Dataset | None = None) -> Listing:
    """Lists the faces that have the number of points that a network predicts.

    Args:
        path: Folder with annotated faces, or annotation file.
        spec: Spec of the network.
        split: `"test"`, `"train"` or `"all"`.
        dataset: Plug-in that reads the path; by default the plug-in that matches the path.

    Returns:
        The faces. `problems` states how many faces with another number of points are left out.

    Raises:
        OtherPoints: No face has this number of points.
    """
    listing = (dataset or find_dataset(path)).faces(path, split)
    counts = collections.Counter(len(face.points) for face in listing.faces)
    if not counts.pop(spec.landmarks, 0):
        points = f"{spec.name} finds {spec.landmarks} points, the faces in {path} have {min(counts)}"
        raise OtherPoints(points, hint=f"name a folder of faces with {spec.landmarks} points")
    if not counts:
        return listing
    skipped = tuple(f"{path}: {count} faces with {points} points left out" for points, count in sorted(counts.items()))
    faces = tuple(face for face in listing.faces if len(face.points) == spec.landmarks)
    return replace(listing, faces=faces, problems=(*listing.problems, *skipped))
