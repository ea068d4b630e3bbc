"""The commands `models`, `weights`, `doctor` and `inspect`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tests.goldens import make
from tests.helpers import Cli, contents, python
from torch import nn

from lmconv.plugins import BACKBONES, TARGETS
from lmconv.sources import checkpoints
from lmconv.store import artifact as artifacts
from lmconv.types import Backbone, landmark_spec

# models


@pytest.fixture
def models(cli: Cli, weights: Path) -> dict[str, Any]:
    """The rows of `lmconv models --json` by name."""
    ran = cli("models", "--json")
    assert ran.code == 0, ran.err
    return {row["name"]: row for row in ran.document["models"]}


def test_models_lists_every_backbone_with_the_documented_keys(models: dict[str, Any]) -> None:
    assert sorted(models) == BACKBONES.names()
    keys = {"name", "task", "input", "landmarks", "parameters", "flops", "published_ion", "weights"}
    for row in models.values():
        assert set(row) >= keys


@pytest.mark.parametrize(
    ("model", "parameters", "gflop"), [("pfld", 730_472, 0.306), ("mobilefacenet", 1_007_248, 0.442)]
)
def test_models_lists_parameters_and_flops(models: dict[str, Any], model: str, parameters: int, gflop: float) -> None:
    row = models[model]
    assert row["input"] == ["N", 3, 112, 112]
    assert row["landmarks"] == 68
    assert row["parameters"] == parameters
    assert row["flops"] / 1e9 == pytest.approx(gflop, abs=2e-3)


def test_models_lists_the_path_of_available_weights(models: dict[str, Any], weights: Path) -> None:
    for name, row in models.items():
        if name == "drawn68":
            assert row["weights"].endswith("known/drawn68.safetensors"), "drawn68 is part of lmconv"
        else:
            here = str(weights / f"{name}_model_best.pth.tar") if name in make.MODELS else None
            assert row["weights"] == here


def test_models_builds_no_network_of_the_table() -> None:
    loaded = "; print([name for name in ('torch', 'onnx', 'numpy') if name in sys.modules], file=sys.stderr)"
    ran = python("import sys; from lmconv.cli import run; run(['models'])" + loaded)
    assert ran.err.strip() == "[]"


@pytest.mark.slow
def test_models_counts_a_network_that_is_not_in_the_table(cli: Cli) -> None:
    linear = Backbone(
        spec=landmark_spec("other", "other", size=(8, 8), landmarks=4),
        build=lambda points: nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2 * points)),
        summary="linear",
    )
    with BACKBONES.using(other=linear):
        rows = {row["name"]: row for row in cli("models", "--json").document["models"]}
    other = rows.pop("other")
    assert (other["parameters"], other["flops"]) == (8 * 192 + 8, 2 * 8 * 192)
    assert list(rows) == BACKBONES.names()


# weights


def test_weights_list_gives_source_licence_and_published_ion(cli: Cli, weights: Path) -> None:
    rows = {row["model"]: row for row in cli("weights", "list", "--json").document["weights"]}
    assert set(make.MODELS) <= set(rows)
    for model in make.MODELS:
        assert rows[model]["path"] == str(weights / f"{model}_model_best.pth.tar")
        assert rows[model]["licence"]
        assert rows[model]["source"].startswith("https://")
        assert set(rows[model]["ion"]) == {"common", "challenge", "full"}


def test_a_network_without_a_published_figure_is_listed_with_a_dash(cli: Cli) -> None:
    line = next(line for line in cli("weights", "list").out.splitlines() if line.startswith("drawn68 "))
    assert line.split()[1:3] == ["drawn68.safetensors", "-"]


def test_weights_list_marks_missing_weights(cli: Cli) -> None:
    rows = cli("weights", "list", "--json").document["weights"]
    assert [row["model"] for row in rows if row["path"]] == ["drawn68"], "drawn68 is part of lmconv"
    assert "not found" in cli("weights", "list").out


def test_weights_add_recognises_the_network_and_copies_the_file_to_the_cache(
    cli: Cli, seeded: Path, tmp_path: Path
) -> None:
    file = tmp_path / "download"
    file.write_bytes((seeded / "pfld_model_best.pth.tar").read_bytes())
    (row,) = cli("weights", "add", file, "--json").document["weights"]
    assert row["model"] == "pfld"
    copied = Path(row["path"])
    assert copied.is_relative_to(tmp_path / "cache")
    assert copied.read_bytes() == file.read_bytes()
    assert row["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert checkpoints.find("pfld") == copied


def test_weights_add_keeps_a_published_name(cli: Cli, seeded: Path) -> None:
    (row,) = cli("weights", "add", seeded / "mobilefacenet_model_best.pth.tar", "--json").document["weights"]
    assert Path(row["path"]).name == "mobilefacenet_model_best.pth.tar"


def test_weights_add_refuses_another_network_and_adds_nothing(cli: Cli, seeded: Path, tmp_path: Path) -> None:
    ran = cli("weights", "add", seeded / "pfld_model_best.pth.tar", "--model", "mobilefacenet")
    ran.refused(4, "these are the weights of pfld")
    assert not (tmp_path / "cache").exists()


def test_weights_add_refuses_a_checkpoint_of_no_network(cli: Cli, tmp_path: Path) -> None:
    import torch

    torch.save({"a": torch.zeros(2)}, tmp_path / "x.pth")
    cli("weights", "add", tmp_path / "x.pth").refused(4, "fits no network")


FULL = """
import resource, signal, sys
from lmconv.cli import run
import lmconv.sources.resolve
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.slow
def test_weights_add_on_a_full_disk_leaves_nothing(seeded: Path, tmp_path: Path) -> None:
    ran = python(FULL, "weights", "add", seeded / "pfld_model_best.pth.tar")
    ran.refused(4, "cannot write", "free space there")
    assert contents(tmp_path / "cache") == {}


