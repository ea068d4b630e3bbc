"""Comparison of an artefact with its source, in numbers, without lmconv's own comparison.

The artefact runs in ONNX Runtime or OpenVINO itself. The source is the PyTorch network, eager, or the original file in
ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Run: TypeAlias = Callable[[Array], Array]

LIMITS = {"fp32": 1e-5, "fp16": 5e-3}
"""Largest difference of a number, as a fraction of the largest expected number, at least 1."""
INT8 = 0.25
"""Largest mean difference in int8, fraction of the mean absolute deviation of the expected numbers over faces."""


def difference(
    folder: Path, precision: str, source: Run, faces: Array, noise: Array, output: str, *, slack: float = 1.0
) -> str:
    """Returns the difference of an artefact beyond the limit, in words; empty without one.

    Args:
        folder: Folder of the artefact.
        precision: fp32, fp16 or int8.
        source: Runs the source network on (N, 3, H, W) float32.
        faces: (N, 3, H, W) float32, faces that no calibration saw.
        noise: The same shape, uniform noise; not judged in int8, whose ranges come from faces.
        output: Name of the output of the artefact to compare.
        slack: Factor of the limits of fp32 and fp16.
    """
    run = _artefact(folder, output)
    if precision == "int8":
        expected, computed = _pair(source, run, faces)
        spread = float(np.abs(expected - expected.mean(0)).mean())
        share = float(np.abs(computed - expected).mean()) / max(spread, 1e-6)
        return "" if share <= INT8 else f"{share:.2f} of the deviation off, allowed {INT8}"
    for inputs in (faces, faces[:1], noise):
        expected, computed = _pair(source, run, inputs)
        limit = slack * LIMITS[precision] * max(1.0, float(np.abs(expected).max()))
        off = float(np.abs(computed - expected).max())
        if not off <= limit:
            return f"{off:.2g} off, allowed {limit:.2g}"
    return ""


def _pair(source: Run, run: Run, inputs: Array) -> tuple[Array, Array]:
    """Returns the outputs of the source and of the artefact, each (N, numbers)."""
    expected, computed = (np.asarray(each(inputs), np.float64).reshape(len(inputs), -1) for each in (source, run))
    if expected.shape != computed.shape:
        raise AssertionError(f"{computed.shape[1]} numbers for {expected.shape[1]}")
    return expected, computed


def _artefact(folder: Path, output: str) -> Run:
    model = next(folder.glob("*.onnx"), None)
    return onnx_run(model.read_bytes(), output) if model else _openvino_run(next(folder.glob("*.xml")), output)


def onnx_run(model: bytes, output: str | None = None) -> Run:
    """Returns a function that runs an ONNX model, in parts of the model's batch.

    Args:
        model: The serialised model.
        output: Name of the output to return; None for all outputs, as a list.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0]

    def run(inputs: Array) -> Any:
        size = feed.shape[0] if isinstance(feed.shape[0], int) and feed.shape[0] > 0 else len(inputs)
        parts = [
            [_rows(value, len(part)) for value in session.run(output and [output], {feed.name: part})]
            for part in batches(inputs, size)
        ]
        joined = [np.concatenate(column)[: len(inputs)] for column in zip(*parts, strict=True)]
        return joined[0] if output else joined

    return run


def _rows(value: Array, count: int) -> Array:
    """Returns an output with a batch axis; a file for one image may leave the axis out."""
    return value if value.shape[:1] == (count,) else value[None]


def batches(inputs: Array, size: int) -> list[Array]:
    """Returns batches of one size; the last batch is filled with copies of the last input."""
    missing = -len(inputs) % size
    filled = np.concatenate([inputs, *[inputs[-1:]] * missing])
    return np.split(filled, len(filled) // size)


def _openvino_run(model: Path, output: str) -> Run:
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    size = compiled.inputs[0].partial_shape[0]
    request = compiled.create_infer_request()

    def run(inputs: Array) -> Array:
        parts = batches(inputs, size.get_length() if size.is_static else len(inputs))
        return np.concatenate([request.infer([part])[output].copy() for part in parts])[: len(inputs)]

    return run
