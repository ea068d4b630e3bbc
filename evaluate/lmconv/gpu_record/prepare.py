"""Everything that a GPU host without a network needs: graphs, inputs, expected outputs and `lmconv/trt`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import helper

from lmconv import machine
from lmconv.gpu_record import cases, parts
from lmconv.gpu_record.cases import Say
from lmconv.gpu_record.networks import Network
from lmconv.gpu_record.subject import annotated_faces
from lmconv.store.files import canonical, digest, sha256, writing
from lmconv.trt import check
from lmconv.types import Json

UNKNOWN, UNKNOWN_NODE = "unknown.onnx", "the_unknown_node"
"""File name of a graph with an operator that TensorRT does not know, and the name of its node."""


def prepare(out: Path, major: int, networks: Sequence[Network], say: Say) -> None:
    """Writes `out/part0`, `out/part1`, … for the host, and `out/build` for `record.judge`.

    Earlier parts stay until the new parts are ready.

    Args:
        out: Folder of the record.
        major: Major version of TensorRT on the host.
        networks: At least one network.
        say: Receives lines of progress.

    Raises:
        InputError: Annotated faces are missing, or the folder cannot be written.
    """
    faces = annotated_faces()
    staging = out / "files"
    shutil.rmtree(staging, ignore_errors=True)
    with writing(out):
        staging.mkdir(parents=True)
    models = [cases.write(network, out, staging, faces, major, say) for network in networks]
    onnx.save(_unknown(), staging / UNKNOWN)
    document = _document(models, major, staging)
    parts.remove(out)
    for part, size in enumerate(parts.split(staging, out)):
        say(f"{out / f'part{part}'}: {size / 1e6:.1f} MB")
    first = out / "part0"
    (first / "cases.json").write_text(canonical(document), encoding="utf-8")
    tree = Path(check.__file__).parent
    shutil.copytree(tree, first / "lmconv" / "trt", ignore=shutil.ignore_patterns("__pycache__"))


def _document(models: Sequence[Json], major: int, staging: Path) -> Json:
    """Content of `cases.json`; its digest covers the bytes of every graph."""
    first = next(case for model in models for case in model["cases"])  # fp32, which no check refuses
    mistakes = {"engine": first["name"], "above": first["profile"][2] + 1, "unknown": UNKNOWN, "nodes": [UNKNOWN_NODE]}
    document: Json = {"tensorrt": major, "made": machine.versions(), "models": models, "mistakes": mistakes}
    graphs = [sha256(path) for path in sorted(staging.glob("*.onnx"))]
    return document | {"digest": digest(document | {"files": graphs})}


def _unknown() -> onnx.ModelProto:
    """Graph with an operator that TensorRT does not know: its build must fail and name the node."""
    shape: list[str | int | None] = ["N", 3, 8, 8]
    graph = helper.make_graph(
        [helper.make_node("DoesNotExist", ["input"], ["landmarks"], name=UNKNOWN_NODE, domain="")],
        "unknown",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("landmarks", onnx.TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
