"""Annotated faces for a search, in folds for cross-fitting: each face is judged without being calibrated on."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmconv.building.plain import Plain
from lmconv.building.request import Crops
from lmconv.errors import InputError, UsageError
from lmconv.faces.calibration import calibration_names
from lmconv.faces.crops import FaceCrops, load_face_crops
from lmconv.inference.ort import OrtSession
from lmconv.judging import parity
from lmconv.networks.outputs import Outputs
from lmconv.quantise.static import sample
from lmconv.scheme import scheme
from lmconv.types import Float32

FOLDS = 3
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
        outputs: Returns the outputs of the source network's plain graph for the crops; computed once.
        folds: (n,) int64, index of the fold of each face, 0 to `FOLDS` - 1.
        digest: Hex sha256 of the crops and their annotated landmarks; identifies the set of faces.
        calibration: Returns network inputs for calibration, (count, 3, h, w) float32, normalised. The arguments are the
            fold to leave out, None for all faces, and the largest count.
    """

    crops: FaceCrops
    outputs: Callable[[], Outputs]
    folds: NDArray[np.int64]
    digest: str
    calibration: Callable[[int | None, int], Float32]

    @property
    def expected(self) -> Outputs:
        """Outputs of the source network's plain graph for the crops."""
        return self.outputs()

    def of_fold(self, fold: int | None) -> tuple[FaceCrops, Outputs]:
        """Returns the faces of a fold, or all faces for None, and the expected outputs for these faces."""
        return (self.crops, self.expected) if fold is None else self._some(np.flatnonzero(self.folds == fold))

    def first(self, count: int) -> tuple[FaceCrops, Outputs]:
        """Returns at most `count` faces, evenly spread, and the expected outputs for these faces."""
        return self._some(np.unique(np.linspace(0, len(self.folds) - 1, count).round().astype(int)))

    def _some(self, indices: NDArray[np.int64]) -> tuple[FaceCrops, Outputs]:
        images, squares, truth = self.crops.images, self.crops.squares, self.crops.truth
        crops = replace(self.crops, images=images[indices], squares=squares[indices], truth=truth[indices])
        return crops, Outputs(landmarks=self.expected.landmarks[indices])


def load_faces(folder: Path, split: str, base: Plain, crops: Crops) -> FoldedFaces:
    """Crops the faces, and deals the faces into folds in a seeded random order.

    Args:
        folder: Folder of annotated faces.
        split: Split of the data set: "train", "test" or "all".
        base: The plain graph of the network.
        crops: Crops for calibration, from the same faces.

    Raises:
        InputError: The folder holds no faces, or fewer than `MIN_FACES`.
        UsageError: ION is not defined for the network's number of points.
    """
    spec = base.artifact.spec
    if scheme(spec.landmarks) is None:
        hint = "use lmconv export --precision int8, which needs no ION, or define ION (docs/points.md)"
        raise UsageError(f"ION is not defined for {spec.landmarks} points, and tuning needs ION", hint=hint)
    faces = load_face_crops(folder, spec, split, most=MAX_FACES)
    if len(faces.names) < MIN_FACES:
        message = f"{folder} has {len(faces.names)} faces, and tuning needs at least {MIN_FACES}"
        raise InputError(message, hint="name a folder with more faces")
    order = np.argsort(np.random.default_rng(0).random(len(faces.names)), kind="stable")
    folds = np.empty(len(order), np.int64)
    folds[order] = np.arange(len(order)) % FOLDS
    names = np.array(faces.names)

    @functools.cache
    def outputs() -> Outputs:
        with OrtSession(base.model.SerializeToString()) as session:
            return parity.on_faces(session, spec, faces)

    @functools.cache
    def cropped() -> NDArray[np.str_]:
        return np.array(calibration_names(folder, spec, split))

    def calibration(left_out: int | None, count: int) -> Float32:
        inputs = crops()
        if left_out is not None:
            inputs = inputs[~np.isin(cropped(), names[folds == left_out])]
        return sample(inputs, count)

    digest = hashlib.sha256(faces.images.tobytes() + faces.truth.tobytes()).hexdigest()
    return FoldedFaces(crops=faces, outputs=outputs, folds=folds, digest=digest, calibration=calibration)
