"""Seeded inputs and what the source network says of them, kept beside every artefact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from lmconv.errors import InputError, first_line
from lmconv.inference.session import Outputs, outputs
from lmconv.store import artifact as artifacts
from lmconv.types import Arrays, Artifact, ModelSpec, Session

INPUTS = 8
MAPS = 2
"""For how many of them heatmaps are kept: one is a megabyte."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reference:
    """Seeded inputs and what the source network says of them, so that a machine without it can verify.

    Attributes:
        inputs: What the artefact takes, by name: `input` (8, 3, H, W) float32, or `image` (8, H, W, 3) uint8, or
            `frame` (H, W, 3) uint8 and `boxes` (8, 4) float32.
        outputs: Landmarks of all, heatmaps of the first two; of a network for detection, all that it gives.
    """

    inputs: Arrays
    outputs: Outputs


def answer(session: Session, spec: ModelSpec, reference: Reference) -> Outputs:
    """Runs an artefact on these inputs."""
    inputs = reference.inputs
    return outputs(session, spec, inputs[spec.takes[-1].name], frame=inputs.get("frame"), maps=MAPS)


def write(folder: Path, reference: Reference) -> None:
    """Writes a reference into the folder of an artefact."""
    kept = reference.outputs
    arrays: dict[str, Any] = {**reference.inputs, **(kept.raw or {"landmarks": kept.landmarks})}
    arrays |= {"heatmaps": kept.heatmaps, "undecided": kept.undecided}
    np.savez_compressed(folder / artifacts.REFERENCE, **{key: v for key, v in arrays.items() if v is not None})


def read(artifact: Artifact) -> Reference:
    """The seeded inputs of an artefact, and what its source network says of them."""
    path = artifact.path / artifacts.REFERENCE
    try:
        with np.load(path, allow_pickle=False) as file:
            maps = {key: file.get(key) for key in ("heatmaps", "undecided")}
            inputs = {tensor.name: file[tensor.name] for tensor in artifact.spec.takes}
            if artifact.spec.detects:
                raw = {tensor.name: file[tensor.name] for tensor in artifact.spec.outputs}
                points = np.empty((len(inputs["input"]), 0, 2), np.float32)
                return Reference(inputs=inputs, outputs=Outputs(landmarks=points, raw=raw))
            return Reference(inputs=inputs, outputs=Outputs(landmarks=file["landmarks"], **maps))
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(f"{path} cannot be read: {first_line(error)}", hint="export again") from error
