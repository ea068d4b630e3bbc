"""What a GPU host finds of engines, as far as no GPU is needed: `scripts/gpu_check.py rehearse` does the rest."""

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
HELD = {
    "off": {"max": 0.005, "mean": 0.001},
    "batches": {"1": {"max": 0.0, "mean": 0.0}},
    "cache_changed": False,
    "leak": {"device": 0, "host": 4096},
}


class Doubles:
    """Doubles what it is given, and notes how many it was given."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        self.sizes.append(len(arrays["input"]))
        return {"landmarks": arrays["input"] * 2}


@pytest.mark.parametrize(("size", "sizes"), [(2, [2, 2, 2]), (5, [5]), (8, [8]), (1, [1] * 5)])
def test_inputs_are_run_in_full_batches_and_what_filled_them_is_cut_off(size: int, sizes: list[int]) -> None:
    inputs, runs = np.arange(5.0)[:, None], Doubles()
    found = check.in_chunks(runs, inputs, size)
    assert runs.sizes == sizes
    np.testing.assert_array_equal(found["landmarks"], inputs * 2)


def test_what_holds_is_not_complained_of() -> None:
    assert check.complaints(HELD, CASE) == []


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"off": {"max": 0.02, "mean": 0.0}}, "landmarks differ from the source network by 0.02"),
        ({"off": {"max": float("nan"), "mean": 0.0}}, "landmarks differ from the source network by nan"),
        ({"batches": {"3": {"max": 0.02, "mean": 0.0}}}, "landmarks of batch 3 differ from another batch size by 0.02"),
        ({"cache_changed": True}, "changed the cache"),
        ({"leak": {"device": 2 << 20, "host": 0}}, "2,097,152 bytes of device memory"),
    ],
    ids=["off", "not a number", "another batch", "another cache", "a leak"],
)
def test_what_does_not_hold_is_said(part: dict[str, Any], said: str) -> None:
    (found,) = check.complaints(HELD | part, CASE)
    assert said in found


def test_without_a_gpu_it_ends_with_3_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_case_that_cannot_be_built_leaves_the_others_their_turn(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_case(case: dict[str, Any], *_: object) -> tuple[dict[str, Any], dict[str, Any], Path]:
        if case["name"] == "first":
            raise ValueError("nobody expected it")
        return {"failed": []}, {"landmarks": np.ones(2)}, host / "second.engine"

    asked: list[list[str]] = []
    monkeypatch.setattr(check, "check_case", check_case)
    monkeypatch.setattr(check, "time_contestants", lambda commands, batch: asked.append(list(commands)))
    row, arrays = check.check_model(MODEL, host, None)
    assert row["cases"]["first"]["failed"] == ["ValueError: nobody expected it"]
    assert list(arrays) == ["second/landmarks"]
    assert asked == [["second"]]


def test_where_nothing_could_be_built_nothing_is_timed(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_case(*_: object) -> None:
        raise Fault("build", "it has no such operator")

    monkeypatch.setattr(check, "check_case", check_case)
    row, _ = check.check_model(MODEL, host, None)
    assert [case["failed"] for case in row["cases"].values()] == [["it has no such operator"]] * 2
    assert row["latency"]["1"]["times"] == {}
    assert "all" not in row["latency"]["1"]["faults"]


def test_what_was_begun_and_not_ended_is_known_to_the_next_call(host: Path) -> None:
    check.Found(host, {"gpu": "one"}).begin("net")
    again = check.Found(host, {"gpu": "one"})
    assert again.begun == ["net"]
    assert again.models == {}


def test_mistakes_that_were_taken_are_failures(host: Path) -> None:
    found = check.Found(host, {})
    found.document["mistakes"] = {"a file that is no engine": {"ok": False, "said": "no error"}}
    assert found.failures() == ["a file that is no engine: no error"]


CASES = {
    "digest": "x",
    "mistakes": {"unknown": "unknown.onnx"},
    "models": [{"name": "tiny", "inputs": "tiny.npz", "cases": [{"onnx": "tiny-fp32.onnx"}]}],
}


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine that says it has a GPU, and a folder to which not all was copied."""
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


def test_models_that_are_not_there_are_not_passed(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(copied), "--only", "tinny"]) == 2
    assert "no model matches --only tinny (models: tiny)" in said(capsys)


def test_a_part_that_was_not_copied_is_missed_before_any_work(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(copied)]) == 4
    assert "lacks tiny-fp32.onnx" in said(capsys)


@pytest.mark.parametrize("name", ["cases.json", "found.json"])
def test_half_a_file_is_4(copied: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (copied / name).write_text('{"digest": ', encoding="utf-8")
    assert check.main([str(copied)]) == 4
    assert "cannot read the files of `gpu_check.py prepare`" in said(capsys)
