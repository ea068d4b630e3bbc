"""Graphs for TensorRT 8, 10 and 11, without TensorRT: the graphs are linted and computed in ONNX Runtime.

A new file in `backbones/` is tested automatically.
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
"""Major versions of TensorRT, by their last passes."""
SEEING = "pfld"
IMAGES = (SEEING, "hourglass2")
"""Networks that are also built for images, one with each head: the nodes around a network are the same for all."""
CALIBRATION = 4
"""Number of seeded noise inputs for calibration of int8. The accuracy is poor, but the graph is complete."""

PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)
ALL = [
    (name, precision)
    for name, backbone in BACKBONES.load_all().items()
    for precision in PRECISIONS
    if backbone.build and not (backbone.spec.task == "detection" and precision == Precision.INT8)
]
"""All graphs; detectors have no int8."""
SMALL = [case for case in ALL if case[0] not in LARGE]
SAMPLE = {*((SEEING, precision) for precision in PRECISIONS), *random.Random(0).sample(SMALL, 5)}  # noqa: S311
"""Graphs that every run tests: one network in each precision, and five other graphs."""


def seeded(name: str) -> Source:
    """Returns a backbone with seeded weights and one input size, because an engine has one size."""
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
    """Plain graph of a backbone with seeded weights."""

    def make(folder: Path) -> Plain:
        return plain_graph(seeded(request.param), folder, crops=crops_of(request.param))

    return make(once(f"engine-{request.param}", make))


@pytest.fixture(autouse=True)
def lenient() -> Iterator[None]:
    """Raises the tolerance of the pass `int8`: untrained weights lose more than the pass allows."""
    with PASSES.using(int8=replace(PASSES.load("int8"), tolerance=TOLERANCE[Precision.INT8])):
        yield


def reference_outputs(ready: TargetGraph) -> Outputs:
    """Returns the outputs of a graph in ONNX Runtime for the seeded inputs of reference.npz."""
    inputs = interface_of(ready.spec).feed(noise_crops(ready.spec, 8, 0))
    with OrtSession(ready.model.SerializeToString()) as session:
        return outputs(session, ready.spec, inputs)


@pytest.mark.parametrize(
    ("plain", "precision"),
    [pytest.param(*case, marks=pytest.mark.slow if case in SAMPLE else pytest.mark.exhaustive) for case in ALL],
    indirect=["plain"],
    scope="module",
)
def test_the_graph_for_every_version_passes_the_lint_and_computes_the_outputs_of_the_source(
    plain: Plain, precision: Precision
) -> None:
    ios: tuple[Io, ...] = ("tensor", "image") if plain.source.spec.name in IMAGES else ("tensor",)
    for io in ios:
        assert_graphs_compute(plain, precision, io)


def assert_graphs_compute(plain: Plain, precision: Precision, io: Io) -> None:
    name = plain.source.spec.name
    graph_outputs: list[Outputs] = []
    for last, versions in LAST.items():
        ready = graph_for(
            Conversion(base=plain, out=plain.artifact.path.parents[1], crops=crops_of(name)),
            Variant(target="tensorrt", precision=precision, io=io),
            last,
        )
        onnx.checker.check_model(ready.model, full_check=True)
        assert [complaints(ready.model, version) for version in versions] == [[]] * len(versions)
        assert ready.recipe["opset"] == (17 if last else 18)
        graph_outputs.append(reference_outputs(ready))
    lowered, current = graph_outputs
    head = head_of(plain.source.spec)
    gap = head.gap(lowered, current)
    difference = gap.landmarks.max_abs if gap.max_map is None else gap.max_map
    assert difference <= (TOLERANCE[precision] if precision == Precision.FP16 else 0)
    gaps = head.accepted_gaps(head.gap(current, plain.reference.outputs), exact=precision == Precision.FP32)
    allowed = acceptance(TARGETS.load("onnx"), precision)  # ONNX Runtime computes the graph here
    assert [what for what, gap in gaps.items() if gap > allowed[what]] == []
