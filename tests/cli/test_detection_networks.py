"""Detection networks on the command line: export, verify, bench and inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.helpers import Cli, built, tiny_onnx

from lmconv.sources.resolve import names


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("retinaface", "--to", "tensorrt"), ("any size", "--input 3x240x320")),
        (("mtcnn_rnet", "--precision", "int8"), ("is a detector", "ask for fp32 or fp16")),
        (("mtcnn_rnet", "--io", "frame"), ("is a detector", "leave --io out")),
        (("mtcnn_rnet", "--landmarks", "5"), ("is a detector", "leave --landmarks out")),
        (("mtcnn_rnet", "--input", "3x48x48"), ("mtcnn_rnet has its size",)),
        (("mtcnn_rnet", "--decode", "argmax"), ("gives points, not heatmaps",)),
    ],
)
def test_options_without_meaning_for_a_detector_are_refused_before_any_work(
    arguments: tuple[str, ...], parts: tuple[str, ...], cli: Cli
) -> None:
    cli("export", "--random-weights", *arguments).refused(2, *parts)
    assert not Path("build").exists()


@pytest.mark.slow
def test_a_detector_is_exported_verified_timed_and_inspected(cli: Cli) -> None:
    exported = cli("export", "mtcnn_rnet", "--random-weights", "--to", "onnx", "--to", "openvino", "--json")
    assert exported.code == 0, exported.err
    paths = [row["path"] for row in exported.document["artifacts"]]
    verified = cli("verify", *paths, "--json")
    assert verified.code == 0, verified.err
    for row in verified.document["artifacts"]:
        assert row["gates"] == {"max_abs": "passed"}
        assert row["parity"]["against"] == "torch"
        assert row["parity"]["max_px"] is None
    timed = cli("bench", *paths, "--samples", "64", "--json")
    assert timed.code == 0, timed.err
    assert [row["size"] for row in timed.document["rows"]] == [[24, 24]] * 2
    shown = cli("inspect", paths[0])
    assert "gives      boxes float32 (N, 4) NC" in shown.out
    assert "raw outputs of the network" in shown.out


def test_an_npz_with_pickled_objects_is_refused(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "rnet.npz"
    arrays: dict[str, Any] = {"conv5_1.weight": np.array([{}], object)}
    np.savez(path, **arrays)
    cli("export", "mtcnn_rnet", "--weights", path).refused(4, "runs no code from a file")


def test_weights_of_another_network_of_mtcnn_are_named(cli: Cli, tmp_path: Path) -> None:

    path = tmp_path / "some.npz"
    arrays: dict[str, Any] = {name: value.numpy() for name, value in built("mtcnn_onet").state_dict().items()}
    np.savez(path, **arrays)
    cli("export", "mtcnn_rnet", "--weights", path).refused(4, "these are the weights of mtcnn_onet")
    assert "mtcnn_onet" in cli("weights", "verify", path).out


def test_an_unpublished_file_is_refused_for_a_network_published_as_onnx(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "version-RFB-320.onnx"
    path.write_bytes(tiny_onnx().SerializeToString())
    cli("export", "rfb320", "--weights", path).refused(4, "is not the published file of rfb320")
    cli("export", "rfb320", "--random-weights").refused(4, "no checkpoint of rfb320", "version-RFB-320.onnx")


@pytest.mark.slow
def test_a_fixed_size_is_fixed_in_every_artefact(cli: Cli) -> None:
    options = ("--random-weights", "--to", "onnx", "--to", "openvino", "--json")
    free = cli("export", "mtcnn_pnet", *options)
    fixed = cli("export", "mtcnn_pnet", "--input", "3x45x62", *options)
    assert free.code == fixed.code == 0, fixed.err
    paths = [row["path"] for row in fixed.document["artifacts"]]
    for path in (*paths, "build/mtcnn_pnet/plain"):
        assert cli("inspect", path, "--json").document["interface"]["inputs"][0]["shape"] == ["N", 3, 45, 62]
    assert cli("verify", *paths).code == 0


@pytest.mark.realdata
@pytest.mark.parametrize(
    "detectors",
    [
        pytest.param(("mtcnn_onet", "rfb320"), marks=pytest.mark.slow),
        pytest.param(names("detection"), marks=pytest.mark.exhaustive),
    ],
    ids=["two", "all"],
)
def test_published_detectors_are_converted_and_pass_their_gates(
    cli: Cli, shared: Path, monkeypatch: pytest.MonkeyPatch, detectors: tuple[str, ...]
) -> None:
    monkeypatch.setenv("LMCONV_WEIGHTS", str(shared / "detectors"))
    options = [part for name in ("fp32", "fp16") for part in ("--precision", name)]
    exported = cli("export", *detectors, "--to", "onnx", "--to", "openvino", *options, "--json")
    assert exported.code == 0, exported.err
    verified = cli("verify", *(row["path"] for row in exported.document["artifacts"]), "--json")
    assert verified.code == 0, verified.err
    assert len(verified.document["artifacts"]) == 4 * len(detectors)
    assert {row["parity"]["against"] for row in verified.document["artifacts"]} == {"torch", "onnx"}
