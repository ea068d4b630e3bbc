"""`scripts/gpu_check.py rehearse`: the check on a GPU with ONNX Runtime in TensorRT's place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.realdata, pytest.mark.slow]

SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_check.py"


def test_the_graphs_for_the_host_are_within_what_the_record_is_judged_by(shared: Path, tmp_path: Path) -> None:
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
