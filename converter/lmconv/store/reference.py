"""reference.npz: seeded inputs and the outputs of the source network, kept with every artefact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from lmconv.errors import InputError, first_line
from lmconv.inference.session import outputs
from lmconv.networks.heads import head_of
from lmconv.networks.interfaces import interface_of
from lmconv.networks.outputs import Outputs
from lmconv.store import artifact as artifacts
from lmconv.types import Arrays, Artifact, ModelSpec, Session

INPUTS = 8
"""Number of seeded inputs."""
MAPS = 2
"""Number of inputs for which heatmaps are kept: the heatmaps of one input take a megabyte."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reference:
    """Seeded inputs and the outputs of the source network: a machine without the source network can verify.

    Attributes:
        inputs: Inputs of the artefact by name: `input` (8, 3, H, W) float32, or `image` (8, H, W, 3) uint8, or
            `frame` (H, W, 3) uint8 and `boxes` (8, 4) float32.
        outputs: Landmarks of all inputs and heatmaps of the first two; all outputs of a detector.
    """

    inputs: Arrays
    outputs: Outputs


def answer(session: Session, spec: ModelSpec, reference: Reference) -> Outputs:
    """Runs an artefact on the inputs of a reference."""
    inputs, name = reference.inputs, interface_of(spec).batched
    return outputs(session, spec, inputs[name], frame=inputs.get("frame"), maps=MAPS)


def write(folder: Path, spec: ModelSpec, reference: Reference) -> None:
    """Writes a reference into the folder of an artefact.

    Args:
        folder: Folder of the artefact.
        spec: Spec of the artefact.
        reference: The seeded inputs and the expected outputs.
    """
    arrays: dict[str, Any] = {**reference.inputs, **head_of(spec).to_arrays(reference.outputs)}
    np.savez_compressed(folder / artifacts.REFERENCE, **arrays)


def read(artifact: Artifact) -> Reference:
    """Reads the seeded inputs of an artefact and the outputs of its source network.

    Raises:
        InputError: The file is missing or broken.
    """
    path, spec = artifact.path / artifacts.REFERENCE, artifact.spec
    try:
        with np.load(path, allow_pickle=False) as file:
            inputs = {tensor.name: file[tensor.name] for tensor in interface_of(spec).inputs}
            return Reference(inputs=inputs, outputs=head_of(spec).from_arrays(file))
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(f"{path} cannot be read: {first_line(error)}", hint="export again") from error
