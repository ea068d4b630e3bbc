"""Compares artefacts that take images or frames with the host path: `python benchmarks/io.py OUT`.

The networks are all networks with weights in `LMCONV_WEIGHTS` and 68 points, in fp32, on the faces of `LMCONV_FACES`.
Measured are the largest distance of a landmark to the landmark of the PyTorch network on a crop from the host, in
pixels of the crop, at batch sizes 1, 2, 7 and 64; and the time from a picture in memory and boxes to landmarks in the
picture, on one thread, in one interleaved run. Prints two Markdown tables and writes `OUT/io.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from lmconv.building.assembling import build
from lmconv.building.plain import plain_graph
from lmconv.building.request import Conversion
from lmconv.faces.crops import FaceCrops, load_face_crops
from lmconv.inference.latency import block_of, interleaved, latency, run_seconds
from lmconv.inference.scenes import on_scene, whole_way
from lmconv.networks.interfaces import interface_of
from lmconv.networks.seeded import Scene
from lmconv.plugins import TARGETS
from lmconv.sources import checkpoints
from lmconv.sources import resolve as source
from lmconv.types import Float32, Io, ModelSpec, OpenOptions, Precision, Session, Variant
from lmconv.visual.tables import markdown

TARGET_NAMES = ("onnx", "openvino")
IOS: tuple[Io, ...] = ("tensor", "image", "frame")
FACES = {1: None, 2: 24, 7: 24, 64: 8}
"""Number of compared faces by batch size; None for all faces."""
SAMPLES = {1: 300, 8: 100}
"""Number of timed runs by batch size."""
LARGE = (2160, 3840)
"""(height, width) of the large frame, pixels."""
TIMED = 5
"""Index of the timed face; the JSON states the size of its picture."""


def main() -> None:
    """Measures all networks and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", action="append", help="only this network; may be repeated")
    arguments = parser.parse_args()
    models = arguments.model or [name for name in source.names("landmarks") if checkpoints.find(name, None)]
    rows = []
    for model in models:
        rows += network(model, arguments.out)
        print(model, file=sys.stderr, flush=True)
    (arguments.out / "io.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(distances(rows), "", times(rows), sep="\n")


def network(model: str, out: Path) -> list[dict[str, Any]]:
    """Compares and times every target and io of one network; returns the rows."""
    network_source = source.resolve(model)
    spec = network_source.spec
    faces = load_face_crops(Path(os.environ["LMCONV_FACES"]), spec, "test")
    plain = plain_graph(network_source, out)
    with source.open_source(network_source) as session:
        expected = [on_scene(session, spec, scene).landmarks for _, _, scene in batches(faces, spec)]
    rows = []
    with ExitStack() as stack:
        for name in TARGET_NAMES:
            target = TARGETS.load(name)
            opened: dict[Io, tuple[Session, ModelSpec]] = {}
            for io in IOS:
                variant = Variant(target=name, precision=Precision.FP32, io=io)
                artifact = build(Conversion(base=plain, out=out), variant)
                opened[io] = stack.enter_context(target.open(artifact, OpenOptions(threads=1))), artifact.spec
            about = {"model": model, "target": name}
            rows += [about | {"io": io} | compare(*opened[io], faces, expected) for io in IOS]
            rows += [about | row for row in timed(opened, faces)]
    return rows


def batches(faces: FaceCrops, spec: ModelSpec) -> Iterator[tuple[int, bool, Scene]]:
    """Yields scenes with one face, and with boxes on the face and shifted from the face.

    Args:
        faces: The faces.
        spec: Spec of the network.

    Yields:
        Batch size; True if a square reaches beyond the picture; the picture with as many boxes as the batch size.
    """
    random = np.random.default_rng(0)
    for index, original in enumerate(faces.scenes()):
        for count, limit in FACES.items():
            if limit is not None and index >= limit:
                continue
            boxes = np.repeat(original.boxes, count, 0)
            size = boxes[:, 2:] - boxes[:, :2]
            boxes[1:] += np.tile(random.uniform(-0.3, 0.3, (count, 2)) * size, 2)[1:].astype(np.float32)
            scene = Scene(frame=original.frame, boxes=boxes)
            height, width = original.frame.shape[:2]
            left, top, side = np.array(scene.squares(spec.crop)).T
            beyond = (left < 0) | (top < 0) | (left + side > width) | (top + side > height)
            yield count, bool(beyond.any()), scene


def compare(session: Session, spec: ModelSpec, faces: FaceCrops, expected: list[Float32]) -> dict[str, Any]:
    """Largest distance of a landmark to the host path, pixels of the crop.

    Args:
        session: The artefact.
        spec: Spec of the artefact.
        faces: The faces.
        expected: Landmarks of the PyTorch network by scene of `batches`, (n, L, 2) float32, fractions of the crop.

    Returns:
        `px`, the distance by batch size, and as `border` the distance for all scenes with a square over the border;
        `faces`, the number of faces; `border_faces`, the number of faces with a square over the border.
    """
    worst = {**{str(count): 0.0 for count in FACES}, "border": 0.0}
    beyond = 0
    for (count, border, scene), points in zip(batches(faces, spec), expected, strict=True):
        moved = (on_scene(session, spec, scene).landmarks - points) * spec.input_size[::-1]
        largest = float(np.linalg.norm(moved, axis=2).max())
        beyond += border and count == 1
        for key in (str(count), *(["border"] if border else [])):
            worst[key] = max(worst[key], largest)
    return {"px": worst, "faces": len(faces.names), "border_faces": beyond}


def timed(opened: dict[Io, tuple[Session, ModelSpec]], faces: FaceCrops) -> list[dict[str, Any]]:
    """Times from a picture and boxes to landmarks, milliseconds per face, in one run.

    Returns:
        One row per batch size. `ms` has the latency of each io; `host`, the work of the host for `tensor`; `large`, a
        frame artefact on a frame of 3840 x 2160.
    """
    original = list(faces.scenes())[TIMED]
    height, width = original.frame.shape[:2]
    large = np.zeros((*LARGE, 3), np.uint8)
    large[:height, :width] = original.frame
    rows = []
    spec = opened["tensor"][1]
    for count, samples in SAMPLES.items():
        scene = Scene(frame=original.frame, boxes=np.repeat(original.boxes, count, 0))
        runs: dict[str, Callable[[], object]] = {io: whole_way(*opened[io], scene) for io in IOS}
        runs["host"] = functools.partial(_host, scene, spec)
        runs["large"] = whole_way(*opened["frame"], Scene(frame=large, boxes=scene.boxes))
        blocks = [block_of(run_seconds(run)) for run in runs.values()]
        times = interleaved(list(runs.values()), ceil(samples / blocks[0].timed), blocks=blocks)
        latencies = {name: dataclasses.asdict(latency(row / count)) for name, row in zip(runs, times, strict=True)}
        rows.append({"batch": count, "picture": [width, height], "ms": latencies})
    return rows


def _host(scene: Scene, spec: ModelSpec) -> object:
    return interface_of(spec).of_scene(scene)


def distances(rows: list[dict[str, Any]]) -> str:
    """Distances as a Markdown table."""
    header = ["network", "target", "takes", *(f"batch {count}" for count in FACES), "over a border"]
    cells = [
        [row["model"], row["target"], row["io"], *(f"{row['px'][key]:.1e}" for key in (*map(str, FACES), "border"))]
        for row in rows
        if "px" in row
    ]
    first = next(row for row in rows if "px" in row)
    return f"{markdown(header, cells)}\n\n{first['faces']} faces, the squares of {first['border_faces']} over a border."


def times(rows: list[dict[str, Any]]) -> str:
    """Times as a Markdown table."""
    header = [
        "network",
        "target",
        "batch",
        "host alone",
        "host + tensor",
        "image",
        "frame",
        "frame, 4K",
        "image / tensor",
    ]
    header.append("frame / tensor")
    cells = []
    for row in (row for row in rows if "ms" in row):
        ms = row["ms"]
        cells.append([row["model"], row["target"], str(row["batch"])])
        for io in ("host", "tensor", "image", "frame", "large"):
            cells[-1].append(f"{ms[io]['median_ms']:.3f} [{ms[io]['low_ms']:.3f}, {ms[io]['high_ms']:.3f}]")
        for io in ("image", "frame"):
            cells[-1].append(f"{ms[io]['median_ms'] / ms['tensor']['median_ms']:.2f}")
    return markdown(header, cells)


if __name__ == "__main__":
    main()
