"""Random weights: the same bytes for the same seed, landmarks that differ, and agreement of the runtimes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.helpers import LARGE, built
from torch import Tensor, nn

from lmconv.inference.ort import OrtSession
from lmconv.inference.session import noise
from lmconv.plugins import BACKBONES
from lmconv.sources.randomise import randomise
from lmconv.targets.openvino import OpenVinoSession
from lmconv.types import OPSET

SIZE = (48, 40)
POINTS = 5
TOLERANCE = 1e-5
SMALL, SIDE, TWINS, HEATMAPS = "drawn68", 64, "mobilenet_v2_56", "hourglass2"
MODELS = [name for name in BACKBONES.names() if BACKBONES.load(name).spec.task == "landmarks"]


@pytest.fixture
def threads() -> Iterator[None]:
    """Restores PyTorch's number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def randomised(model: str, seed: int = 0) -> nn.Module:
    backbone = BACKBONES.load(model)
    network = built(model)
    randomise(network, backbone.spec.input_size, seed, preprocess=backbone.spec.preprocess)
    return network.eval()


def digest(network: nn.Module) -> str:
    total = hashlib.sha256()
    for name, value in network.state_dict().items():
        total.update(name.encode() + value.numpy().tobytes())
    return total.hexdigest()


def answer(network: nn.Module, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """First output of a network, flattened: (N, …) float32."""
    with torch.inference_mode():
        out = network(torch.from_numpy(images))
    first: NDArray[np.float32] = (out[0] if isinstance(out, tuple) else out).flatten(1).numpy()
    return first


def images(seed: int = 1) -> NDArray[np.float32]:
    """(4, 3, *SIZE) float32 in [0, 1): two images of pixel noise, two of noise in squares of 8 pixels."""
    random = np.random.default_rng(seed)
    coarse = random.random((2, 3, SIZE[0] // 8, SIZE[1] // 8)).repeat(8, 2).repeat(8, 3)
    return np.concatenate([random.random((2, 3, *SIZE)), coarse]).astype(np.float32)


class Plain(nn.Module):
    """A deep network without BatchNorm, with casts, a constant buffer, and a second head."""

    grid: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers = [part for _ in range(12) for part in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(inplace=True))]
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 4), nn.ReLU(), *layers, nn.AdaptiveAvgPool2d(2))
        self.register_buffer("grid", torch.arange(64.0))
        self.points = nn.Linear(64, 2 * POINTS)
        self.pose = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(x.float()).flatten(1) * self.grid.cos()
        x += torch.ones(64, dtype=torch.float32)
        points = self.points(x).reshape(-1, POINTS, 2)
        return points, self.pose(x)


class Transformer(nn.Module):
    """A network with attention, LayerNorm, and a parameter outside any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 8, 8)
        self.place = nn.Parameter(torch.zeros(1, 30, 32))
        self.block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.head = nn.Linear(32, 2 * POINTS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.place
        out: Tensor = self.head(self.block(x).mean(1))
        return out


class Upwards(nn.Module):
    """A network with heatmaps from a transposed convolution, decoded by a soft arg-max."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 16, 3, 4), nn.BatchNorm2d(16), nn.PReLU(16))
        self.up = nn.ConvTranspose2d(16, POINTS, 4, 2, groups=1)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.up(self.down(x)).flatten(2).softmax(2)
        place = torch.linspace(0, 1, weights.shape[2])
        return torch.stack([torch.matmul(weights, place), torch.matmul(weights, 1 - place)], 2)


FOREIGN = [Plain, Transformer, Upwards]


@pytest.mark.parametrize("build", [*FOREIGN, lambda: BACKBONES.load(SMALL).module(68)])
def test_the_seed_determines_every_byte(build: Any, threads: None) -> None:
    digests = []
    for seed, count in ((0, 1), (0, 2), (1, 2)):
        torch.set_num_threads(count)
        network = build()
        randomise(network, (SIDE, SIDE) if build not in FOREIGN else SIZE, seed)
        digests.append(digest(network))
    assert digests[0] == digests[1]
    assert digests[1] != digests[2]


def test_earlier_weights_do_not_matter() -> None:
    network = randomised(SMALL, seed=1)
    randomise(network, (SIDE, SIDE), 0)
    assert digest(network) == digest(randomised(SMALL))


