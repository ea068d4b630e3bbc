"""Rules for every backbone; a new file in `backbones/` is tested automatically."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from tests.helpers import built, by_size

from lmconv.commands import models
from lmconv.networks.heads import head_of
from lmconv.plugins import BACKBONES
from lmconv.sources import checkpoints
from lmconv.sources.pytorch import identify
from lmconv.sources.states import Contents, fill
from lmconv.types import Backbone

NAMES = BACKBONES.names()
LOADED = BACKBONES.load_all()
BUILT = [name for name, backbone in LOADED.items() if backbone.build]
LANDMARKS = [name for name, backbone in LOADED.items() if backbone.spec.task == "landmarks"]


@cache
def network(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return built(name).eval()


@pytest.fixture(params=by_size(BUILT))
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return LOADED[request.param]


@pytest.mark.parametrize("name", NAMES)
def test_the_spec_describes_the_input(name: str) -> None:
    spec = LOADED[name].spec
    assert spec.name == spec.backbone == name
    assert LOADED[name].summary
    assert [tensor.name for tensor in spec.inputs] == ["input"]
    assert spec.inputs[0].shape == ("N", 3, *(("H", "W") if spec.sample else spec.input_size))
    assert spec.batch is None
    assert (spec.task == "detection") == (spec.landmarks == 0)


@pytest.mark.parametrize("name", LANDMARKS)
def test_the_spec_describes_the_outputs(name: str) -> None:
    spec = LOADED[name].spec
    maps = [("heatmaps", ("N", spec.landmarks, "h", "w"))] if spec.heatmaps else []
    outputs = [(tensor.name, tensor.shape) for tensor in spec.outputs]
    assert outputs == [("landmarks", ("N", spec.landmarks, 2)), *maps]


@pytest.mark.parametrize("name", sorted({*NAMES} - {*LANDMARKS}))
def test_the_spec_of_a_detector_describes_the_outputs(name: str) -> None:
    outputs = LOADED[name].spec.outputs
    assert [tensor.name for tensor in outputs] == ["scores", "boxes", "points"][: len(outputs)]
    numbers = [tensor.shape[1 if tensor.layout == "NCHW" else -1] for tensor in outputs]
    assert numbers == [2, 4, 10][: len(outputs)]


def shape(backbone: Backbone, batch: int, landmarks: int) -> tuple[int, ...]:
    """First sides of the first output: two numbers per point, or one heatmap of any size per point; for a detector, the
    batch and the next side if fixed."""
    if backbone.spec.task == "detection":
        return batch, *(side for side in backbone.spec.outputs[0].shape[1:2] if isinstance(side, int))
    return (batch, landmarks) if backbone.spec.heatmaps else (batch, 2 * landmarks)


def first(out: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return out[0] if isinstance(out, tuple) else out


def test_an_input_has_the_same_outputs_alone_and_in_a_batch(backbone: Backbone) -> None:
    height, width = backbone.spec.input_size
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        together, alone = (first(network(backbone.spec.name)(batch)) for batch in (images, images[1:]))
    expected = shape(backbone, 2, backbone.spec.landmarks)
    assert together.shape[: len(expected)] == expected
    head = head_of(backbone.spec)
    dims = {"points": 2, "heatmaps": 4, "raw": len(backbone.spec.outputs[0].shape)}[head.name]
    assert together.dim() == dims
    assert together.dtype == torch.float32
    assert torch.isfinite(together).all()
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("landmarks", "batch"), [(39, 1), pytest.param(98, 5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", by_size(LANDMARKS))
def test_a_network_is_built_for_any_number_of_points(name: str, landmarks: int, batch: int) -> None:
    backbone = LOADED[name]
    height, width = backbone.spec.input_size
    with torch.device("meta"):
        out = built(name, landmarks).eval()(torch.empty(batch, 3, height, width))
    assert first(out).shape[:2] == shape(backbone, batch, landmarks)


def test_a_network_loads_its_own_state_dict(backbone: Backbone) -> None:
    state = network(backbone.spec.name).state_dict()
    with torch.device("meta"):  # `fill` replaces all weights
        other = built(backbone.spec.name)
    other.to_empty(device="cpu")
    fill(other, state, Path("own"))
    loaded = other.state_dict()
    assert list(loaded) == list(state)
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_a_state_dict_identifies_one_backbone(backbone: Backbone) -> None:
    assert identify(Contents.of(network(backbone.spec.name).state_dict())) == [
        (backbone.spec.name, backbone.spec.landmarks)
    ]


# The table behind `lmconv models`

QUICK = ("drawn68", "mtcnn_pnet", "mtcnn_rnet", "pfld", "rfb320", "slim320")
"""Networks whose parameters and FLOPs are counted quickly."""


def row_marks(name: str) -> list[pytest.MarkDecorator]:
    published = [] if name in BUILT else [pytest.mark.realdata]
    return published if name in QUICK else [*published, pytest.mark.slow]


@pytest.mark.parametrize("name", [pytest.param(name, marks=row_marks(name)) for name in models.recorded()])
def test_the_row_of_the_table_equals_a_new_count(name: str, request: pytest.FixtureRequest) -> None:
    file = None if name in BUILT else checkpoints.find(name, request.getfixturevalue("shared") / "detectors")
    assert models.recorded()[name] == models.described(LOADED[name], file), "python weights/count_networks.py"


def test_every_published_network_has_a_row() -> None:
    assert {*checkpoints.known()} <= {*models.recorded()}
