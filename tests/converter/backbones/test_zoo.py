"""The networks of the published table: parameters, state-dict names, trained weights, and exported layers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.goldens import make
from tests.helpers import built, by_size

from lmconv.errors import InputError
from lmconv.plugins import BACKBONES
from lmconv.sources import checkpoint_file, checkpoints, states
from lmconv.sources import resolve as source
from lmconv.sources.export import export
from lmconv.store.files import sha256

PARAMETERS = {
    "hrnet_w18_small_v2": (13_827_128, 13.83),
    "mobilefacenet": (1_007_248, 1.01),
    "mobilenet_v2": (3_744_504, 3.74),
    "mobilenet_v2_se": (4_154_104, 4.15),
    "mobilenet_v2_se_56": (4_096_504, 4.10),
    "pfld": (730_472, 0.73),
    "res2net50_v1b": (25_997_016, 26.00),
    "res2net50_v1b_se": (27_045_592, 27.05),
    "resnet18": (11_759_280, 11.76),
}
"""Parameters of the checkpoint, including unused layers, and the published number in millions."""

PUBLISHED_OTHERWISE = {"mobilenet_v2_56": (3_686_904, 3.74), "hourglass2": (6_770_952, 8.73)}
"""Networks whose published number differs from their own, as in `PARAMETERS`.

