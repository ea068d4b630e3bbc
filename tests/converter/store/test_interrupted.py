"""An export may be stopped at any moment: the old artefact or the new one is whole, and nothing else remains."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.helpers import Cli, contents, hear_interrupts, start, strays

from lmconv.store import artifact as artifacts

WRITER = """
import json, sys, time
from pathlib import Path
from lmconv.store import artifact as artifacts
content = json.loads(Path(sys.argv[2]).read_text())
print("ready", flush=True)
while True:
    for name in ("one", "two"):
        with artifacts.staged(Path(sys.argv[1])) as new:
            for file in ("model.onnx", "other.bin", "reference.npz"):
                with (new / file).open("w") as written:
                    for _ in range(20):
                        written.write(name * 500)
                        written.flush()
            content["recipe"] = {"name": name, "passes": []}
            artifacts.write(new, content)
        time.sleep(0.02)
"""


@pytest.fixture
def content(small: Path, tmp_path: Path) -> Path:
    """The content of a manifest that the writer may seal."""
    path = tmp_path / "content.json"
    path.write_bytes((small / "onnx-fp32" / "manifest.json").read_bytes())
    return path


def test_kill_at_twenty_moments_leaves_a_whole_artefact(tmp_path: Path, content: Path) -> None:
    path = tmp_path / "store" / "x"
    random = np.random.default_rng(0)
    seen = set()
    for _ in range(20):
        line = [sys.executable, "-c", WRITER, str(path), str(content)]
        with subprocess.Popen(line, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            while not path.exists() and not path.with_name(".x.old").exists():
                time.sleep(0.001)
            time.sleep(0.02 * random.random())
            process.kill()
        found = artifacts.read(path)
        name = found.recipe["name"]
        seen.add(name)
        assert (path / "other.bin").read_text(encoding="utf-8") == name * 500 * 20
        assert sorted(contents(path)) == ["manifest.json", "model.onnx", "other.bin", "reference.npz"]
        assert strays(path.parent) == []
    assert seen <= {"one", "two"}


def test_a_reader_beside_a_writer_sees_whole_artefacts_only(tmp_path: Path, content: Path) -> None:
    path = tmp_path / "store" / "x"
    line = [sys.executable, "-c", WRITER, str(path), str(content)]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            while not path.exists():
                time.sleep(0.001)
            names = []
            for _ in range(30):
                names.append(artifacts.read(path).recipe["name"])  # checks the sha256 of every file
                time.sleep(0.003)
            assert set(names) == {"one", "two"}
            assert process.poll() is None
        finally:
            process.kill()


EXPORTER = """
import sys
from lmconv.cli import run
import lmconv.pipeline, onnxsim, openvino
print("ready", flush=True)
try:
    while True:
        if code := run(sys.argv[1:]):
            sys.exit(code)
except KeyboardInterrupt:  # between two exports
    print("interrupted", file=sys.stderr)
    sys.exit(130)
"""


@pytest.mark.parametrize("moment", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_ctrl_c_gives_130_and_leaves_whole_artefacts(small: Path, tiny: Path, moment: int) -> None:
    arguments = ["export", str(tiny), "--to", "onnx", "--to", "openvino", "--batch", "4", "--no-guard"]
    arguments += ["--out", str(small.parent)]
    line = [sys.executable, "-c", EXPORTER, *arguments]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.5 * float(np.random.default_rng(moment).random()))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.strip().splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    for name in ("plain", "onnx-fp32", "openvino-fp32"):
        artifacts.read(small / name)
    assert strays(small) == []


@pytest.mark.slow
def test_kill_at_twenty_moments_of_an_export_leaves_what_verifies(cli: Cli, small: Path, tiny: Path) -> None:
    arguments: list[str | Path] = [
        "export",
        tiny,
        "--to",
        "onnx",
        "--to",
        "openvino",
        "--batch",
        "4",
        "--no-guard",
        "--out",
        small.parent,
    ]
    begin = time.perf_counter()
    assert start(*arguments[:-1], small.parent / "elsewhere").wait(60) == 0
    duration = time.perf_counter() - begin
    random = np.random.default_rng(0)
    for _ in range(20):
        (small / "plain" / "modules.json").unlink(missing_ok=True)  # so that the plain graph is made anew
        process = start(*arguments)
        time.sleep(float(random.uniform(0.3, 1.1)) * duration)
        process.kill()
        process.communicate()
        ran = cli("verify", small / "onnx-fp32", small / "openvino-fp32", "--weights", tiny)
        assert ran.code == 0, ran.err
        assert {name for name in strays(small) if not name.startswith(".plain.new")} == set()
    assert start(*arguments).wait(60) == 0
    assert strays(small) == []
    assert sorted(path.name for path in small.iterdir() if path.is_dir()) == [
        "onnx-fp32",
        "openvino-bf16",
        "openvino-fp32",
        "plain",
    ]
