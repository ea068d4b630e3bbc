"""One network under test: its source, its plain graph and its annotated faces.

`prepare` and `judge` both open the subject here: weights, faces and seeded inputs are the same in both.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from lmconv.building.plain import Plain, plain_graph
from lmconv.building.request import Crops
from lmconv.errors import InputError
from lmconv.faces.lookup import find_dataset
from lmconv.faces.training import TrainingFaces
from lmconv.networks.heads import head_of
from lmconv.sources import checkpoints
from lmconv.sources.resolve import resolve
from lmconv.store.reference import MAPS, Reference
from lmconv.types import ModelSpec, Source

TARGET = "tensorrt"
"""Target of all graphs in the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One network under test.

    Attributes:
        source: Source network; seeded random weights where no trained weights are available.
        plain: Its plain graph.
        calibration: Training faces, for int8; None where no graph is built.
    """

    source: Source
    plain: Plain
    calibration: Crops | None = None

    @property
    def spec(self) -> ModelSpec:
        """Spec of the plain graph."""
        return self.plain.artifact.spec

    @property
    def trained(self) -> bool:
        """True if the weights were trained."""
        return self.source.path is not None

    @property
    def judged(self) -> str:
        """Name of the output by which networks are compared."""
        return head_of(self.spec).judged

    @property
    def reference(self) -> Reference:
        """Seeded inputs and expected outputs.

        A heatmap network has only the inputs whose expected heatmaps are stored: the first `MAPS`.
        """
        reference = self.plain.reference
        if self.judged != "heatmaps":
            return reference
        outputs = reference.outputs
        undecided = None if outputs.undecided is None else outputs.undecided[:MAPS]
        shortened = replace(outputs, landmarks=outputs.landmarks[:MAPS], undecided=undecided)
        return Reference(inputs={"input": reference.inputs["input"][:MAPS]}, outputs=shortened)


def annotated_faces() -> Path:
    """Returns the folder of annotated faces, from LMCONV_FACES.

    Raises:
        InputError: The variable is not set, or the folder has no known layout.
    """
    faces = os.environ.get("LMCONV_FACES")
    if not faces:
        hint = "export LMCONV_FACES=DIR, see README.md"
        raise InputError("int8 is calibrated and judged on annotated faces, and LMCONV_FACES names none", hint=hint)
    find_dataset(Path(faces))
    return Path(faces)


def opened(name: str, build: Path, faces: Path | None = None) -> Subject:
    """Opens a network and makes its plain graph.

    Args:
        name: Name of the backbone.
        build: Folder of the plain graphs.
        faces: Annotated faces; only the training part is used here.
    """
    path = checkpoints.find(name)
    source = resolve(name, weights=path, seed=None if path else 0)
    calibration = _calibration(faces, source) if faces else None
    plain = plain_graph(source, build, crops=calibration)
    return Subject(source=source, plain=plain, calibration=calibration)


def _calibration(faces: Path, source: Source) -> Crops:
    """Training faces of the folder, cut out when they are first needed."""
    return TrainingFaces(folder=faces).crops(source.spec)
