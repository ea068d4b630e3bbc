"""The kinds of input that an artefact can have: the network's own tensor, crops, or a frame and boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lmconv.networks.interfaces.base import Interface, Unit
from lmconv.networks.interfaces.frame import FrameInterface
from lmconv.networks.interfaces.image import ImageInterface
from lmconv.networks.interfaces.tensor import TensorInterface
from lmconv.types import Io, ModelSpec, Variant

__all__ = ["INTERFACES", "FrameInterface", "ImageInterface", "Interface", "TensorInterface", "Unit"]
__all__ += ["folder_name", "interface_of"]

INTERFACES: Mapping[Io, type[Interface]] = {
    interface.name: interface for interface in (TensorInterface, ImageInterface, FrameInterface)
}


def interface_of(spec: ModelSpec, io: Io | None = None) -> Interface:
    """Returns the interface of an artefact.

    Args:
        spec: Spec of the artefact.
        io: Another input than that of the spec.
    """
    return INTERFACES[io or spec.io](replace(spec, io=io) if io else spec)


def folder_name(variant: Variant) -> str:
    """Returns the name of an artefact's folder: `TARGET-PRECISION`, and the input unless the input is a tensor."""
    return f"{variant.target}-{variant.precision}{INTERFACES[variant.io].suffix}"
