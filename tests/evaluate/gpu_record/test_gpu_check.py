"""scripts/gpu_check.py: an error is one line and an exit code, and an earlier preparation stays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lmconv.trt import device

SCRIPT = Path(__file__).parents[3] / "scripts" / "gpu_check.py"


def refused(code: int, message: str, *arguments: object) -> None:
    ran = subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert ran.returncode == code
    assert message in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.skipif(device.missing() is None, reason="TensorRT and a GPU are here")
def test_a_run_without_a_gpu_exits_with_3_before_any_work(tmp_path: Path) -> None:
    refused(3, "no engine can be built here", "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_networks_and_missing_faces_keep_an_earlier_preparation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = tmp_path / "part0" / "cases.json"
    earlier.parent.mkdir()
    earlier.touch()
    refused(2, "--only pfdl is none of the networks", "prepare", tmp_path, "--only", "pfdl")
    monkeypatch.delenv("LMCONV_FACES", raising=False)
    refused(4, "LMCONV_FACES names none", "prepare", tmp_path, "--only", "pfld")
    monkeypatch.setenv("LMCONV_FACES", str(tmp_path / "nowhere"))
    refused(4, "nowhere does not exist", "prepare", tmp_path, "--only", "pfld")
    assert earlier.exists()


def test_missing_results_exit_with_4(tmp_path: Path) -> None:
    refused(4, "cases.json cannot be read", "judge", tmp_path)


@pytest.mark.realdata
@pytest.mark.slow
def test_the_graphs_for_the_host_are_within_the_gates_of_the_record(shared: Path, tmp_path: Path) -> None:
    environment = {"LMCONV_WEIGHTS": str(shared / "weights"), "LMCONV_FACES": str(shared / "faces")}
    line = [sys.executable, str(SCRIPT), "rehearse", str(tmp_path / "out"), "--only", "pfld"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "gpu-rehearsal-on-a-cpu.json").read_text(encoding="utf-8"))
    assert "nothing of TensorRT" in record["proven"]
    cases = record["models"]["pfld"]["cases"]
    assert cases["pfld-fp32"]["parity"]["max_abs"] <= 1e-5
    assert cases["pfld-fp16"]["on_faces"]["max_px"] <= 0.1
    assert cases["pfld-int8"]["loss"]["ion"]["mean"] <= 0.03
    assert cases["pfld-int8"]["loss"]["drift"]["mean"] <= 0.4
    assert cases["pfld-fp32"]["source_ion"]["common"]["mean"] == pytest.approx(3.224, abs=0.001)
    sizes = [sum(file.stat().st_size for file in part.rglob("*")) for part in (tmp_path / "out").glob("part*")]
    assert max(sizes) < 64 << 20
