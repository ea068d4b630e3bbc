"""The state in a checkpoint that fits a network: nesting, prefixes, averages, spellings, shards, and refusals."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import io
import json
import pathlib
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lmconv.errors import InputError
from lmconv.sources.states import load


def small() -> nn.Module:
    """A network with a convolution, a BatchNorm and a dense layer."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))


def state(seed: int = 0, make: Callable[[], nn.Module] = small) -> dict[str, torch.Tensor]:
    """Seeded weights of a network."""
    torch.manual_seed(seed)
    network = make()
    return {
        key: torch.rand_like(value) if value.is_floating_point() else value
        for key, value in network.state_dict().items()
    }


def prefixed(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in tensors.items()}


def loads(
    path: Path, expected: Mapping[str, torch.Tensor], make: Callable[[], nn.Module] = small, key: str = ""
) -> str:
    """Asserts that a checkpoint fills a network with these weights; returns the note."""
    network = make()
    note = load(network, path, key=key)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, expected[name].to(value.dtype), rtol=0, atol=0)
    return note


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def refused(path: Path, make: Callable[[], nn.Module] = small, key: str = "") -> InputError:
    with pytest.raises(InputError) as error:
        load(make(), path, key=key)
    assert str(path) in error.value.message
    assert error.value.hint
    return error.value


def optimiser() -> Any:
    network = small()
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.rand(2, 3, 3, 3)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


# Where the state lies

KEYS = ["model", "net", "model_state_dict", "params", "plfd_backbone", "module", "generator", "a.b", "weights", "0"]


@pytest.mark.parametrize("key", KEYS)
def test_the_state_is_found_under_any_key_beside_the_state_of_an_optimiser(tmp_path: Path, key: str) -> None:
    expected = state()
    path = saved(tmp_path / "x.pth", {"epoch": 3, "optimizer": optimiser(), key: expected})
    assert loads(path, expected) == ""


def test_the_state_is_found_at_any_depth(tmp_path: Path) -> None:
    expected = state()
    content = [{"run": {"checkpoint": (1, {"model": {"backbone": collections.OrderedDict(expected)}})}}]
    loads(saved(tmp_path / "x.pth", content), expected)


def test_a_module_may_be_a_dict_of_its_own(tmp_path: Path) -> None:
    expected = state()
    nested: dict[str, Any] = collections.defaultdict(dict)
    for key, value in expected.items():
        layer, _, name = key.partition(".")
        nested[layer][name] = value
    loads(saved(tmp_path / "x.pth", {"params": nested}), expected)


PREFIXES = ["module.", "model.", "net.", "backbone.", "_orig_mod.", "_orig_mod.module.", "model._orig_mod.net.", "x.y."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_of_all_names_is_removed(tmp_path: Path, prefix: str) -> None:
    expected = state()
    loads(saved(tmp_path / "x.pth", {"state_dict": prefixed(prefix, expected)}), expected)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_of_some_names_is_removed(tmp_path: Path, prefix: str) -> None:
    expected = state()
    mixed = {key if key.startswith("4") else prefix + key: value for key, value in expected.items()}
    loads(saved(tmp_path / "x.pth", mixed), expected)


def test_the_wrapper_of_a_part_is_removed_from_the_middle_of_a_name(tmp_path: Path) -> None:
    expected = state()
    loads(
        saved(tmp_path / "x.pth", {key.replace(".", ".module.", 1): value for key, value in expected.items()}), expected
    )


def test_tensors_of_a_loss_beside_the_prefix_are_left_out(tmp_path: Path) -> None:
    expected = state()
    content = {"state_dict": {**prefixed("model.", expected), "loss.weight": torch.ones(3)}}
    loads(saved(tmp_path / "x.ckpt", content), expected)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda network: nn.Sequential(nn.Sequential(network))])
