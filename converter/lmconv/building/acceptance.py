"""The finished artefact against the source network, before the artefact is written under its name."""

from __future__ import annotations

from pathlib import Path

from lmconv.building import limits
from lmconv.errors import GateFailed
from lmconv.networks.heads import head_of
from lmconv.networks.interfaces import interface_of
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
    head, cut_inside = head_of(artifact.spec), interface_of(artifact.spec).cuts_crops
    gap = head.gap(result, reference.outputs)
    gaps = head.accepted_gaps(gap, exact=precision == Precision.FP32 and not cut_inside)
    loose = cut_inside and artifacts.bound_px(artifact)
    allowed = limits.acceptance(target, Precision.BF16 if loose else precision, artifact.spec.io)
    for what, off in gaps.items():
        if off > allowed[what]:
            limit = f"{what} are {off:.2g} off, allowed {allowed[what]:g}"
            raise GateFailed(
                f"{artifact.spec.name} as {artifact.target} {precision}: {limit}",
                hint="it was not written; please report this network",
            )
