"""Networks of the GPU record, with the engine profiles and batch sizes of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from lmconv.errors import UsageError

Profile: TypeAlias = tuple[int, int, int]
"""Smallest, best and largest batch of an engine."""

DEFAULT: Profile = (1, 8, 64)
"""The profile of an export without `--batch`."""
WIDE: Profile = (1, 256, 256)
"""The profile for throughput."""
SMALL: Profile = (1, 1, 8)
"""The profile for one face at a time."""
SWEEP = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Batch sizes of the networks that are timed at every size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One network of the record.

    Attributes:
        name: Name of the backbone.
        profiles: Suffix of the case name, and engine profile. The case without a suffix is compared in full.
        batches: Timed batch sizes.
    """

    name: str
    profiles: tuple[tuple[str, Profile], ...] = (("", DEFAULT),)
    batches: tuple[int, ...] = (1, 8, 64)


NETWORKS = (
    Network(name="pfld", profiles=(("", SMALL), ("-wide", WIDE)), batches=SWEEP),
    Network(name="mobilefacenet", profiles=(("", SMALL), ("-wide", WIDE)), batches=SWEEP),
    Network(name="mobilenet_v2_56"),
    Network(name="mobilenet_v2"),
    Network(name="resnet18"),
    Network(name="hrnet_w18_small_v2"),
    Network(name="hourglass2"),
)


def chosen(names: Sequence[str] | None) -> list[Network]:
    """Returns the networks of these names, in the order of the record; all networks without names.

    Raises:
        UsageError: A name is unknown.
    """
    known = [network.name for network in NETWORKS]
    for name in names or ():
        if name not in known:
            raise UsageError(f"--only {name} is none of the networks that are checked", hint=", ".join(known))
    return [network for network in NETWORKS if not names or network.name in names]
