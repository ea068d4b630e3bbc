"""Cases of one network: the graphs that a GPU host builds engines from, with inputs and expected outputs.

A case is one graph with one engine profile. Its entry in `cases.json` is read by `lmconv.trt.check`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from lmconv.building.assembling import graph_for
from lmconv.building.limits import acceptance
from lmconv.building.recipe import PLAIN_PASSES
from lmconv.building.request import Choices, Conversion
from lmconv.errors import GateFailed
from lmconv.faces.crops import load_face_crops
from lmconv.gpu_record.networks import Network
from lmconv.gpu_record.subject import TARGET, Subject, opened
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import outputs
from lmconv.networks.preprocess import network_input
from lmconv.plugins import PASSES, TARGETS
from lmconv.sources.resolve import open_source
from lmconv.trt import check
from lmconv.types import Arrays, Json, Precision, Variant

PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)
LAST_PASSES = {8: ("opset17",)}
"""Last passes of a graph, by the major version of TensorRT on the host."""
NOISE = 3
"""Allowed multiple of the error of ONNX Runtime, for random weights."""

Say = Callable[[str], object]
"""Receives one line of progress."""


def write(network: Network, out: Path, staging: Path, faces: Path, major: int, say: Say) -> Json:
    """Writes graphs, inputs and expected outputs of one network; returns its entry of `cases.json`.

    Args:
        network: The network.
        out: Folder of the record; plain graphs are in its subfolder `build`.
        staging: Folder of all files for the host.
        faces: Annotated faces.
        major: Major version of TensorRT on the host.
        say: Receives one line for each graph.
    """
    subject = opened(network.name, out / "build", faces)
    arrays = _arrays(subject, faces)
    file = f"{network.name}.npz"
    np.savez_compressed(staging / file, **arrays)
    cases: list[Json] = []
    left_out: Json = {}
    for precision in PRECISIONS:
        say(f"{network.name} {precision}")
        name = f"{network.name}-{precision}"
        try:
            graph = _graph(subject, precision, major)
        except GateFailed as error:  # the record is useful without this graph
            left_out[name] = str(error)
            say(f"{network.name} {precision} is left out: {error}")
            continue
        onnx.save(graph, staging / f"{name}.onnx")
        cases += _entries(name, network, subject, precision, _limit(graph, arrays, subject, precision))
    if subject.trained:
        say(f"{network.name} fp16, not compacted")
        name = f"{network.name}-fp16-plain"
        onnx.save(_graph(subject, Precision.FP16, major, compacted=False), staging / f"{name}.onnx")
        cases += _entries(name, network, subject, Precision.FP16, tolerance(Precision.FP16))
    return {
        "name": network.name,
        "source": subject.plain.artifact.parents["source"],
        "inputs": file,
        "cases": cases,
        "left_out": left_out,
        "batches": network.batches,
        "torch": _pytorch(subject, staging),
    }


def tolerance(precision: Precision) -> float:
    """Largest difference of a coordinate on the host, fractions of the input: the tolerance of `lmconv export`.

    Pixels and ION are judged later, where the record is written.
    """
    return acceptance(TARGETS.load(TARGET), precision)["landmarks"]


def _arrays(subject: Subject, faces: Path) -> dict[str, Any]:
    """Inputs (n, 3, H, W) float32 and expected outputs, by name: seeded inputs, then faces if weights are trained."""
    reference = subject.reference
    inputs = [reference.inputs["input"]]
    expected = [getattr(reference.outputs, subject.judged)]
    if subject.trained:
        spec = subject.spec
        images = network_input(load_face_crops(faces, spec).images, spec.preprocess)
        with open_source(subject.source) as session:
            answers = outputs(session, spec, images, maps=0)
        inputs, expected = [*inputs, images], [*expected, answers.landmarks]
    return {"input": np.concatenate(inputs), subject.judged: np.concatenate(expected)}


def _graph(subject: Subject, precision: Precision, major: int, *, compacted: bool = True) -> onnx.ModelProto:
    """Graph for this version of TensorRT; without the optional passes if not compacted."""
    choices = Choices()
    if not compacted:
        passes = PASSES.load_all()
        optional = [name for name, step in passes.items() if not step.required and name not in PLAIN_PASSES]
        choices = replace(choices, without=tuple(optional))
    out = subject.plain.artifact.path.parents[1]
    conversion = Conversion(base=subject.plain, out=out, crops=subject.calibration, choices=choices)
    variant = Variant(target=TARGET, precision=precision)
    return graph_for(conversion, variant, LAST_PASSES.get(major, ())).model


def _limit(graph: onnx.ModelProto, arrays: Arrays, subject: Subject, precision: Precision) -> float:
    """Largest allowed difference between an engine and the network on the host.

    Rounding moves the outputs of random weights without bound. Their limit is a multiple of the error of ONNX Runtime
    with the same graph.
    """
    if subject.trained:
        return tolerance(precision)
    inputs, expected = arrays["input"], arrays[subject.judged]
    with OrtSession(graph.SerializeToString()) as session:
        answers = check.in_chunks(session, inputs, len(inputs))
    scale = float(np.ptp(expected)) if subject.judged == "heatmaps" else 1.0
    return max(tolerance(precision) * scale, NOISE * check.apart(answers[subject.judged], expected)["max"])


def _entries(graph: str, network: Network, subject: Subject, precision: Precision, limit: float) -> Iterator[Json]:
    """Entries of a graph in `cases.json`, one for each profile."""
    for suffix, profile in network.profiles:
        first = not suffix and "plain" not in graph
        yield {
            "name": graph + suffix,
            "onnx": f"{graph}.onnx",
            "precision": str(precision),
            "profile": profile,
            "judged": subject.judged,
            "limit": limit,
            "kept": first,
            "leak": first and precision == Precision.FP16,
        }


def _pytorch(subject: Subject, staging: Path) -> dict[str, list[str]]:
    """Copies what PyTorch needs on the host; returns the arguments of its two contestants, eager and compiled."""
    name, path = subject.spec.name, subject.source.path
    shutil.copytree(subject.plain.artifact.path, staging / "plain" / name)
    words = ["-m", "lmconv.contestants.pytorch", f"{{folder}}/plain/{name}", "--device", "cuda"]
    if path:
        (staging / "weights").mkdir(exist_ok=True)
        shutil.copy(path, staging / "weights")
        words += ["--weights", f"{{folder}}/weights/{path.name}"]
    return {"torch eager": words, "torch compiled": [*words, "--compiled"]}
