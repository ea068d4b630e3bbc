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
import json, shutil, sys, time
from pathlib import Path
from lmconv.store import artifact as artifacts

def halt(*what):
    print(*what, flush=True)
    sys.stdin.readline()  # at its end there is nothing to wait for

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
"""Writes one artefact and another in turn; says before every step which it is, and waits for a line."""

STEPS = 19
"""Of a writer that replaces an artefact: two folders are removed, 12 writes, a seal, two renames, two are removed."""
SAMPLE = (4, 15, 16, 17, 30)
"""Steps that are tried in every run: within a file, around the two renames, within a file of the next artefact."""


@pytest.fixture
def content(small: Path, tmp_path: Path) -> Path:
    """The content of a manifest that the writer may seal."""
    path = tmp_path / "content.json"
    path.write_bytes((small / "onnx-fp32" / "manifest.json").read_bytes())
    return path


def until(process: subprocess.Popen[str], step: int) -> list[list[str]]:
    """Lets a writer come to a step, counted from the first that replaces an artefact; gives what it said since."""
    assert process.stdin is not None
    assert process.stdout is not None
    said: list[list[str]] = []
    while True:
        line = process.stdout.readline().split()
        said += [line] if said or line[0] == "two" else []
        if len(said) > step:
            return said
        process.stdin.write("\n")


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=() if step in SAMPLE else pytest.mark.exhaustive) for step in range(2 * STEPS)]
)
def test_a_kill_before_any_step_leaves_the_old_or_the_new_artefact(tmp_path: Path, content: Path, step: int) -> None:
    path = tmp_path / "store" / "x"
    line = [sys.executable, "-c", WRITER, str(path), str(content)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        said = until(process, step)
        process.kill()
    new, _ = said[-1]
    moved = said.count([new, "rename"]) == 2  # the old one is away, so that the new one was complete
    expected = new if moved else {"one": "two", "two": "one"}[new]
    assert artifacts.read(path).recipe["name"] == expected
    assert (path / "other.bin").read_text(encoding="utf-8") == expected * 2500 * 4
    assert sorted(contents(path)) == ["manifest.json", "model.onnx", "other.bin", "reference.npz"]
    assert strays(path.parent) == []


def test_a_reader_beside_a_writer_sees_whole_artefacts_only(tmp_path: Path, content: Path) -> None:
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


@pytest.mark.parametrize(
    "kills", [pytest.param(3, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.exhaustive)]
)
def test_an_export_killed_at_any_moment_leaves_what_verifies(cli: Cli, small: Path, tiny: Path, kills: int) -> None:
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
