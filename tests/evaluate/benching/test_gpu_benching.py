"""`lmconv bench --device gpu` on a machine without a GPU: figures, choices, and a rehearsal on the CPU."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.helpers import Cli

from lmconv.benching import gpu as gpu_benching
from lmconv.benching.gpu import SWEEP, accepted_batches, as_error, figures, gpu_ms, ratio, remarks
from lmconv.benching.options import TimingOptions
from lmconv.errors import Bug, InputError, LmconvError, MissingRuntime
from lmconv.store import artifact as artifacts
from lmconv.trt.faults import Fault
from lmconv.trt.interleaving import InterleavedTimes

ARTIFACT = "flat-Flat/onnx-fp32"
KEYS = (
    "path model target precision io size timed execution caveat device threads "
    "batch samples median_ms low_ms high_ms p90_ms p99_ms ratio_torch ratio_compiled ratio_plain throughput gpu warm_up"
)
"""Keys of an artefact's row, in order: scripts of users depend on them."""
WARM = {"seconds": 0.5, "runs": 40, "settled": True, "windows": [1.0], "before": {}, "after": {}}


def interleaved(**times: dict[str, float]) -> InterleavedTimes:
    samples = {name: {kind: [value] * 64 for kind, value in kinds.items()} for name, kinds in times.items()}
    return InterleavedTimes(samples, dict.fromkeys(times, WARM), {name: {} for name in times}, {}, [])


ENGINE = {"execute": 0.2, "graph": 0.1, "wall": 0.5, "copy_in": 0.02, "copy_out": 0.01}
EAGER = {"execute": 0.6, "graph": 0.3, "wall": 0.9, "copy_in": 0.02, "copy_out": 0.01}


def test_a_row_has_host_time_and_gpu_time() -> None:
    row = figures(interleaved(engine=ENGINE, torch=EAGER), "engine", 8)
    assert (row["batch"], row["samples"], row["median_ms"]) == (8, 64, 0.5)
    assert {kind: row["gpu"][kind]["median_ms"] for kind in ("execute", "graph", "copy_in", "copy_out")} == {
        kind: ENGINE[kind] for kind in ("execute", "graph", "copy_in", "copy_out")
    }
    assert set(row["gpu"]["execute"]) == {"samples", "median_ms", "low_ms", "high_ms", "p90_ms", "p99_ms"}
    assert row["warm_up"] == {key: value for key, value in WARM.items() if key != "windows"}


def test_throughput_and_ratios_use_the_gpu_time_of_the_cuda_graph() -> None:
    row = figures(interleaved(engine=ENGINE, torch=EAGER, plain={"execute": 0.4, "wall": 1.0}), "engine", 8)
    assert row["throughput"] == pytest.approx(8 / 0.1 * 1000)
    assert row["ratio_torch"] == pytest.approx(0.6 / 0.1)
    assert row["ratio_plain"] == pytest.approx(0.4 / 0.1)
    assert row["ratio_compiled"] is None


def test_a_kind_that_was_not_timed_is_null_with_the_reason() -> None:
    times = interleaved(engine={"execute": 0.2, "wall": 0.5, "copy_in": 0.02, "copy_out": 0.01})
    times.left_out["engine"] = {"graph": "cuStreamEndCapture: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"}
    row = figures(times, "engine", 1)
    assert row["gpu"]["graph"] is None
    assert row["gpu"]["left_out"] == times.left_out["engine"]
    assert row["throughput"] == pytest.approx(1 / 0.2 * 1000)


def test_the_gpu_time_comes_from_graph_or_kernels_or_host() -> None:
    assert gpu_ms({"wall": [3.0], "execute": [2.0], "graph": [1.0]}) == 1.0
    assert gpu_ms({"wall": [3.0], "execute": [2.0]}) == 2.0
    assert gpu_ms({"wall": [3.0]}) == 3.0
    assert ratio(None, {"wall": [3.0]}) is None


@pytest.mark.parametrize(
    ("fixed", "profile", "expected"),
    [
        (None, None, list(SWEEP)),
        (None, (1, 8, 64), [1, 2, 4, 8, 16, 32, 64]),
        (None, (4, 8, 100), [4, 8, 16, 32, 64]),
        (8, None, [8]),
        (3, None, []),
    ],
)
def test_a_sweep_has_the_batch_sizes_that_an_artefact_accepts(
    fixed: int | None, profile: tuple[int, int, int] | None, expected: list[int]
) -> None:
    assert accepted_batches(SWEEP, fixed, profile) == expected


def test_a_sweep_goes_from_1_to_256() -> None:
    assert SWEEP == (1, 2, 4, 8, 16, 32, 64, 128, 256)


def state(when: str, *throttle: str, busy: float = 0) -> dict[str, Any]:
    return {"when": when, "throttle": list(throttle), "utilisation_percent": busy}


def test_lowered_clocks_give_a_remark() -> None:
    (remark,) = remarks([state("start"), state("after block 1", "software power cap", "idle"), state("after block 2")])
    assert remark == (
        "the GPU's clocks were lowered (software power cap) in 1 of 2 readings: "
        "ratios stay valid, but times may be too long"
    )


def test_use_of_the_gpu_by_others_gives_a_remark() -> None:
    (remark,) = remarks([state("start", busy=40), state("after block 1", busy=90)])
    assert "a load of 40 % before timing" in remark


