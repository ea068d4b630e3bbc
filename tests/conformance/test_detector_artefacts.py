"""Rules for artefacts of detection networks: the raw outputs equal those of the source network at every input size.

A new file in `backbones/` is tested automatically. Networks published as ONNX have no seeded weights; their tests need
the published files.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import Once

from lmconv.building.assembling import build
from lmconv.building.plain import Plain, plain_graph
from lmconv.building.request import Conversion
from lmconv.inference.session import noise, outputs
from lmconv.networks.heads import head_of
from lmconv.plugins import BACKBONES, TARGETS
from lmconv.sources.resolve import names, open_source, resolve
from lmconv.store import artifact as artifacts
from lmconv.store import reference
from lmconv.types import Artifact, OpenOptions, Precision, Variant

DETECTION_NETWORKS = names("detection")
BUILT = [name for name in DETECTION_NETWORKS if BACKBONES.load(name).build]
QUICK = ("mtcnn_pnet",)
SIZES = ((12, 12), (45, 62), (131, 97), (240, 320))
"""(height, width), pixels: the smallest size, one odd side, two odd sides, and the size of comparisons."""
LIMITS = {Precision.FP32: 1e-4, Precision.FP16: 5e-2}
"""Largest difference of a raw number in fp32; in fp16 as a fraction of the range of the output, untrained weights."""
WANTED = [(target, precision) for precision in LIMITS for target in ("onnx", "openvino")]
SAMPLE = {name: random.Random(name).choice(WANTED) for name in DETECTION_NETWORKS}  # noqa: S311
"""Target and precision of each detector that every run tests."""


def marks(name: str, target: str, precision: Precision) -> list[pytest.MarkDecorator]:
    published = [] if name in BUILT else [pytest.mark.realdata]
    if name in QUICK:
        return [] if precision == Precision.FP32 else [pytest.mark.slow]
    return [*published, pytest.mark.slow if SAMPLE[name] == (target, precision) else pytest.mark.exhaustive]


@pytest.fixture(scope="module")
def plain(request: pytest.FixtureRequest, once: Once) -> Plain:
    """Plain graph of a detector, with seeded or published weights."""
    weights = None if request.param in BUILT else request.getfixturevalue("shared") / "detectors"
    source = resolve(request.param, weights=weights, seed=None if weights else 0)
    return plain_graph(source, once(f"detector-{request.param}", lambda folder: plain_graph(source, folder)))


@pytest.mark.parametrize(
    ("plain", "target", "precision"),
    [pytest.param(name, *wanted, marks=marks(name, *wanted)) for name in DETECTION_NETWORKS for wanted in WANTED],
    indirect=["plain"],
    scope="module",
)
def test_an_artefact_has_the_outputs_of_the_network_at_every_size(
    plain: Plain, target: str, precision: Precision, tmp_path: Path
) -> None:
    made = build(Conversion(base=plain, out=tmp_path), Variant(target=target, precision=precision))
    assert_outputs_are_described(made)
    plugin = TARGETS.load(target)
    own = plain.source.spec
    specs = [replace(own, sample=size) for size in SIZES] if own.sample else [own]
    with open_source(plain.source) as network, plugin.open(made, OpenOptions(threads=1)) as session:
        for spec in specs:
            for count in (1, 3):
                inputs = noise(spec, count, 5)
                gap = head_of(spec).gap(outputs(session, spec, inputs), outputs(network, spec, inputs))
                difference = gap.landmarks.max_abs if precision == Precision.FP32 else gap.max_map
                assert difference is not None
                assert difference <= LIMITS[precision], (spec.input_size, count)


def assert_outputs_are_described(made: Artifact) -> None:
    kept = reference.read(made).outputs.raw
    assert list(kept) == [tensor.name for tensor in made.spec.outputs]
    interface = artifacts.interface(made.spec)
    assert [tensor["name"] for tensor in interface["outputs"]] == list(kept)
    assert "landmarks" not in interface
    assert interface["inputs"][0]["shape"][0] == "N"
