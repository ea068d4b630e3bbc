from __future__ import annotations

import io
import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.goldens import make

from lmconv.errors import InputError
from lmconv.inference.session import noise
from lmconv.plugins import BACKBONES
from lmconv.sources import checkpoints
from lmconv.sources import resolve as source
from lmconv.sources.checkpoint_file import read
from lmconv.sources.pytorch import network
from lmconv.sources.states import State


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return dict(make.seeded("pfld").state_dict())


@pytest.fixture(scope="module")
def expected(seeded: Path) -> np.ndarray:
    return outputs(seeded / "pfld_model_best.pth.tar")


def outputs(path: Path) -> np.ndarray:
    resolved = source.resolve("pfld", weights=path)
    with source.open_source(resolved) as session:
        return np.asarray(session.run({"input": noise(resolved.spec, 2, 0)})["landmarks"])


def refused(path: Path, model: str = "pfld") -> InputError:
    with pytest.raises(InputError) as error:
        network(source.resolve(model, weights=path))
    assert str(path) in error.value.message
    assert error.value.hint
    return error.value


# Accepted checkpoints


def test_loads_a_dict_with_a_state_dict_and_other_entries(tmp_path: Path, state: State) -> None:
    path = tmp_path / "x.pth.tar"
    torch.save({"epoch": 7, "arch": "pfld", "state_dict": dict(state), "optimizer": {"lr": 0.1}}, path)
    assert list(read(path)["state_dict"]) == list(state)


def test_loads_a_bare_state_dict(tmp_path: Path, state: State, expected: np.ndarray) -> None:
    torch.save(dict(state), tmp_path / "x.pth")
    np.testing.assert_array_equal(outputs(tmp_path / "x.pth"), expected)


def test_loads_a_checkpoint_of_dataparallel(tmp_path: Path, state: State, expected: np.ndarray) -> None:
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "x.pth")
    np.testing.assert_array_equal(outputs(tmp_path / "x.pth"), expected)


def test_loads_safetensors(tmp_path: Path, state: State, expected: np.ndarray) -> None:
    save_file(dict(state), tmp_path / "x.safetensors")
    np.testing.assert_array_equal(outputs(tmp_path / "x.safetensors"), expected)


def test_loads_the_format_of_torch_save_before_zip_files(tmp_path: Path, state: State, expected: np.ndarray) -> None:
    torch.save(dict(state), tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    np.testing.assert_array_equal(outputs(tmp_path / "x.pth"), expected)


def test_loads_a_checkpoint_without_step_counters_of_batchnorm(
    tmp_path: Path, state: State, expected: np.ndarray
) -> None:
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    torch.save(old, tmp_path / "x.pth")
    np.testing.assert_array_equal(outputs(tmp_path / "x.pth"), expected)


# Refused checkpoints


def test_refuses_a_missing_key_and_names_the_first_three(tmp_path: Path, state: State) -> None:
    torch.save(dict(list(state.items())[5:]), tmp_path / "x.pth")
    assert "lacks conv1.weight, bn1.weight, bn1.bias and 2 more" in refused(tmp_path / "x.pth").message


def test_refuses_an_unexpected_key_and_names_it(tmp_path: Path, state: State) -> None:
    torch.save({**state, "head.weight": torch.zeros(1)}, tmp_path / "x.pth")
    assert "unexpected head.weight" in refused(tmp_path / "x.pth").message


def test_refuses_another_shape_and_names_both(tmp_path: Path, state: State) -> None:
    torch.save({**state, "fc.bias": torch.zeros(196)}, tmp_path / "x.pth")
    assert "fc.bias (196,) instead of (136,)" in refused(tmp_path / "x.pth").message


def test_refuses_a_checkpoint_for_another_number_of_points(tmp_path: Path, state: State) -> None:
    wide = {**state, "fc.weight": torch.zeros(196, 176), "fc.bias": torch.zeros(196)}
    torch.save(wide, tmp_path / "x.pth")
    error = refused(tmp_path / "x.pth")
    assert "fc.weight (196, 176) instead of (136, 176)" in error.message
    assert "use --landmarks 98" in error.hint


def test_loads_a_checkpoint_for_the_number_of_points_in_the_option(tmp_path: Path, state: State) -> None:
    wide = {**state, "fc.weight": torch.zeros(196, 176), "fc.bias": torch.full((196,), 0.25)}
    torch.save(wide, tmp_path / "x.pth")
    resolved = source.resolve("pfld", weights=tmp_path / "x.pth", landmarks=98)
    with source.open_source(resolved) as session:
        points = session.run({"input": noise(resolved.spec, 2, 0)})["landmarks"]
    assert points.shape == (2, 98, 2)
    np.testing.assert_allclose(points, 0.25)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_refuses_numbers_that_are_not_finite(tmp_path: Path, state: State, number: float) -> None:
    bias = state["fc.bias"].clone()
    bias[5] = number
    torch.save({**state, "fc.bias": bias}, tmp_path / "x.pth")
    assert "NaN or infinity in fc.bias" in refused(tmp_path / "x.pth").message


def test_the_hint_names_the_network_that_the_weights_belong_to(seeded: Path) -> None:
    assert (
        refused(seeded / "mobilefacenet_model_best.pth.tar").hint == "these are the weights of mobilefacenet, 68 points"
    )
    assert (
        refused(seeded / "pfld_model_best.pth.tar", "mobilefacenet").hint == "these are the weights of pfld, 68 points"
    )


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "gone.pth").message