def test_the_network_may_have_a_wrapper_that_the_file_lacks(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    expected, wrapped = state(), state(0, lambda: wrap(small()))
    path = saved(tmp_path / "x.pth", {"state_dict": expected})
    network = wrap(small())
    load(network, path)
    for value, stored in zip(network.state_dict().values(), expected.values(), strict=True):
        assert value.equal(stored)
    loads(saved(tmp_path / "y.pth", wrapped), wrapped, lambda: wrap(small()))


# Several states that fit


@pytest.mark.parametrize("key", ["ema", "params_ema", "state_dict_ema", "model_ema", "g_ema", "modelEMA"])
def test_the_moving_average_is_preferred_and_named(tmp_path: Path, key: str) -> None:
    path = saved(tmp_path / "x.pth", {"model": state(0), key: state(1)})
    note = loads(path, state(1))
    assert key in note
    assert "model fits too" in note
    assert loads(path, state(0), key="model") == ""


def test_the_average_may_share_a_dict_with_the_network(tmp_path: Path) -> None:
    content = {"state_dict": {**prefixed("model.", state(0)), **prefixed("ema_model.", state(1))}}
    assert "state_dict.ema_model" in loads(saved(tmp_path / "x.ckpt", content), state(1))


def test_an_averaged_model_of_pytorch_is_loaded(tmp_path: Path) -> None:
    content = torch.optim.swa_utils.AveragedModel(small()).state_dict()
    expected = {key.removeprefix("module."): value for key, value in content.items()}
    loads(saved(tmp_path / "x.pth", content), expected)


def test_two_states_of_which_none_is_an_average_need_a_choice(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pth", {"net": {"student": state(0), "teacher": state(1)}})
    error = refused(path)
    assert "net.student, net.teacher" in error.message
    assert "--key net.teacher" in error.hint
    loads(path, state(1), key="net.teacher")


def test_two_equal_states_need_no_choice(tmp_path: Path) -> None:
    loads(saved(tmp_path / "x.pth", {"best": state(0), "last": state(0)}), state(0))


def test_a_key_that_the_file_lacks_is_refused_with_what_is_there(tmp_path: Path) -> None:
    error = refused(saved(tmp_path / "x.pth", {"model": state(), "optimizer": optimiser()}), key="emma")
    assert "no tensors below 'emma'" in error.message
    assert "optimizer.state (18 tensors), model (9 tensors)" in error.hint


# Numbers


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_cast(tmp_path: Path, dtype: torch.dtype) -> None:
    expected = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state().items()}
    loads(saved(tmp_path / "x.pth", expected), expected)


def test_counts_of_operations_are_ignored(tmp_path: Path) -> None:
    counts = {"total_ops": torch.zeros(1), "4.total_params": torch.zeros(1), "0.total_ops": torch.zeros(1)}
    loads(saved(tmp_path / "x.pth", {**state(), **counts}), state())


def test_a_tensor_that_the_network_uses_twice_may_be_stored_once(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        layer = nn.Linear(4, 4)
        return nn.Sequential(layer, nn.ReLU(), layer)

    expected = {key: torch.full_like(value, 0.5) for key, value in tied().state_dict().items()}
    once = {key: value for key, value in expected.items() if key.startswith("2")}
    loads(saved(tmp_path / "x.pth", once), expected, tied)


def test_arrays_of_numpy_are_tensors(tmp_path: Path) -> None:
    content = {"model": {key: value.numpy() for key, value in state().items()}, "loss": np.float64(0.25)}
    loads(saved(tmp_path / "x.pth", content), state())


# Spellings of weight norm, spectral norm and pruning


def normed(norm: Callable[..., nn.Module], **options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(norm(nn.Conv2d(3, 4, 3), **options), nn.Flatten(), nn.Linear(4, 2))


OLD = normed(nn.utils.weight_norm)
NEW = normed(nn.utils.parametrizations.weight_norm)
PLAIN = normed(lambda layer: layer)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("theirs", [OLD, NEW])
@pytest.mark.parametrize("ours", [OLD, NEW, PLAIN])
def test_weight_norm_is_read_in_both_spellings_and_removed(
    tmp_path: Path, theirs: Callable[[], nn.Module], ours: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    network, x = theirs(), torch.rand(1, 3, 3, 3)
    with torch.no_grad():
        next(iter(network.parameters())).mul_(3)
    other = ours()
    load(other, saved(tmp_path / "x.pth", {"model": prefixed("net.", network.state_dict())}))
    torch.testing.assert_close(other(x), network(x))


def test_spectral_norm_is_read_in_both_spellings(tmp_path: Path) -> None:
    old, new = normed(nn.utils.spectral_norm), normed(nn.utils.parametrizations.spectral_norm)
    for theirs, ours in ((old, new), (new, old)):
        network, other, x = theirs().eval(), ours().eval(), torch.rand(1, 3, 3, 3)
        load(other, saved(tmp_path / "x.pth", network.state_dict()))
        torch.testing.assert_close(other(x), network(x))


def test_pruned_weights_are_multiplied_by_their_masks(tmp_path: Path) -> None:
    from torch.nn.utils import prune

    network, other, x = PLAIN(), PLAIN(), torch.rand(1, 3, 3, 3)
    prune.l1_unstructured(next(network.children()), "weight", amount=0.5)  # type: ignore[no-untyped-call]
    load(other, saved(tmp_path / "x.pth", network.state_dict()))
    torch.testing.assert_close(other(x), network(x))


# Objects beside the state


class Phase(enum.Enum):
    """An enum as training scripts have them."""

    TRAIN = 1


class Settings(dict[str, Any]):
    """A dict with attributes, such as EasyDict."""


class Names(list[str]):
    """A list of a class of its own."""


BESIDE = {
    "argparse": argparse.Namespace(lr=0.1, path=pathlib.Path("x")),
    "numpy scalar": {"best": np.float32(0.5), "epoch": np.int64(3)},
    "enum": Phase.TRAIN,
    "enum as a key": {Phase.TRAIN: 1},
    "path": pathlib.Path("runs") / "1",
    "time": datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
    "defaultdict": collections.defaultdict(list, {"loss": [1.0]}),
    "deque": collections.deque([1, 2, 3], maxlen=5),
    "dict of its own": Settings(lr=0.1),
    "list of its own": Names(["left eye"]),
    "set": {1, 2},
    "scheduler": torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.zeros(1)], lr=0.1), 3),
    "array of objects": np.array([None, "x"], dtype=object),
}


@pytest.mark.parametrize("new", [True, False], ids=["zip", "old file"])
@pytest.mark.parametrize("name", BESIDE)
def test_other_objects_in_the_file_do_not_matter(tmp_path: Path, name: str, new: bool) -> None:
    content = {"args": BESIDE[name], "model": state(), "again": [BESIDE[name]]}
    loads(saved(tmp_path / "x.pth", content, _use_new_zipfile_serialization=new), state())


def test_a_state_in_a_dict_of_its_own_class_is_found(tmp_path: Path) -> None:
    loads(saved(tmp_path / "x.pth", {"model": Settings(state())}), state())


def touch(path: str) -> None:
    """Creates a file."""
    Path(path).touch()


class Saved(NamedTuple):
    """A checkpoint as a named tuple."""

    epoch: int
    state: dict[str, torch.Tensor]


class Run:
    """A checkpoint as an object with attributes."""

    def __init__(self) -> None:
        self.best = {"net": state()}


@pytest.mark.parametrize("content", [Saved(3, state()), {"run": Run()}], ids=["named tuple", "object"])
def test_a_state_inside_another_object_is_found(tmp_path: Path, content: object) -> None:
    loads(saved(tmp_path / "x.pth", content), state())


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return touch, (str(self.path),)


def test_no_function_of_a_file_is_called(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pth", {"model": state(), "extra": Trap(tmp_path / "touched")})
    loads(path, state())
    assert not (tmp_path / "touched").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "touched").exists()


# Shards


def shards(folder: Path, tensors: Mapping[str, torch.Tensor], suffix: str) -> Path:
    """Writes a checkpoint in two files, with their index."""
    names = list(tensors)
    parts = {f"model-0000{part + 1}-of-00002.{suffix}": names[part::2] for part in range(2)}
    for file, part in parts.items():
        content = {name: tensors[name] for name in part}
        save_file(content, folder / file) if suffix == "safetensors" else torch.save(content, folder / file)
    index = folder / f"model.{suffix}.index.json"
    weight_map = {name: file for file, part in parts.items() for name in part}
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")
    return index


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_are_read_through_their_index(tmp_path: Path, suffix: str) -> None:
    loads(shards(tmp_path, prefixed("model.", state()), suffix), state())


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    index = shards(tmp_path, state(), "safetensors")
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match="00002-of-00002"):
        load(small(), index)