@pytest.mark.parametrize("build", FOREIGN)
def test_every_kind_of_network_computes_finite_landmarks_that_differ(build: type[nn.Module]) -> None:
    network = build()
    randomise(network, SIZE, 0)
    points = answer(network.eval(), images())
    assert np.isfinite(points).all()
    assert points.std(0).mean() > 1e-3
    assert ((points > 0) & (points < 1)).mean() > 0.9


def test_landmarks_of_a_head_without_bias_are_scaled() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2 * POINTS, bias=False))
    network(torch.zeros(1, 3, *SIZE))
    randomise(network, SIZE, 0)
    assert 1e-3 < answer(network, images()).std(0).mean() < 0.1


def test_only_the_weights_of_the_network_change() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 2, 3))
    network[1].eval()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    randomise(network, SIZE, 0)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_default_dtype() == torch.float32
    assert [module.training for module in network] == [True, False, True, True]
    assert {value.dtype for value in network.parameters()} == {torch.float32}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network)


def test_buffers_other_than_statistics_stay() -> None:
    network = Plain()
    randomise(network, SIZE, 0)
    assert torch.equal(network.grid, torch.arange(64.0))
    counted = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    counter = counted.state_dict()["1.num_batches_tracked"].fill_(9)
    randomise(counted, SIZE, 0)
    assert counter == 9


def test_a_tensor_under_two_names_is_drawn_once() -> None:
    state = randomised(TWINS).state_dict()
    assert torch.equal(state["base_net.0.0.0.weight"], state["pretrain_net.features.0.0.weight"])
    tied, single = nn.Sequential(*(nn.Conv2d(3, 3, 3) for _ in range(3))), nn.Sequential(*[nn.Conv2d(3, 3, 3)] * 3)
    tied[1].weight = tied[0].weight
    randomise(tied, SIZE, 0)
    randomise(single, SIZE, 0)
    assert tied[1].weight is tied[0].weight
    assert torch.equal(tied.state_dict()["0.weight"], single.state_dict()["0.weight"])


def test_a_network_that_raises_is_left_without_hooks() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(1, 1))
    with pytest.raises(RuntimeError):
        randomise(network, SIZE, 0)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mobilenet_v2_56", HEATMAPS])
def test_the_number_of_threads_does_not_matter(model: str, threads: None) -> None:
    digests = []
    for count in (1, 2):
        torch.set_num_threads(count)
        digests.append(digest(randomised(model)))
    assert digests[0] == digests[1]


def runtimes(network: nn.Module, size: tuple[int, int], folder: Path) -> tuple[OrtSession, OpenVinoSession]:
    """Opens a network in ONNX Runtime and in OpenVINO at f32; the first output is called `first`."""

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network

        def forward(self, x: Tensor) -> Tensor:
            out = self.net(x)
            first: Tensor = out[0] if isinstance(out, tuple) else out
            return first.flatten(1)

    program = torch.onnx.export(
        First().eval(),
        (torch.zeros(2, 3, *size),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["input"],
        output_names=["first"],
        dynamic_shapes=({0: torch.export.Dim("N")},),
        verbose=False,
    )
    assert program is not None
    path = folder / "model.onnx"
    program.save(str(path))
    return OrtSession(path), OpenVinoSession(path, "f32", 0)


@pytest.mark.parametrize(
    "model",
    [pytest.param(name, marks=pytest.mark.exhaustive if name in LARGE else pytest.mark.slow) for name in MODELS],
)
def test_runtimes_agree_on_landmarks_that_vary(model: str, tmp_path: Path, record_property: Any) -> None:
    spec = BACKBONES.load(model).spec
    network = randomised(model)
    inputs = noise(spec, 8, 123)
    expected = answer(network, inputs)
    assert np.isfinite(expected).all()
    span = 1.0
    if model == HEATMAPS:
        span = float(np.ptp(expected))
    else:
        assert ((expected > 0) & (expected < 1)).mean() > 0.95
        assert 0.01 < expected.std(0).mean() < 0.1
    ort, openvino = runtimes(network, spec.input_size, tmp_path)
    for name, session in (("ort", ort), ("openvino", openvino)):
        output = session.run({"input": inputs})["first"]
        gap = float(np.abs(output - expected).max()) / span
        record_property(name, gap)
        assert gap <= TOLERANCE
