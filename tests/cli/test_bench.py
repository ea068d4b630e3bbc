from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper
from tests.helpers import Cli, tiny_onnx

from lmconv.benching.measuring import COLD_ROUNDS
from lmconv.store import artifact as artifacts

KEYS = {
    "path",
    "model",
    "target",
    "precision",
    "execution",
    "device",
    "threads",
    "batch",
    "samples",
    "median_ms",
    "low_ms",
    "high_ms",
    "p90_ms",
    "p99_ms",
    "ratio_torch",
    "ratio_plain",
    "ratio_flushed",
    "cold",
    "streams",
}


def bench(cli: Cli, *arguments: str | Path) -> list[dict[str, Any]]:
    ran = cli("bench", *arguments, "--json")
    assert ran.code == 0, ran.err
    rows: list[dict[str, Any]] = ran.document["rows"]
    return rows


def test_every_artefact_is_timed_with_both_ratios(cli: Cli, build: Path, weights: Path) -> None:
    paths = [build / "pfld" / name for name in ("onnx-fp32", "openvino-fp32")]
    ran = cli("bench", *paths, "--samples", "64", "--json")
    assert ran.code == 0, ran.err
    assert {"machine", "rows", "errors"} <= set(ran.document)
    assert {"cpu", "cores", "features", "versions"} <= set(ran.document["machine"])
    assert [row["path"] for row in ran.document["rows"]] == [str(path) for path in paths]
    for row in ran.document["rows"]:
        assert set(row) >= KEYS
        assert (row["device"], row["threads"], row["batch"], row["samples"]) == (
            "cpu",
            1,
            1,
            72,
        )  # nine rounds of eight
        assert 0 < row["low_ms"] <= row["median_ms"] <= row["high_ms"]
        assert row["median_ms"] <= row["p90_ms"]
        assert row["p99_ms"] is None
        assert row["ratio_torch"] > 0
        assert row["ratio_plain"] > 0


def test_p99_needs_662_samples(cli: Cli, small: Path) -> None:
    (row,) = bench(cli, small / "onnx-fp32", "--samples", "662")
    assert row["p99_ms"] >= row["p90_ms"]
    (row,) = bench(cli, small / "onnx-fp32", "--samples", "660")
    assert row["p99_ms"] is None


def test_an_onnx_source_has_no_ratio_to_pytorch_and_a_note(cli: Cli, small: Path) -> None:
    ran = cli("bench", small / "onnx-fp32", "--samples", "64", "--json")
    (row,) = ran.document["rows"]
    assert row["ratio_torch"] is None
    assert row["ratio_plain"] > 0
    assert "ratio_torch is null" in ran.err


def test_without_the_plain_graph_ratio_plain_is_null_with_a_note(cli: Cli, small: Path) -> None:
    (small / "plain").rename(small.parent / "elsewhere")
    ran = cli("bench", small / "onnx-fp32", "--samples", "64", "--json")
    assert ran.document["rows"][0]["ratio_plain"] is None
    assert "ratio_plain is null" in ran.err


def test_threads_and_batch_follow_the_options(cli: Cli, small: Path) -> None:
    (row,) = bench(cli, small / "onnx-fp32", "--samples", "64", "--threads", "2", "--batch", "3")
    assert (row["threads"], row["batch"]) == (2, 3)


def test_another_batch_size_than_the_fixed_one_is_refused(cli: Cli, tiny: Path) -> None:
    assert cli("export", tiny, "--batch", "4").code == 0
    cli("bench", "build/tiny/onnx-fp32", "--samples", "64").refused(4, "takes 4 inputs per run, not 1", "--batch 4")
    assert cli("bench", "build/tiny/onnx-fp32", "--samples", "64", "--batch", "4").code == 0


def test_without_arguments_everything_below_build_is_timed(cli: Cli, small: Path) -> None:
    paths = {row["path"] for row in bench(cli, "--samples", "64")}
    assert paths == {f"build/tiny/{name}" for name in ("onnx-fp32", "openvino-fp32", "openvino-bf16")}


def test_bench_without_artefacts_is_refused(cli: Cli) -> None:
    cli("bench").refused(4, "build is not an artefact: there is no such folder", "lmconv export")


def test_the_result_is_kept_in_the_manifest(cli: Cli, small: Path) -> None:
    (row,) = bench(cli, small / "onnx-fp32", "--samples", "64")
    recorded = artifacts.read(small / "onnx-fp32").measured["latency"]
    assert recorded["median_ms"] == row["median_ms"]


def has_gpu() -> bool:
    from lmconv.trt import driver
    from lmconv.trt.faults import Fault

    try:
        return bool(driver.describe())
    except Fault:
        return False


without_gpu = pytest.mark.skipif(has_gpu(), reason="there is a GPU here")


@without_gpu
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_missing_gpu_ends_with_exit_code_3(cli: Cli, small: Path, target: str) -> None:
    cli("bench", small / f"{target}-fp32", "--device", "gpu").refused(3, f"{target}-fp32", "no GPU", "--device cpu")


