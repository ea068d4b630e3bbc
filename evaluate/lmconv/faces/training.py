"""Training faces, as `lmconv export` and `lmconv tune` use them: for calibration, comparison and judging."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from lmconv.building.request import Crops
from lmconv.faces.calibration import calibration_inputs, calibration_pictures
from lmconv.faces.lookup import check_points
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
            OtherPoints: The faces are annotated with another number of points.
            InputError: The folder holds no faces.
        """
        check_points(self.folder, self.split, spec)
        return Crops(
            cut=functools.cache(functools.partial(calibration_inputs, self.folder, spec, self.split)),
            pictures=functools.cache(functools.partial(calibration_pictures, self.folder, spec, self.split)),
        )