def test_weights_verify_states_if_a_checkpoint_is_known(cli: Cli, weights: Path) -> None:
    ran = cli("weights", "verify", "--json")
    assert ran.code == 0
    rows = {row["model"]: row for row in ran.document["weights"]}
    assert sorted(rows) == ["drawn68", *sorted(make.MODELS)]
    assert rows.pop("drawn68")["known"] == "what weights/train_drawn68.py wrote"
    assert {row["known"] for row in rows.values()} == {"not a known file, but it fits"}


def test_weights_verify_continues_after_a_broken_file(cli: Cli, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.pth").touch()
    ran = cli("weights", "verify", tmp_path / "empty.pth", weights / "pfld_model_best.pth.tar", "--json")
    ran.refused(4, "empty.pth is empty")
    assert [row["model"] for row in ran.document["weights"]] == ["pfld"]


@pytest.mark.realdata
def test_the_published_checkpoints_are_known(cli: Cli, real_weights: Path) -> None:
    rows = {row["model"]: row for row in cli("weights", "verify", "--json").document["weights"]}
    for model in make.MODELS:
        assert "the published" in rows[model]["known"]


# doctor


def test_doctor_names_every_target_and_what_to_install(cli: Cli, weights: Path) -> None:
    ran = cli("doctor", "--json")
    assert ran.code == 0
    runtimes = {row["name"]: row["install"] for row in ran.document["runtimes"]}
    for target in TARGETS.names():
        assert target in runtimes
    assert runtimes["onnx"] is None
    needed = TARGETS.load("tensorrt").requires()
    assert runtimes["tensorrt"] == needed
    assert ran.document["machine"]["versions"]["onnxruntime"]
    assert str(needed or "ready") in cli("doctor").out


# inspect


def test_inspect_prints_the_whole_manifest(cli: Cli, small: Path) -> None:
    ran = cli("inspect", small / "onnx-fp32", "--json")
    assert ran.code == 0
    manifest = json.loads((small / "onnx-fp32" / "manifest.json").read_text(encoding="utf-8"))
    assert {key: value for key, value in ran.document.items() if key != "errors"} == manifest


def test_inspect_prints_a_summary_as_text(cli: Cli, small: Path) -> None:
    out = cli("inspect", small / "openvino-fp32").out
    artifact = artifacts.read(small / "openvino-fp32")
    for part in (
        "tiny: openvino fp32",
        artifact.digest,
        artifact.parents["source"]["sha256"],
        "opset      18, from 11 in the file",
        "INFERENCE_PRECISION_HINT",
    ):
        assert part in out


def test_inspect_changes_nothing(cli: Cli, small: Path) -> None:
    before = contents(small)
    cli("inspect", small / "onnx-fp32")
    assert contents(small) == before