@pytest.mark.parametrize("content", ["[]", "{}", "not json", '{"weight_map": []}'])
def test_an_index_without_a_list_is_refused(tmp_path: Path, content: str) -> None:
    index = tmp_path / "x.index.json"
    index.write_text(content, encoding="utf-8")
    assert "not an index of shards" in refused(index).message


# Refusals


def test_what_nearly_fits_is_named_with_all_that_is_there(tmp_path: Path) -> None:
    near = {**state(), "4.bias": torch.zeros(3)}
    error = refused(saved(tmp_path / "x.pth", {"model": near, "optimizer": optimiser()}))
    assert "has different shapes: 4.bias (3,) instead of (2,)" in error.message
    assert "optimizer.state (18 tensors), model (9 tensors)" in error.message
    assert "model is nearest" in error.message


def test_a_tensor_that_the_network_lacks_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pth", {"model": {**prefixed("net.", state()), "net.se.weight": torch.zeros(4)}})
    assert "has unexpected se.weight" in refused(path).message


def test_a_whole_network_is_refused_with_the_lines_that_save_its_state(tmp_path: Path) -> None:
    for content in (small(), {"model": small(), "epoch": 3}):
        error = refused(saved(tmp_path / "x.pth", content))
        assert "whole pickled network" in error.message
        assert "weights_only=False).state_dict(), 'weights.pth')" in error.hint


