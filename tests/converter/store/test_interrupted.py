"""An export may stop at any moment: the previous or the new artefact is complete, and no other file remains."""

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
import json, shutil, sys, time
from pathlib import Path
from lmconv.store import artifact as artifacts

def halt(*what):
    print(*what, flush=True)
    sys.stdin.readline()  # returns at once at the end of the input

def halting(call):
    def halted(*arguments, **options):
        halt(name, call.__name__)
        return call(*arguments, **options)
    return halted

name = ""
Path.rename, shutil.rmtree = halting(Path.rename), halting(shutil.rmtree)
content = json.loads(Path(sys.argv[2]).read_text())
while True:
    for name in ("one", "two"):
        with artifacts.staged(Path(sys.argv[1])) as new:
            for file in ("model.onnx", "other.bin", "reference.npz"):
                with (new / file).open("w") as written:
                    for _ in range(4):
                        halt(name, "write")
                        written.write(name * 2500)
                        written.flush()
            content["recipe"] = {"name": name, "passes": []}
            halt(name, "seal")
            artifacts.write(new, content)
        time.sleep(0.02)
"""
"""Writes two artefacts in turn under one path; prints artefact and step before every step, and waits for a line."""

STEPS = 19
"""Number of steps to replace an artefact: two folders removed, 12 writes, a seal, two renames, two folders removed."""
SAMPLE = (4, 15, 16, 17, 30)
"""Steps that every run tests: within a file, around the two renames, within a file of the next artefact."""


@pytest.fixture
def content(small: Path, tmp_path: Path) -> Path:
    """Content of a manifest, which the writer seals."""
    path = tmp_path / "content.json"
    path.write_bytes((small / "onnx-fp32" / "manifest.json").read_bytes())
    return path


def until(process: subprocess.Popen[str], step: int) -> list[list[str]]:
    """Runs a writer up to a step, counted from the first replacement of an artefact; returns the steps since then."""
    assert process.stdin is not None
    assert process.stdout is not None
    steps: list[list[str]] = []
    while True:
        line = process.stdout.readline().split()
        steps += [line] if steps or line[0] == "two" else []
        if len(steps) > step:
            return steps
        process.stdin.write("\n")


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=() if step in SAMPLE else pytest.mark.exhaustive) for step in range(2 * STEPS)]
)
def test_a_kill_before_any_step_leaves_the_old_or_the_new_artefact(tmp_path: Path, content: Path, step: int) -> None:
    path = tmp_path / "store" / "x"
    line = [sys.executable, "-c", WRITER, str(path), str(content)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        steps = until(process, step)
        process.kill()
    new, _ = steps[-1]
    moved = steps.count([new, "rename"]) == 2  # the previous artefact was moved, so the new artefact is complete
    expected = new if moved else {"one": "two", "two": "one"}[new]
    assert artifacts.read(path).recipe["name"] == expected
    assert (path / "other.bin").read_text(encoding="utf-8") == expected * 2500 * 4
    assert sorted(contents(path)) == ["manifest.json", "model.onnx", "other.bin", "reference.npz"]
    assert strays(path.parent) == []


def test_a_reader_beside_a_writer_reads_complete_artefacts_only(tmp_path: Path, content: Path) -> None:
    path = tmp_path / "store" / "x"
    line = [sys.executable, "-c", WRITER, str(path), str(content)]
    with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            while not path.exists():
                assert process.poll() is None
                time.sleep(0.001)
            names: list[str] = []
            deadline = time.monotonic() + 60
            while len(names) < 30 or (len(set(names)) < 2 and time.monotonic() < deadline):
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


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0, 1])
def test_ctrl_c_exits_with_130_and_leaves_complete_artefacts(small: Path, tiny: Path, moment: int) -> None:
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


@pytest.mark.parametrize(
    "kills", [pytest.param(3, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.exhaustive)]
)
def test_an_export_killed_at_any_moment_leaves_artefacts_that_pass_verify(
    cli: Cli, small: Path, tiny: Path, kills: int
) -> None:
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
    for _ in range(kills):
        (small / "plain" / "modules.json").unlink(missing_ok=True)  # makes the export build the plain graph again
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
