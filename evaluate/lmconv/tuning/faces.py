"""The faces that a search judges by: each is judged by a network that was calibrated without it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmconv.errors import InputError, UsageError
from lmconv.faces.calibration import calibration_inputs
from lmconv.faces.crops import FaceCrops, load_face_crops
from lmconv.inference.ort import OrtSession
from lmconv.judging import parity
from lmconv.networks.outputs import Outputs
from lmconv.quantise.static import sample
from lmconv.scheme import scheme
from lmconv.types import Float32, ModelSpec

FOLDS = 5
FEWEST = 10
"""Faces without which nothing can be said of any other."""
MOST = 600
"""Faces judged by at most: what they leave uncertain is small beside what training left."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Faces:
    """Annotated faces in folds.

    Attributes:
        crops: The n faces.
        expected: What the source says of them.
        fold: (n,) ints, which fold each is in.
        digest: Tells these faces from others.
        calibration: Network inputs to calibrate on: of all but those of a fold, or of all where it is None.
    """

    crops: FaceCrops
    expected: Outputs
    fold: NDArray[np.int64]
    digest: str
    calibration: Callable[[int | None], Float32]

    def part(self, fold: int | None) -> tuple[FaceCrops, Outputs]:
        """The faces of a fold, or all, with what the source says of them."""
        if fold is None:
            return self.crops, self.expected
        chosen = np.flatnonzero(self.fold == fold)
        images, squares, truth = self.crops.images, self.crops.squares, self.crops.truth
        crops = replace(self.crops, images=images[chosen], squares=squares[chosen], truth=truth[chosen])
        return crops, Outputs(landmarks=self.expected.landmarks[chosen])


def load(folder: Path, split: str, spec: ModelSpec, model: bytes, count: int) -> Faces:
    """Cuts the faces out, asks the source's plain graph about them, and deals them to folds.

    Args:
        folder: Holds annotated faces.
        split: Which of them.
        spec: The network's.
        model: Its plain graph, serialised.
        count: How many crops are calibrated on.

    Raises:
        InputError: There are none, or too few of them.
        UsageError: ION is not defined for these points.
    """
    if scheme(spec.landmarks) is None:
        hint = "lmconv export --precision int8 needs no ION; docs/points.md says how to define it"
        raise UsageError(f"ION is not defined for {spec.landmarks} points: there is nothing to tune by", hint=hint)
    found = load_face_crops(folder, spec, split, most=MOST)
    if len(found.names) < FEWEST:
        raise InputError(
            f"{folder} has {len(found.names)} faces, and tuning needs {FEWEST} at least", hint="name a larger folder"
        )
    order = np.argsort(np.random.default_rng(0).random(len(found.names)), kind="stable")
    fold = np.empty(len(order), np.int64)
    fold[order] = np.arange(len(order)) % FOLDS
    with OrtSession(model) as session:
        expected = parity.on_faces(session, spec, found)
    names = np.array(found.names)
    kept: dict[int | None, Float32] = {}

    def calibration(left_out: int | None) -> Float32:
        if left_out not in kept:
            without = frozenset() if left_out is None else frozenset(names[fold == left_out].tolist())
            kept[left_out] = sample(calibration_inputs(folder, spec, split, without=without), count)
        return kept[left_out]

    told = hashlib.sha256(found.images.tobytes() + found.truth.tobytes()).hexdigest()
    return Faces(crops=found, expected=expected, fold=fold, digest=told, calibration=calibration)
