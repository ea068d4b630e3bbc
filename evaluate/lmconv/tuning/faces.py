"""Annotated faces for a search, in folds for cross-fitting: each face is judged without being calibrated on."""

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
"""Number of folds."""
MIN_FACES = 10
"""Smallest number of faces for a search; a result on fewer faces does not carry over to other faces."""
MAX_FACES = 600
"""Largest number of faces to judge on; the remaining sampling error is small beside the error of a trained network."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoldedFaces:
    """Annotated faces, dealt into folds.

    Attributes:
        crops: The n face crops with their annotation.
        expected: Outputs of the source network's plain graph for the crops.
        folds: (n,) int64, index of the fold of each face, 0 to `FOLDS` - 1.
        digest: Hex sha256 of the crops and their annotated landmarks; identifies the set of faces.
        calibration: Returns network inputs for calibration, (count, 3, h, w) float32, normalised. The argument is the
            fold to leave out; None uses all faces.
    """

    crops: FaceCrops
    expected: Outputs
    folds: NDArray[np.int64]
    digest: str
    calibration: Callable[[int | None], Float32]

    def of_fold(self, fold: int | None) -> tuple[FaceCrops, Outputs]:
        """Returns the faces of a fold, or all faces for None, and the expected outputs for these faces."""
        if fold is None:
            return self.crops, self.expected
        indices = np.flatnonzero(self.folds == fold)
        images, squares, truth = self.crops.images, self.crops.squares, self.crops.truth
        crops = replace(self.crops, images=images[indices], squares=squares[indices], truth=truth[indices])
        return crops, Outputs(landmarks=self.expected.landmarks[indices])


def load_faces(folder: Path, split: str, spec: ModelSpec, model: bytes, count: int) -> FoldedFaces:
    """Crops the faces, runs the plain graph on the crops, and deals the faces into folds in a seeded random order.

    Args:
        folder: Folder of annotated faces.
        split: Split of the data set: "train", "test" or "all".
        spec: Spec of the network.
        model: Serialised plain ONNX graph of the network.
        count: Largest number of crops for one calibration.

    Raises:
        InputError: The folder holds no faces, or fewer than `MIN_FACES`.
        UsageError: ION is not defined for the network's number of points.
    """
    if scheme(spec.landmarks) is None:
        hint = "use lmconv export --precision int8, which needs no ION, or define ION (docs/points.md)"
        raise UsageError(f"ION is not defined for {spec.landmarks} points, and tuning needs ION", hint=hint)
    crops = load_face_crops(folder, spec, split, most=MAX_FACES)
    if len(crops.names) < MIN_FACES:
        message = f"{folder} has {len(crops.names)} faces, and tuning needs at least {MIN_FACES}"
        raise InputError(message, hint="name a folder with more faces")
    order = np.argsort(np.random.default_rng(0).random(len(crops.names)), kind="stable")
    folds = np.empty(len(order), np.int64)
    folds[order] = np.arange(len(order)) % FOLDS
    with OrtSession(model) as session:
        expected = parity.on_faces(session, spec, crops)
    names = np.array(crops.names)
    cache: dict[int | None, Float32] = {}

    def calibration(left_out: int | None) -> Float32:
        if left_out not in cache:
            without = frozenset() if left_out is None else frozenset(names[folds == left_out].tolist())
            cache[left_out] = sample(calibration_inputs(folder, spec, split, without=without), count)
        return cache[left_out]

    digest = hashlib.sha256(crops.images.tobytes() + crops.truth.tobytes()).hexdigest()
    return FoldedFaces(crops=crops, expected=expected, folds=folds, digest=digest, calibration=calibration)
