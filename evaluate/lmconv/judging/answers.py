"""Outputs of a source network for the inputs of `lmconv verify`, read where the user's cache has them.

The network is opened, and PyTorch imported, only for outputs that are not kept. Code outside lmconv may change without
notice, so its outputs are computed each time.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from lmconv.building.acceptance import Network
from lmconv.console import phase
from lmconv.faces.crops import FaceCrops
from lmconv.judging import parity
from lmconv.judging.parity import Points
from lmconv.networks.heads import head_of
from lmconv.sources.resolve import open_source
from lmconv.sources.usercode import foreign
from lmconv.store import cache
from lmconv.store.artifact import spec_to_json
from lmconv.store.cache import array_digest
from lmconv.types import Arrays, Float32, Float64, Json, Precision, Session, Source


def points(source: Source, crops: FaceCrops | None, *, frames: bool) -> Points:
    """Returns the outputs of a source network for the inputs on which networks are compared, see `parity.runs`.

    Args:
        source: The network.
        crops: The faces; None without faces.
        frames: True for boxes in seeded frames as random inputs.
    """
    head, found = head_of(source.spec), {}
    with contextlib.ExitStack() as stack:

        @functools.cache
        def session() -> Session:
            stack.enter_context(phase(f"source network of {source.spec.name}"))
            opened: Session = open_source(source)
            return stack.enter_context(opened)

        for name, run in parity.runs(source.spec, crops, frames=frames, filled=False).items():

            def compute(run: parity.Run = run) -> Arrays:
                return head.to_arrays(run(session()))

            found[name] = head.from_arrays(_kept(source, _inputs(name, crops, frames=frames), compute))
    return Points(**found)


def are_kept(source: Source, *, frames: bool) -> bool:
    """True if the outputs for the random inputs are kept; those for the faces may be missing."""
    return not foreign(source) and cache.of_user().has(_key(source, _inputs("random", None, frames=frames)))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptNetwork(Network):
    """A source network whose jumps are read where the user's cache has them.

    Attributes:
        source: The network.
    """

    source: Source

    def jumps(self, inputs: Float32, precision: Precision) -> Float64:
        """See `Network`."""
        graph = None if self.graph is None else hashlib.sha256(self.graph.SerializeToString()).hexdigest()
        what = {"jumps on": array_digest(inputs), "precision": precision, "graph": graph}

        def compute() -> Arrays:
            return {"jumps": Network.jumps(self, inputs, precision)}  # super() does not work with slots

        jumped: Float64 = _kept(self.source, what, compute)["jumps"]
        return jumped


def _inputs(name: str, crops: FaceCrops | None, *, frames: bool) -> Json:
    """Returns the part of a key that stands for the inputs of a run."""
    if name == "faces":
        assert crops is not None
        return {"outputs for": array_digest(crops.images)}
    return {"outputs for": name, "frames": frames}


def _kept(source: Source, what: Json, compute: Callable[[], Arrays]) -> Arrays:
    return compute() if foreign(source) else cache.of_user().arrays(_key(source, what), compute)


def _key(source: Source, what: Json) -> Json:
    network = {
        "spec": spec_to_json(source.spec),
        "sha256": source.sha256,
        "seed": source.seed,
        "key": source.key,
        "constants": source.constants,
        "kind": source.kind,
    }
    return {**what, "network": network, **cache.circumstances()}