@without_gpu
def test_a_missing_gpu_is_reported_once_and_before_any_work(cli: Cli, small: Path) -> None:
    (small / "onnx-fp32" / "model.onnx").write_bytes(b"broken")
    cli("bench", "--device", "gpu", "--sweep").refused(3, "onnx-fp32, build/tiny/openvino-bf16", "no GPU")
    ran = cli("bench", "--device", "gpu", "--json")
    assert (ran.code, ran.document["rows"]) == (3, [])
    assert [error["kind"] for error in ran.document["errors"]] == ["missing"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "gpu", "--threads", "1"), "--threads is for the CPU"),
        (("--sweep",), "--sweep is for a GPU"),
        (("--device", "gpu", "--sweep", "--batch", "8"), "--sweep and --batch contradict each other"),
        (("--device", "gpu", "--streams", "2"), "--streams is for the CPU"),
        (("--device", "gpu", "--cold"), "--cold is for the CPU"),
        (("--streams", "100000"), "--streams 100000 with --threads 1 on a machine with"),
    ],
)
def test_contradicting_options_are_refused(cli: Cli, options: tuple[str, ...], message: str) -> None:
    cli("bench", "build/none/onnx-fp32", *options).refused(2, message)


def test_the_table_names_the_machine(cli: Cli, small: Path) -> None:
    out = cli("bench", small / "onnx-fp32", "--samples", "64").out
    assert "onnx-fp32" in out
    assert "cores" in out.splitlines()[-1]


def test_cold_adds_runs_after_a_sweep_of_the_cache(cli: Cli, small: Path) -> None:
    (row,) = bench(cli, small / "onnx-fp32", "--samples", "64", "--cold")
    assert row["cold"]["samples"] == COLD_ROUNDS
    assert 0 < row["cold"]["low_ms"] <= row["cold"]["median_ms"] <= row["cold"]["high_ms"]
    assert row["cold"]["ratio_flushed"] > 0


@pytest.mark.parametrize("artefact", ["onnx-fp32", "openvino-fp32"])
def test_streams_adds_images_per_second(cli: Cli, small: Path, artefact: str) -> None:
    options = ("--samples", "64", "--streams", "1", "--batch", "2")
    (row,) = bench(cli, small / artefact, *options)
    assert row["streams"]["count"] == 1
    assert 0 < row["streams"]["low"] <= row["streams"]["throughput"] <= row["streams"]["high"]
    assert row["streams"]["ratio_flushed"] > 0


def test_the_table_has_a_column_for_each_measurement(cli: Cli, small: Path) -> None:
    usual = cli("bench", small / "onnx-fp32", "--samples", "64").out.splitlines()[0]
    assert not {"cold ms", "images/s", "x published"} & set(usual.split("  "))
    header = cli("bench", small / "onnx-fp32", "--samples", "64", "--cold", "--streams", "1").out.splitlines()[0]
    assert {"cold ms", "images/s"} <= {cell.strip() for cell in header.split("  ")}


def test_without_baselines_only_the_artefacts_are_timed(cli: Cli, small: Path) -> None:
    ran = cli("bench", small / "onnx-fp32", "--samples", "64", "--no-baseline", "--json")
    assert ran.document["baselines"] == []
    assert {ran.document["rows"][0][f"ratio_{name}"] for name in ("torch", "plain", "flushed")} == {None}
    assert ran.err == ""


def test_a_plain_graph_without_denormals_is_one_baseline(cli: Cli, small: Path) -> None:
    document = cli("bench", small / "onnx-fp32", "--samples", "64", "--json").document
    assert [row["target"] for row in document["baselines"]] == ["plain"]
    assert document["rows"][0]["ratio_flushed"] == document["rows"][0]["ratio_plain"]


def test_a_plain_graph_with_denormals_is_timed_with_zeros_in_their_place_too(cli: Cli, tmp_path: Path) -> None:
    model = tiny_onnx()
    weights = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights[0, 0] = 1e-40
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "conv.weight"))
    path = tmp_path / "denormal.onnx"
    onnx.save(model, path)
    assert cli("export", path, "--no-guard").code == 0
    ran = cli("bench", "build/denormal", "--samples", "64", "--json")
    assert [row["target"] for row in ran.document["baselines"]] == ["plain", "flushed"]
    assert "64 weights of the plain graph are denormal" in ran.err
    (row,) = ran.document["rows"]
    assert row["ratio_flushed_low"] <= row["ratio_flushed"] <= row["ratio_flushed_high"]
    assert "x published" in cli("bench", "build/denormal", "--samples", "64").out


def test_folders_are_the_artefacts_below_them(cli: Cli, small: Path) -> None:
    expected = [f"build/tiny/{name}" for name in ("onnx-fp32", "openvino-bf16", "openvino-fp32")]
    for arguments in (["build"], ["build/tiny"], sorted(Path("build/tiny").glob("[!.]*"))):
        assert [row["path"] for row in bench(cli, *arguments, "--samples", "64", "--no-baseline")] == expected


def test_a_plain_graph_alone_is_a_baseline(cli: Cli, small: Path) -> None:
    document = cli("bench", small / "plain", "--samples", "64", "--json").document
    assert document["rows"] == []
    assert [(row["target"], row["ratio_plain"]) for row in document["baselines"]] == [("plain", 1.0)]


def test_an_artefact_that_does_not_open_leaves_the_others(cli: Cli, small: Path) -> None:
    (small / "openvino-fp32" / "model.xml").write_bytes(b"broken")
    ran = cli("bench", small / "openvino-fp32", small / "onnx-fp32", "--samples", "64", "--json")
    ran.refused(4, "openvino-fp32")
    assert [row["target"] for row in ran.document["rows"]] == ["onnx"]
