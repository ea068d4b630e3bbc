"""The check on a GPU host, as far as it goes before it needs one: what is missing is said in one line, at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmconv.trt import check, device

CASES = {
    "digest": "x",
    "mistakes": {"unknown": "unknown.onnx"},
    "models": [{"name": "tiny", "inputs": "tiny.npz", "cases": [{"onnx": "tiny-fp32.onnx"}]}],
}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
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


@pytest.mark.skipif(device.missing() is None, reason="TensorRT and a GPU are here")
def test_without_a_gpu_it_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(tmp_path)]) == 3
    assert "no engine can be built here" in said(capsys)


def test_models_that_are_not_there_are_not_passed(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(host), "--only", "tinny"]) == 2
    assert "no model is called tinny (there are tiny)" in said(capsys)


def test_a_part_that_was_not_copied_is_missed_before_any_work(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(host)]) == 4
    assert "lacks tiny-fp32.onnx" in said(capsys)


@pytest.mark.parametrize("name", ["cases.json", "found.json"])
def test_half_a_file_is_4(host: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (host / name).write_text('{"digest": ', encoding="utf-8")
    assert check.main([str(host)]) == 4
    assert "does not hold what" in said(capsys)


def test_a_mistake_that_was_not_refused_is_a_failure(host: Path) -> None:
    found = check.Found(host, {"gpu": "NVIDIA A10"})
    found.document["mistakes"] = {"a closed engine": {"ok": False, "said": "nothing was refused"}}
    assert found.failures() == ["a closed engine: nothing was refused"]