The published number of mobilenet_v2_56 repeats the figure of the 224 x 224 network. The architecture of hourglass2 was
not published.
"""

CHOSEN = {
    "resnet18": ("resnet18_backbone", {"head.weight", "head.bias"}, set()),
    "res2net50_v1b": ("res2net50_v1b_backbone", {"head.weight", "head.bias"}, set()),
    "res2net50_v1b_se": (
        "res2net50_v1b_backbone",
        {"attention.fc1.weight", "attention.fc2.weight", "head.weight", "head.bias"},
        set(),
    ),
    "hrnet_w18_small_v2": (
        "hrnet_w18_small_v2_backbone",
        {"head.weight", "head.bias"},
        {"classifier.weight", "classifier.bias"},
    ),
}
"""File of published names of the trunk; names chosen by this project; published names that the head replaces."""

COMPLETE = ("mobilenet_v2", "mobilenet_v2_se", "mobilenet_v2_56")
TRAINED = ("mobilenet_v2_56", "mobilenet_v2_se_56")


def empty(model: str) -> torch.nn.Module:
    """A network on the meta device, without memory for its weights."""
    with torch.device("meta"):
        return built(model).eval()


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def published(shared: Path, name: str) -> dict[str, list[int]]:
    document = json.loads((shared / "state_dict_names" / f"{name}.json").read_text(encoding="utf-8"))
    table: dict[str, list[int]] = document["state_dict"]
    return table


@pytest.mark.parametrize("model", PARAMETERS)
def test_a_network_has_the_published_number_of_parameters(model: str) -> None:
    expected, millions = PARAMETERS[model]
    assert count(empty(model)) == expected
    assert round(expected / 1e6, 2) == millions


@pytest.mark.parametrize("model", PUBLISHED_OTHERWISE)
def test_a_network_with_another_published_number_has_the_recorded_number_of_parameters(model: str) -> None:
    expected, millions = PUBLISHED_OTHERWISE[model]
    assert count(empty(model)) == expected
    assert round(expected / 1e6, 2) != millions


@pytest.mark.parametrize("model", by_size(sorted(PARAMETERS | PUBLISHED_OTHERWISE)))
def test_a_network_returns_two_numbers_or_one_heatmap_per_point(model: str) -> None:
    spec = BACKBONES.load(model).spec
    out = empty(model)(torch.empty(2, 3, *spec.input_size, device="meta"))
    out = out[0] if isinstance(out, tuple) else out
    assert out.shape == ((2, spec.landmarks, 64, 64) if model == "hourglass2" else (2, 2 * spec.landmarks))
    assert out.dtype == torch.float32


@pytest.mark.parametrize("model", ["mobilenet_v2", "mobilenet_v2_se", *TRAINED])
def test_the_features_are_one_module_with_two_names_in_the_state_dict(model: str) -> None:
    network = empty(model)
    state = network.state_dict()
    twice = [name for name in state if name.startswith("base_net.0.")]
    assert len(twice) == 312
    assert all(name.replace("base_net.0", "pretrain_net.features") in state for name in twice)
    assert network.get_submodule("base_net.0") is network.get_submodule("pretrain_net.features")


def test_only_the_small_mobilenets_take_rgb() -> None:
    specs = [BACKBONES.load(name).spec for name in sorted(PARAMETERS | PUBLISHED_OTHERWISE)]
    assert [spec.name for spec in specs if spec.preprocess.colour == "RGB"] == sorted(TRAINED)


@pytest.mark.parametrize("model", sorted(PARAMETERS | PUBLISHED_OTHERWISE))
def test_every_network_of_the_table_has_its_published_figures(model: str) -> None:
    known = checkpoints.known()[model]
    assert set(known.ion) == {"common", "challenge", "full"}
    assert known.ion["common"] < known.ion["full"] < known.ion["challenge"]


def test_the_weights_of_drawn68_are_listed_and_small_and_fit_the_network() -> None:
    known = checkpoints.known()["drawn68"]
    path = Path(__file__).parents[3] / "weights" / "lmconv" / "known" / known.file
    assert list(known.sha256) == [sha256(path)]
    assert path.stat().st_size <= 2_000_000
    states.fill(BACKBONES.load("drawn68").module(68), checkpoint_file.read(path), path)


def test_a_network_of_drawn_faces_has_no_published_ion_on_300w() -> None:
    known = checkpoints.known()["drawn68"]
    assert known.ion == {}
    assert "not of 300-W" in known.ion_note


@pytest.mark.realdata
@pytest.mark.parametrize("model", COMPLETE)
def test_state_dict_names_and_shapes_are_as_published(model: str, shared: Path) -> None:
    expected = published(shared, model)
    shapes = make.shapes(empty(model))
    assert shapes == expected
    assert list(shapes) == list(expected)


@pytest.mark.realdata
@pytest.mark.parametrize("model", CHOSEN)
def test_only_the_names_of_the_head_differ_from_the_published_names(model: str, shared: Path) -> None:
    file, chosen, replaced = CHOSEN[model]
    expected = {name: shape for name, shape in published(shared, file).items() if name not in replaced}
    shapes = make.shapes(empty(model))
    trunk = {name: shape for name, shape in shapes.items() if name not in chosen}
    assert trunk == expected
    assert list(trunk) == list(expected)
    assert set(shapes) - set(trunk) == chosen


@pytest.mark.realdata
@pytest.mark.parametrize("model", TRAINED)
def test_trained_weights_give_the_golden_landmarks(model: str, shared: Path, real_weights: Path) -> None:
    golden = np.load(shared / "weights" / model / "golden.npz")
    with source.open_source(source.resolve(model)) as session:
        landmarks = session.run({"input": golden["x"]})["landmarks"]
    np.testing.assert_allclose(landmarks.reshape(2, 136), golden["y"], rtol=0, atol=1e-5)


@pytest.mark.realdata
@pytest.mark.parametrize("model", TRAINED)
def test_trained_files_are_listed_as_not_published(model: str, real_weights: Path) -> None:
    digest = source.resolve(model).sha256
    assert "not the published file" in checkpoints.known()[model].sha256[digest]


@pytest.mark.slow
def test_layers_that_are_never_called_are_not_exported(tmp_path: Path) -> None:
    network = make.seeded("mobilenet_v2_se_56")
    path = tmp_path / "seeded.pth"
    torch.save(network.state_dict(), path)
    model, modules = export(source.resolve("mobilenet_v2_se_56", weights=path))
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    assert not [name for name in held if "classifier" in name]
    sizes = [int(np.prod(tensor.dims)) for tensor in held.values()]
    assert 1000 * 1280 not in sizes  # the classifier, under any name
    assert sum(sizes) < count(network) - 1000 * 1281
    assert not [path for path in modules.values() if path.startswith("pretrain_net")]


def test_two_different_copies_of_one_tensor_are_refused(tmp_path: Path) -> None:
    network = BACKBONES.load("mobilenet_v2_56").module(68)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    states.fill(network, state, tmp_path / "same.pth")
    state["base_net.0.0.0.weight"] += 1
    with pytest.raises(InputError, match=r"one tensor twice.*base_net\.0\.0\.0\.weight"):
        states.fill(network, state, tmp_path / "other.pth")