def test_refuses_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "x.pth").touch()
    assert refused(tmp_path / "x.pth").message.endswith("is empty")


def test_refuses_a_web_page(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_text("\n<!DOCTYPE html><html>Quota exceeded</html>", encoding="utf-8")
    assert "is a web page" in refused(tmp_path / "x.pth").message


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_refuses_a_truncated_file(tmp_path: Path, state: State, suffix: str, share: float) -> None:
    path = tmp_path / f"x.{suffix}"
    if suffix == "pth":
        torch.save(dict(state), path)
    else:
        save_file(dict(state), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "truncated or not a checkpoint" in refused(path).message


@pytest.mark.parametrize(
    "content",
    [b"not a checkpoint at all", bytes(1000), b"PK\x03\x04" + bytes(100), b"\x80\x02}q\x00."],
    ids=["text", "zeros", "a broken zip", "an empty pickle"],
)
def test_refuses_a_file_that_is_not_a_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    refused(tmp_path / "x.pth")


def test_refuses_a_picture_in_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as file:
        file.writestr("face.png", b"\x89PNG")
    assert "truncated or not a checkpoint" in refused(tmp_path / "x.pth").message


@pytest.mark.parametrize("content", [{"state_dict": {}}, {"epoch": 3}, [torch.zeros(2)], torch.zeros(3)])
def test_refuses_a_file_without_a_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pth")
    assert "holds no state dict" in refused(tmp_path / "x.pth").message


class Attack:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def attack(path: Path, trace: Path, form: str) -> None:
    if form == "torch.save":
        torch.save({"state_dict": {"fc.bias": torch.zeros(136)}, "extra": Attack(trace)}, path)
    elif form == "old torch.save":
        torch.save({"state_dict": Attack(trace)}, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps(Attack(trace)))


@pytest.mark.parametrize("form", ["torch.save", "old torch.save", "pickle"])
def test_never_runs_code_from_a_file(tmp_path: Path, form: str) -> None:
    path, trace = tmp_path / "x.pth", tmp_path / "was_here"
    attack(path, trace, form)
    refused(path)
    assert not trace.exists()


@pytest.mark.parametrize("form", ["torch.save", "old torch.save", "pickle"])
def test_the_attack_works_on_a_loader_that_runs_pickled_code(tmp_path: Path, form: str) -> None:
    path, trace = tmp_path / "x.pth", tmp_path / "was_here"
    attack(path, trace, form)
    if form == "pickle":
        pickle.load(io.BytesIO(path.read_bytes()))  # noqa: S301  a checkpoint must never be loaded like this
    else:
        torch.load(path, weights_only=False)
    assert trace.is_dir()


def test_refuses_code_in_a_file_with_the_suffix_safetensors(tmp_path: Path) -> None:
    path, trace = tmp_path / "x.safetensors", tmp_path / "was_here"
    attack(path, trace, "torch.save")
    refused(path)
    assert not trace.exists()


def test_a_tensor_under_a_key_that_is_not_a_string_is_no_weight(
    tmp_path: Path, state: State, expected: np.ndarray
) -> None:
    torch.save({5: torch.zeros(1)}, tmp_path / "x.pth")
    refused(tmp_path / "x.pth")
    mixed: dict[str | int, torch.Tensor] = {5: torch.zeros(1)}
    mixed.update(state)
    torch.save(mixed, tmp_path / "y.pth")
    np.testing.assert_array_equal(outputs(tmp_path / "y.pth"), expected)


def test_refuses_complex_numbers(tmp_path: Path, state: State) -> None:
    torch.save({**state, "fc.bias": torch.zeros(136, dtype=torch.complex64)}, tmp_path / "x.pth")
    assert "fc.bias" in refused(tmp_path / "x.pth").message


def test_refuses_numbers_beyond_the_range_of_float32(tmp_path: Path, state: State) -> None:
    torch.save({**state, "fc.bias": torch.full((136,), 1e300, dtype=torch.float64)}, tmp_path / "x.pth")
    assert "fc.bias" in refused(tmp_path / "x.pth").message


# Search for checkpoints


def test_a_checkpoint_is_found_by_its_published_name_two_levels_deep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a" / "b" / "pfld_model_best.pth.tar"
    path.parent.mkdir(parents=True)
    path.touch()
    monkeypatch.setenv("LMCONV_WEIGHTS", os.pathsep.join([str(tmp_path / "nothing"), str(tmp_path)]))
    assert checkpoints.find("pfld") == path
    assert checkpoints.find("mobilefacenet") is None


def test_a_checkpoint_three_levels_down_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "a" / "b" / "c" / "pfld_model_best.pth.tar"
    path.parent.mkdir(parents=True)
    path.touch()
    monkeypatch.setenv("LMCONV_WEIGHTS", str(tmp_path / "deep"))
    assert checkpoints.find("pfld") is None


def test_folders_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [tmp_path / "given", tmp_path / "listed", Path("weights"), tmp_path / "cache" / "lmconv" / "weights"]
    monkeypatch.setenv("LMCONV_WEIGHTS", str(tmp_path / "listed"))
    for folder in places:
        folder.mkdir(parents=True)
        (folder / "pfld.pth").touch()
    for folder in places:
        assert checkpoints.find("pfld", tmp_path / "given") == folder / "pfld.pth"
        (folder / "pfld.pth").unlink()


def test_a_checkpoint_is_found_by_its_sha256_under_another_name(tmp_path: Path, seeded: Path) -> None:
    renamed = tmp_path / "renamed.tar"
    renamed.write_bytes((seeded / "pfld_model_best.pth.tar").read_bytes())
    digest = source.resolve("pfld", weights=renamed).sha256
    assert checkpoints.find_digest(digest, "pfld_model_best.pth.tar", extra=tmp_path) == renamed
    assert checkpoints.find_digest("0" * 64, "pfld_model_best.pth.tar", extra=tmp_path) is None


def test_a_missing_checkpoint_is_named_by_its_published_file_name() -> None:
    with pytest.raises(InputError, match=r"no checkpoint of pfld .*pfld_model_best\.pth\.tar"):
        source.resolve("pfld")


def test_every_published_checkpoint_belongs_to_a_network_and_has_complete_sums() -> None:

    for name, known in checkpoints.known().items():
        assert name in BACKBONES.names()
        assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in known.sha256)