def test_a_state_beside_a_whole_network_is_loaded(tmp_path: Path) -> None:
    loads(saved(tmp_path / "x.pth", {"model": small(), "state_dict": state()}), state())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused_with_the_lines_that_save_its_state(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    traced = torch.jit.trace(small().eval(), torch.rand(1, 3, 3, 3))  # type: ignore[no-untyped-call]
    torch.jit.save(traced, path)
    error = refused(path)
    assert "TorchScript" in error.message
    assert "torch.jit.load('x.pt').state_dict()" in error.hint


def test_an_exported_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt2"
    torch.export.save(torch.export.export(small().eval(), (torch.rand(1, 3, 3, 3),)), path)
    assert "exported program" in refused(path).message


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor:UserWarning")
def test_quantised_tensors_are_refused(tmp_path: Path) -> None:
    quantised = torch.quantize_per_tensor(state()["0.weight"], 0.1, 0, torch.qint8)
    error = refused(saved(tmp_path / "x.pth", {**state(), "0.weight": quantised}))
    assert "quantised" in error.message


def test_a_sparse_tensor_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pth", {**state(), "4.weight": state()["4.weight"].to_sparse()})
    assert "'4.weight' that is sparse" in refused(path).message


def test_a_tensor_that_is_large_in_name_only_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pth", {**state(), "huge": torch.zeros(1).expand(10**6, 10**6)})
    assert "unexpected huge" in refused(path).message


@pytest.mark.parametrize("start", [b"\x89HDF\r\n", b"\x1f\x8b\x08\x00"])
def test_other_formats_are_named(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(start + bytes(100))
    assert "not a checkpoint of PyTorch" in refused(path).message


def test_a_newer_protocol_of_pickle_is_refused(tmp_path: Path) -> None:
    error = refused(saved(tmp_path / "x.pth", state(), pickle_protocol=4))
    assert "protocol 4" in error.message
    assert "torch.save(torch.load('x.pth', weights_only=False)" in error.hint


@pytest.mark.parametrize(("names", "hint"), [(["model.pth"], "tar -xf"), (["sys_info", "pickle"], "torch.save")])
def test_a_tar_archive_is_refused(tmp_path: Path, names: list[str], hint: str) -> None:
    path = tmp_path / "x.pth.tar"
    with tarfile.open(path, "w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    error = refused(path)
    assert "tar archive" in error.message
    assert hint in error.hint
