"""The finished artefact against the source network, before the artefact is written under its name."""

from __future__ import annotations

from pathlib import Path

from lmconv.building.limits import (
    ENGINE_TOLERANCE,
    FRAME_MAP_TOLERANCE,
    FRAME_TOLERANCE,
    MAP_TOLERANCE,
    RAW_TOLERANCE,
    TOLERANCE,
)
from lmconv.errors import GateFailed
from lmconv.inference.session import gap
from lmconv.store import artifact as artifacts
from lmconv.store import reference as reference_file
from lmconv.store.reference import Reference
from lmconv.types import OpenOptions, Precision, Target


def accept(folder: Path, target: Target, reference: Reference) -> None:
    """Runs a finished artefact on seeded inputs and compares the outputs with the source network.

    Heatmaps are compared themselves: below fp32 a point may jump where two cells are almost equal.

    Args:
        folder: Folder of the artefact.
        target: Target of the artefact.
        reference: Seeded inputs and the expected outputs.

    Raises:
        GateFailed: The outputs differ by more than the precision allows.
    """
    artifact = artifacts.read(folder)
    precision = artifact.precision
    with target.open(artifact, OpenOptions()) as session:
        result = reference_file.answer(session, artifact.spec, reference)
    apart = gap(result, reference.outputs, artifact.spec)
    framed = artifact.spec.io == "frame"
    held = Precision.BF16 if framed and artifacts.bound_px(artifact) else precision
    least = FRAME_TOLERANCE if framed else ENGINE_TOLERANCE if target.engines else 0
    gaps = {"landmarks": (apart.landmarks.max_abs, max(TOLERANCE[held], least))}
    if artifact.spec.detects:
        off = apart.landmarks.max_abs if precision == Precision.FP32 else apart.max_map or 0.0
        gaps = {"outputs": (off, RAW_TOLERANCE[held])}
    elif apart.max_map is not None:
        maps = {"heatmaps": (apart.max_map, max(MAP_TOLERANCE[held], FRAME_MAP_TOLERANCE if framed else 0))}
        gaps = gaps | maps if precision == Precision.FP32 and not framed else maps
    for what, (off, allowed) in gaps.items():
        if off > allowed:
            raise GateFailed(
                f"{artifact.spec.name} as {artifact.target} {precision}: {what} are {off:.2g} off, allowed {allowed:g}",
                hint="it was not written; please report this network",
            )