def test_a_gpu_that_is_idle_before_and_busy_during_timing_gives_no_remark() -> None:
    assert remarks([state("start", "idle"), state("before"), state("after block 1", busy=99)]) == []
    assert remarks([{"when": "start"}, {"when": "after block 1", "throttle": None}]) == []  # without nvidia-smi


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("memory", MissingRuntime),
        ("device", MissingRuntime),
        ("missing", MissingRuntime),
        ("run", MissingRuntime),
        ("shape", InputError),
        ("input", InputError),
        ("bug", Bug),
    ],
)
def test_a_workers_fault_has_an_exit_code(kind: str, expected: type[LmconvError]) -> None:
    error = as_error(Fault(kind, "what", "do this"))
    assert type(error) is expected
    assert (error.message, error.hint) == ("what", "do this")


@pytest.mark.slow
def test_a_rehearsal_on_the_cpu_times_all_contestants_and_records_them(own_build: Path, tmp_path: Path) -> None:
    """Only the GPU is missing: processes, PyTorch, ONNX Runtime, rows and manifest are real."""
    place = Path(shutil.copytree(own_build, tmp_path / "own"))
    artifact = artifacts.read(place / ARTIFACT)
    steps: list[None] = []
    options = TimingOptions(device="gpu", samples=64, model=f"{own_build / 'flat.py'}:Flat")
    rows = gpu_benching.bench([artifact], options, (1, 4), lambda: steps.append(None), where="cpu")
    assert rows.failed == {}
    assert [(row["path"], row["batch"]) for row in rows.artifacts] == [(str(artifact.path), 1), (str(artifact.path), 4)]
    timed = {row["target"] for row in rows.baselines}
    assert timed >= {"torch", "plain"}  # "compiled" needs a compiler
    for row in (*rows.artifacts, *rows.baselines):
        assert 0 < row["low_ms"] <= row["median_ms"] <= row["high_ms"]
        assert row["throughput"] == pytest.approx(row["batch"] / row["median_ms"] * 1000)
        assert row["gpu"]["execute"] is None
        assert row["gpu"]["left_out"]["execute"] == "it runs on the CPU"
        assert row["ratio_torch"] > 0
        assert row["ratio_plain"] > 0
    assert {reading["batch"] for reading in rows.states} == {1, 4}
    recorded = artifacts.read(artifact.path).measured["latency_gpu"]["rows"]
    assert [row["median_ms"] for row in recorded] == [row["median_ms"] for row in rows.artifacts]
    assert np.isfinite([row["throughput"] for row in recorded]).all()
    assert len(steps) >= 2 * 3 * 10


@pytest.mark.slow
def test_the_command_prints_the_table_and_the_document(
    cli: Cli, own_build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rehearsal through the command line, with an invented description of the GPU."""
    place = Path(shutil.copytree(own_build, tmp_path / "own"))
    gpu = {"gpu": "NVIDIA T1", "compute_capability": "7.5", "cuda": "12.4", "tensorrt": None}
    monkeypatch.setattr(gpu_benching, "ready", lambda: {"gpu": gpu, "states": [state("start", busy=30)]})
    monkeypatch.setattr(gpu_benching, "load_artifact", lambda path, options, batches: artifacts.read(path))
    monkeypatch.setattr(gpu_benching, "bench", functools.partial(gpu_benching.bench, where="cpu"))
    line = ("bench", place / ARTIFACT, "--device", "gpu", "--batch", "2", "--samples", "64")
    ran = cli(*line, "--json")
    assert ran.code == 0, ran.err
    (row,) = ran.document["rows"]
    assert (row["device"], row["threads"], row["batch"]) == ("gpu", None, 2)
    assert ran.document["machine"]["gpu"] == gpu
    assert [reading["when"] for reading in ran.document["machine"]["states"]][:3] == [
        "start",
        "before",
        "after block 1",
    ]
    assert "a load of 30 %" in ran.err
    out = cli(*line).out
    assert "onnx-fp32" in out
    assert "(flat-Flat: plain)" in out
    assert out.splitlines()[-1] == "NVIDIA T1, CUDA 12.4, TensorRT -"


@pytest.mark.slow
def test_a_failed_artefact_is_an_error_and_the_others_are_timed(own_build: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(own_build, tmp_path / "own"))
    shutil.copytree(place / ARTIFACT, place / "flat-Flat" / "other")
    group = [artifacts.read(place / ARTIFACT), artifacts.read(place / "flat-Flat" / "other")]
    (place / "flat-Flat" / "other" / "model.onnx").write_bytes(b"broken meanwhile")
    rows = gpu_benching.bench(group, TimingOptions(device="gpu", samples=64), (1,), where="cpu")
    assert [row["path"] for row in rows.artifacts] == [str(group[0].path)]
    (error,) = rows.failed.values()
    assert (error.exit_code, error.hint) == (4, "export again")
    assert "model.onnx was changed after it was written" in error.message


def test_without_baselines_the_ratios_are_null_with_a_note(own_build: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(own_build, tmp_path / "own"))
    shutil.rmtree(place / "flat-Flat" / "plain")
    rows = gpu_benching.bench(
        [artifacts.read(place / ARTIFACT)], TimingOptions(device="gpu", samples=64), (2,), where="cpu"
    )
    (row,) = rows.artifacts
    assert (row["ratio_torch"], row["ratio_compiled"], row["ratio_plain"]) == (None, None, None)
    assert any("ratio_torch is null" in note for note in rows.notes)
    assert any("ratio_plain is null" in note for note in rows.notes)
    assert list(row) == KEYS.split()
