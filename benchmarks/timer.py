"""Compares `lmconv bench` with the loops of others: `python benchmarks/timer.py ARTIFACT... [--turns N]`.

An OpenVINO artefact is compared with `benchmark_app -hint none -nstreams 1 -nthreads 1 -api sync`: that program refuses
a number of streams or threads beside another hint. An ONNX artefact is compared with the loop of
`onnxruntime_perf_test`, which is not in the wheel of ONNX Runtime: one session, one intra-op thread, one untimed run,
then runs of the same input for some seconds. `lmconv bench` and the other program run in turn, in a process each. The
table shows the median of the medians of all turns, milliseconds, and the median of the differences within a turn.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lmconv import machine
from lmconv.networks.interfaces import interface_of
from lmconv.plugins import TARGETS
from lmconv.store import artifact as artifacts
from lmconv.targets.openvino import HINT
from lmconv.types import Artifact, Float64, OpenOptions
from lmconv.visual.tables import markdown

SCRIPTS = Path(sys.executable).parent
LOOP = """
import sys, time
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
inputs = dict(np.load(sys.argv[2]))
session.run(None, inputs)
times, end = [], time.perf_counter() + float(sys.argv[3])
while time.perf_counter() < end:
    start = time.perf_counter()
    session.run(None, inputs)
    times.append(time.perf_counter() - start)
print("Median:", np.median(times) * 1e3, "ms")
"""
"""The loop of onnxruntime_perf_test, as a program: model, inputs, seconds."""


def main() -> None:
    """Times all artefacts and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--turns", type=int, default=5, help="turns of lmconv bench and the other program")
    parser.add_argument("--seconds", type=float, default=3.0, help="time of the other program in each turn")
    arguments = parser.parse_args()
    loaded = [artifacts.read(path) for path in artifacts.below(arguments.artifacts)]
    able = [each for each in loaded if each.target in ("onnx", "openvino") and not mismatch(each)]
    turns = [
        [(ours(each), theirs(each, arguments.seconds)) for each in able] for _ in range(arguments.turns)
    ]  # all artefacts in every turn, so that a slow minute of the machine falls on all
    rows = [row(each, np.array([turn[index] for turn in turns])) for index, each in enumerate(able)]
    print(markdown(["artefact", "lmconv bench, ms", "other program, ms", "difference", "from", "to"], rows))
    about = machine.describe()
    print(f"\n{about['cpu']}, {', '.join(about['features'])}, {about['cores']} cores, load {about['load']}")


def mismatch(artifact: Artifact) -> str:
    """Returns the difference between the artefact's settings and this machine; benchmark_app would fail on it."""
    with TARGETS.load(artifact.target).open(artifact, OpenOptions(threads=1)) as session:
        return session.execution_mismatch


def row(artifact: Artifact, times: Float64) -> list[str]:
    """Returns the cells of an artefact from (turns, 2) milliseconds."""
    differences = times[:, 0] / times[:, 1] - 1
    cells = [f"{value:+.1%}" for value in (np.median(differences), differences.min(), differences.max())]
    return [str(artifact.path), *(f"{value:.3f}" for value in np.median(times, axis=0)), *cells]


def ours(artifact: Artifact) -> float:
    """Returns the median of `lmconv bench`, milliseconds."""
    text = output(SCRIPTS / "lmconv", "bench", artifact.path, "--no-baseline", "--json", "--quiet")
    return float(json.loads(text)["rows"][0]["median_ms"])


def theirs(artifact: Artifact, seconds: float) -> float:
    """Returns the median of the other program, milliseconds."""
    if artifact.target == "openvino":
        settings = ["-hint", "none", "-nstreams", 1, "-nthreads", 1, "-api", "sync", "-t", max(1, round(seconds))]
        model = [
            "-m",
            artifacts.model_file(artifact, ".xml"),
            "-d",
            "CPU",
            "-infer_precision",
            artifact.execution[HINT],
        ]
        text = output(SCRIPTS / "benchmark_app", *model, *settings)
    else:
        with tempfile.NamedTemporaryFile(suffix=".npz") as inputs:
            arrays: dict[str, Any] = dict(interface_of(artifact.spec).timing_inputs(1))
            np.savez(inputs.name, **arrays)
            text = output(sys.executable, "-c", LOOP, artifacts.model_file(artifact, ".onnx"), inputs.name, seconds)
    found = re.search(r"Median:\s*([\d.]+) ms", text)
    assert found, text
    return float(found[1])


def output(*command: object) -> str:
    """Runs a program; returns its standard output."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    main()
