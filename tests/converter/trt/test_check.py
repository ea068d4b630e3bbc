"""The check on a GPU host, as far as no GPU is needed; `scripts/gpu_check.py rehearse` tests the other steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmconv.trt import check, device
from lmconv.trt.faults import Fault

CASE = {"limit": 0.01, "judged": "landmarks"}
GOOD = {
    "off": {"max": 0.005, "mean": 0.001},
    "batches": {"1": {"max": 0.0, "mean": 0.0}},
    "cache_changed": False,
    "leak": {"device": 0, "host": 4096},
}


class Doubles:
    """Doubles its inputs, and records the batch sizes."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        self.sizes.append(len(arrays["input"]))
        return {"landmarks": arrays["input"] * 2}


@pytest.mark.parametrize(("size", "sizes"), [(2, [2, 2, 2]), (5, [5]), (8, [8]), (1, [1] * 5)])
def test_inputs_run_in_full_batches_and_outputs_of_the_padding_are_removed(size: int, sizes: list[int]) -> None:
    inputs, runs = np.arange(5.0)[:, None], Doubles()
    outputs = check.in_chunks(runs, inputs, size)
    assert runs.sizes == sizes
    np.testing.assert_array_equal(outputs["landmarks"], inputs * 2)


def test_results_within_the_limits_have_no_complaint() -> None:
    assert check.complaints(GOOD, CASE) == []


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"off": {"max": 0.02, "mean": 0.0}}, "landmarks differ from the source network by 0.02"),
        ({"off": {"max": float("nan"), "mean": 0.0}}, "landmarks differ from the source network by nan"),
        ({"batches": {"3": {"max": 0.02, "mean": 0.0}}}, "landmarks of batch 3 differ from another batch size by 0.02"),
        ({"cache_changed": True}, "changed the cache"),
        ({"leak": {"device": 2 << 20, "host": 0}}, "2,097,152 bytes of device memory"),
    ],
    ids=["off", "not a number", "another batch", "another cache", "a leak"],
)
def test_a_result_outside_a_limit_has_a_complaint(part: dict[str, Any], message: str) -> None:
    (complaint,) = check.complaints(GOOD | part, CASE)
    assert message in complaint


def test_without_a_gpu_the_check_ends_with_exit_code_3_and_names_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    if device.missing() is None:
        pytest.skip("a GPU is here")
    assert check.main(["nowhere"]) == 3
    assert capsys.readouterr().err.startswith("error: engines cannot be built on this machine: ")


MODEL = {
    "name": "net",
    "inputs": "net.npz",
    "cases": [{"name": name, "profile": [1, 1, 8], "kept": True} for name in ("first", "second")],
    "batches": [1],
    "torch": {},
}


@pytest.fixture
def host(tmp_path: Path) -> Path:
    np.savez(tmp_path / "net.npz", input=np.zeros((2, 1)), landmarks=np.zeros((2, 1)))
    cases = {"digest": "1", "models": [], "mistakes": {}}
    (tmp_path / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    return tmp_path


def test_a_failed_case_does_not_stop_the_other_cases(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_case(case: dict[str, Any], *_: object) -> tuple[dict[str, Any], dict[str, Any], Path]:
        if case["name"] == "first":
            raise ValueError("nobody expected it")
        return {"failed": []}, {"landmarks": np.ones(2)}, host / "second.engine"

    timed: list[list[str]] = []
    monkeypatch.setattr(check, "check_case", check_case)
    monkeypatch.setattr(check, "time_contestants", lambda commands, batch: timed.append(list(commands)))
    row, arrays = check.check_model(MODEL, host, None)
    assert row["cases"]["first"]["failed"] == ["ValueError: nobody expected it"]
    assert list(arrays) == ["second/landmarks"]
    assert timed == [["second"]]


def test_nothing_is_timed_if_no_engine_was_built(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_case(*_: object) -> None:
        raise Fault("build", "it has no such operator")

    monkeypatch.setattr(check, "check_case", check_case)
    row, _ = check.check_model(MODEL, host, None)
    assert [case["failed"] for case in row["cases"].values()] == [["it has no such operator"]] * 2
    assert row["latency"]["1"]["times"] == {}
    assert "all" not in row["latency"]["1"]["faults"]


def test_an_interrupted_network_is_known_to_the_next_run(host: Path) -> None:
    check.HostResults(host, {"gpu": "one"}).begin("net")
    again = check.HostResults(host, {"gpu": "one"})
    assert again.begun == ["net"]
    assert again.models == {}


def test_an_accepted_mistake_is_a_failure(host: Path) -> None:
    results = check.HostResults(host, {})
    results.document["mistakes"] = {"a file that is no engine": {"ok": False, "said": "no error"}}
    assert results.failures() == ["a file that is no engine: no error"]


CASES = {
    "digest": "x",
    "mistakes": {"unknown": "unknown.onnx"},
    "models": [{"name": "tiny", "inputs": "tiny.npz", "cases": [{"onnx": "tiny-fp32.onnx"}]}],
}


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Simulates a GPU; returns a folder to which not all files were copied."""
    monkeypatch.setattr(device, "missing", lambda: None)
    monkeypatch.setattr(device, "describe", lambda: {"gpu": "NVIDIA A10"})
    (tmp_path / "cases.json").write_text(json.dumps(CASES), encoding="utf-8")
    (tmp_path / "unknown.onnx").touch()
    (tmp_path / "tiny.npz").touch()
    return tmp_path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return captured.err


def test_an_unknown_model_is_refused(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(copied), "--only", "tinny"]) == 2
    assert "no model matches --only tinny (models: tiny)" in said(capsys)


def test_a_missing_file_is_reported_before_any_work(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(copied)]) == 4
    assert "lacks tiny-fp32.onnx" in said(capsys)


@pytest.mark.parametrize("name", ["cases.json", "found.json"])
def test_a_truncated_file_ends_with_exit_code_4(copied: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (copied / name).write_text('{"digest": ', encoding="utf-8")
    assert check.main([str(copied)]) == 4
    assert "cannot read the files of `gpu_check.py prepare`" in said(capsys)
