"""The check of a GPU host without a GPU: ONNX Runtime computes the graphs on the CPU, and nothing is timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from lmconv.inference.ort import OrtSession
from lmconv.trt import check
from lmconv.types import Json


def rehearse(host: Path) -> None:
    """Writes `found.json` and `found.npz` into the host's folder, as `lmconv.trt.check` does on a GPU."""
    (host / "found.json").unlink(missing_ok=True)
    machine = {"gpu": "rehearsal on a CPU", "tensorrt": None, "onnxruntime": onnxruntime.__version__}
    results = check.HostResults(host, machine)
    for model in results.cases["models"]:
        results.add(model["name"], *_model(model, host))


def _model(model: Json, host: Path) -> tuple[Json, dict[str, Any]]:
    """Runs all cases of one network; returns its row, and outputs by `CASE/NAME`."""
    row: Json = {"cases": {}, "latency": {}}
    arrays: dict[str, Any] = {}
    with np.load(host / model["inputs"], allow_pickle=False) as file:
        expected = dict(file)
    for case in model["cases"]:
        with OrtSession(host / case["onnx"]) as session:
            outputs = check.in_chunks(session, expected["input"], case["profile"][1])
        difference: Json = {"off": check.apart(outputs[case["judged"]], expected[case["judged"]])}
        row["cases"][case["name"]] = difference | {"failed": check.complaints(difference, case)}
        if case["kept"]:
            arrays |= {f"{case['name']}/{name}": value for name, value in outputs.items()}
    return row, arrays
