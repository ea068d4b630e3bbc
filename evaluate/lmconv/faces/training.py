"""Training faces, as `lmconv export` and `lmconv tune` use them: for calibration, comparison and judging."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from lmconv.building.request import Crops
from lmconv.faces.calibration import calibration_inputs, calibration_pictures
from lmconv.faces.lookup import calibration_faces
from lmconv.types import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFaces:
    """A folder of annotated training faces.

    Attributes:
        folder: The folder, or a file of annotations.
        split: Split of the data set: "train", "test" or "all".
    """

    folder: Path
    split: str = "train"

    def crops(self, spec: ModelSpec) -> Crops:
        """Returns the crops for a network, which are cut when first needed.

        Raises:
            InputError: The folder holds no faces.
        """
        points = len(calibration_faces(self.folder, spec, self.split).faces[0].points)
        given = "boxes alone" if points == 2 else points  # the corners of a box
        others = f"{spec.name} finds {spec.landmarks} points, the faces in {self.folder} have {given}"
        return Crops(
            cut=functools.cache(functools.partial(calibration_inputs, self.folder, spec, self.split)),
            pictures=functools.cache(functools.partial(calibration_pictures, self.folder, spec, self.split)),
            note="" if points == spec.landmarks else f"{others}: they calibrate, and ION is not judged",
        )
