"""The documented way to convert a network: `from lmconv.pipeline import convert`."""

from __future__ import annotations

from pathlib import Path

from lmconv.building.assembling import build
from lmconv.building.feasibility import check_variant
from lmconv.building.plain import plain_graph
from lmconv.building.request import DEFAULT, Choices, Conversion, Crops
from lmconv.types import Artifact, Io, Precision, Source, Variant

__all__ = ["Choices", "Crops", "convert"]


def convert(
    source: Source,
    target: str,
    precision: Precision,
    *,
    out: Path = Path("build"),
    crops: Crops | None = None,
    batch: int | None = None,
    io: Io = "tensor",
    choices: Choices = DEFAULT,
) -> Artifact:
    """Converts one network for one target, in one precision.

    Args:
        source: The network to convert, from `lmconv.source.resolve`.
        target: Name of a target: "onnx", "openvino", "tensorrt".
        precision: Precision of the artefact.
        out: The artefact is written to `out/MODEL/TARGET-PRECISION/`, with `-image` or `-frame` appended for such
            an input; its plain graph is written to `out/MODEL/plain/`.
        crops: Real faces: int8 calibrates on the crops, and every pass is compared on them.
        batch: A fixed batch size; None for a free one.
        io: Input of the artefact, see `lmconv.networks.interfaces`.
        choices: Passes to skip, the bound for compaction, and other options.

    Returns:
        The artefact, compared with the source network before it was written.

    Raises:
        UsageError: The target has no such precision or input, or the precision needs faces and none are given.
        MissingRuntime: The runtime of the target is not installed.
        InputError: The source is broken, or the folder cannot be written.
        GateFailed: The artefact does not compute the landmarks of the source; nothing is written.
    """
    variant = Variant(target=target, precision=precision, io=io, batch=batch)
    check_variant(variant, faces=crops is not None)
    base = plain_graph(source, out, crops=crops, batch=batch)
    return build(Conversion(base=base, out=out, crops=crops, choices=choices), variant)
