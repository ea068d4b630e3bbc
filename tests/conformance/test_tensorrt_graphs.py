"""The very graphs that would go into TensorRT 8, 10 and 11, without it: linted, and their numbers in ONNX Runtime.

A new file in `backbones/` is tested by being there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import onnx
import pytest
from tests.conftest import Once
from tests.helpers import LARGE

from lmconv.building.assembling import graph_for
from lmconv.building.limits import TOLERANCE, acceptance
from lmconv.building.plain import Plain, plain_graph
from lmconv.building.request import Conversion, Crops
from lmconv.building.target_graph import TargetGraph
from lmconv.engines.lint import complaints
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import noise, outputs
from lmconv.networks.heads import head_of
from lmconv.networks.interfaces import interface_of
from lmconv.networks.outputs import Outputs
from lmconv.networks.seeded import noise_crops
from lmconv.plugins import BACKBONES, PASSES, TARGETS
from lmconv.sources import resolve as source
from lmconv.types import Io, Precision, Source, Variant

LAST: dict[tuple[str, ...], tuple[int, ...]] = {("opset17",): (8,), (): (10, 11)}
"""What versions need last."""
SEEING = "pfld"
IMAGES = (SEEING, "hourglass2")
"""Networks that take images, too, one of each kind: what is put around a network is the same for all."""
CALIBRATION = 4
"""Seeded noise that int8 is calibrated on: what it gives is not good, but it is there."""

PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)
ALL = [
    (name, precision)
    for name, found in BACKBONES.load_all().items()
    for precision in PRECISIONS
    if found.build and not (found.spec.task == "detection" and precision == Precision.INT8)
]
"""Every graph; a detector has no int8."""
SMALL = [case for case in ALL if case[0] not in LARGE]
SAMPLE = {*((SEEING, precision) for precision in PRECISIONS), *random.Random(0).sample(SMALL, 5)}  # noqa: S311
"""Graphs that are tried in every run: of one network in each precision, and five others."""


def seeded(name: str) -> Source:
    """A backbone with seeded weights; an engine has one size."""
    spec = source.spec_of(name)
    return source.resolve(name, seed=0, size=spec.sample if spec else None)


@cache
def crops_of(name: str) -> Crops | None:
    spec = seeded(name).spec
    if not head_of(spec).on_faces:
        return None
    return Crops(cut=cache(lambda: noise(spec, CALIBRATION, 3)), pictures=list)


@pytest.fixture(scope="module")
def plain(request: pytest.FixtureRequest, once: Once) -> Plain:
    """The plain graph of a backbone with seeded weights."""

    def make(folder: Path) -> Plain:
        return plain_graph(seeded(request.param), folder, crops=crops_of(request.param))

    return make(once(f"engine-{request.param}", make))


@pytest.fixture(autouse=True)
def lenient() -> Iterator[None]:
    """Untrained weights lose more to int8 than its pass allows, however they are quantised."""
    with PASSES.using(int8=replace(PASSES.load("int8"), tolerance=TOLERANCE[Precision.INT8])):
        yield


def answer(ready: TargetGraph) -> Outputs:
    """What a graph says in ONNX Runtime of the seeded inputs that the source was asked about."""
    inputs = interface_of(ready.spec).feed(noise_crops(ready.spec, 8, 0))
    with OrtSession(ready.model.SerializeToString()) as session:
        return outputs(session, ready.spec, inputs)


@pytest.mark.parametrize(
    ("plain", "precision"),
    [pytest.param(*case, marks=pytest.mark.slow if case in SAMPLE else pytest.mark.exhaustive) for case in ALL],
    indirect=["plain"],
    scope="module",
)
def test_every_version_gets_what_it_takes_and_it_computes_the_sources_landmarks(
    plain: Plain, precision: Precision
) -> None:
    ios: tuple[Io, ...] = ("tensor", "image") if plain.source.spec.name in IMAGES else ("tensor",)
    for io in ios:
        computes(plain, precision, io)


def computes(plain: Plain, precision: Precision, io: Io) -> None:
    name = plain.source.spec.name
    found: list[Outputs] = []
    for last, versions in LAST.items():
        ready = graph_for(
            Conversion(base=plain, out=plain.artifact.path.parents[1], crops=crops_of(name)),
            Variant(target="tensorrt", precision=precision, io=io),
            last,
        )
        onnx.checker.check_model(ready.model, full_check=True)
        assert [complaints(ready.model, version) for version in versions] == [[]] * len(versions)
        assert ready.recipe["opset"] == (17 if last else 18)
        found.append(answer(ready))
    lowered, current = found
    head = head_of(plain.source.spec)
    moved = head.gap(lowered, current)
    off = moved.landmarks.max_abs if moved.max_map is None else moved.max_map
    assert off <= (TOLERANCE[precision] if precision == Precision.FP16 else 0)
    gaps = head.accepted_gaps(head.gap(current, plain.reference.outputs), exact=precision == Precision.FP32)
    allowed = acceptance(TARGETS.load("onnx"), precision)  # ONNX Runtime computes the graph here
    assert [what for what, gap in gaps.items() if gap > allowed[what]] == []
