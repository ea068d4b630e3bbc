"""Speed of `lmconv run`: `python benchmarks/run.py OUT`.

Makes `OUT/clip.mp4`: 300 frames of 640 x 480 pixels that pan over two pictures of `LMCONV_FACES` (300-W, test split),
with one face in view. Runs the command on the clip as a user does, several times per setting, the settings in turn:
with tracking, and with RFB-320 on every frame, as published in ONNX and as an OpenVINO artefact. Frames per second are
the command's own figure: from the first finished frame to the last, including decoding, drawing and encoding.

Then times OpenVINO against ONNX Runtime, which runs the plain graph and the ONNX artefact: interleaved, one face per
call, with one thread and with all threads. https://github.com/cunjian/pytorch_face_landmark states that OpenVINO is
"about 10 times faster". Weights come from `LMCONV_WEIGHTS`. Prints two Markdown tables and writes `OUT/run.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lmconv.building.assembling import build
from lmconv.building.plain import plain_graph
from lmconv.building.request import Conversion
from lmconv.faces.crops import load_face_crops
from lmconv.inference.latency import faster, interleaved
from lmconv.inference.session import noise
from lmconv.plugins import TARGETS
from lmconv.sources import resolve as source
from lmconv.store import artifact as artifacts
from lmconv.types import Float64, OpenOptions, Precision, Uint8, Variant
from lmconv.visual.tables import markdown

FRAMES, WIDTH, HEIGHT, RATE = 300, 640, 480, 30.0
FACE = 180
"""Height of the face in the clip, pixels."""
PICTURES = ("lfpw/testset/image_0003.png", "lfpw/testset/image_0074.png")
"""Pictures of the clip, with one face each."""
SETTINGS = {
    "tracking": (),
    "tracking, smoothed": ("--smooth",),
    "RFB-320 on every frame": ("--no-track",),
    "RFB-320 in OpenVINO on every frame": ("--no-track", "--detector", "{out}/rfb320/openvino-fp32"),
}
"""Options of `lmconv run` by the name of the setting."""
MODELS = ("pfld", "mobilefacenet")
TARGET_NAMES = ("onnx", "openvino")
ROUNDS = 15
"""Number of rounds of blocks; a block has 20 timed calls."""


def main() -> None:
    """Measures everything and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", type=int, default=5, help="number of runs per setting")
    arguments = parser.parse_args()
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    write_clip(out / "clip.mp4", Path(os.environ["LMCONV_FACES"]))
    for model in MODELS:
        plain = plain_graph(source.resolve(model), out)
        for target in TARGET_NAMES:
            build(Conversion(base=plain, out=out), Variant(target=target, precision=Precision.FP32))
    detector = plain_graph(source.resolve("rfb320"), out)
    build(Conversion(base=detector, out=out), Variant(target="openvino", precision=Precision.FP32))
    speeds = runs(out, arguments.runs)
    ratios = [ratio(out / model, threads) for model in MODELS for threads in (1, 0)]
    document = {"fps": speeds, "ratios": ratios}
    (out / "run.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(_speeds(speeds), "", _ratios(ratios), sep="\n")


def write_clip(path: Path, faces: Path) -> None:
    """Writes the clip, MPEG-4 part 2 in MP4."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), RATE, (WIDTH, HEIGHT))
    for frame in clip(faces):
        writer.write(frame)
    writer.release()


def clip(folder: Path) -> Iterator[Uint8]:
    """Yields the frames of the clip, (480, 640, 3) uint8, BGR: half of the frames from each of the two pictures."""
    spec = source.resolve("pfld", seed=0).spec
    faces = load_face_crops(folder, spec, "test")
    for name, points, scene in zip(faces.names, faces.truth, faces.scenes(), strict=True):
        if name in PICTURES:
            yield from pan(scene.frame, points)


def pan(picture: Uint8, points: Float64) -> Iterator[Uint8]:
    """Yields views whose centre moves once around the face, by at most 1/7 of the view: the face is always in view.

    Args:
        picture: (H, W, 3) uint8, BGR.
        points: (L, 2) float64, landmarks of the face, pixels of the picture, x before y.

    Yields:
        (480, 640, 3) uint8, BGR.
    """
    scale = FACE / float(np.ptp(points[:, 1]))
    x, y = points.mean(axis=0)
    for turn in np.linspace(0, 2 * np.pi, FRAMES // 2, endpoint=False):
        right, down = WIDTH / 2 + WIDTH / 7 * np.sin(turn), HEIGHT / 2 + HEIGHT / 7 * np.sin(2 * turn)
        matrix = np.array([[scale, 0, right - scale * x], [0, scale, down - scale * y]])
        frame = cv2.warpAffine(
            picture, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        yield np.asarray(frame, np.uint8)


def runs(out: Path, count: int) -> dict[str, list[float]]:
    """Frames per second of every run, by setting; the settings run in turn."""
    speeds: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
    for _ in range(count):
        for setting, options in SETTINGS.items():
            line = [sys.executable, "-c", "from lmconv.cli import main; main()", "run"]
            line += [str(out / "pfld" / "openvino-fp32"), str(out / "clip.mp4"), "--json", "--out", str(out / "run")]
            done = subprocess.run(
                [*line, *(option.format(out=out) for option in options)], stdout=subprocess.PIPE, check=True
            )
            document = json.loads(done.stdout)
            assert (document["frames"], document["faces"]) == (FRAMES, FRAMES), document
            speeds[setting].append(document["fps"])
            print(setting, document["fps"], file=sys.stderr, flush=True)
    return speeds


def ratio(folder: Path, threads: int) -> dict[str, Any]:
    """Times one network in ONNX Runtime, plain and converted, and in OpenVINO.

    Args:
        folder: Folder of the network's artefacts.
        threads: Number of threads; 0 for all.

    Returns:
        `ms`, the median times in milliseconds; `ratios`, time in ONNX Runtime / time in OpenVINO with intervals, for
        the plain graph and for the ONNX artefact.
    """
    with ExitStack() as stack:
        calls = []
        for name in ("plain", "onnx-fp32", "openvino-fp32"):
            artifact = artifacts.read(folder / name)
            target = TARGETS.load(artifact.target)
            session = stack.enter_context(target.open(artifact, OpenOptions(threads=threads)))
            inputs = {"input": noise(artifact.spec, 1, 0)}
            calls.append(lambda session=session, inputs=inputs: session.run(inputs))
        *others, openvino = interleaved(calls, ROUNDS)
    about = {"model": folder.name, "threads": threads or os.cpu_count()}
    ms = [float(np.median(times)) for times in (*others, openvino)]
    gains = [faster(times, openvino) for times in others]
    return about | {"ms": ms, "ratios": [[gain.median, gain.low, gain.high] for gain in gains]}


def _speeds(speeds: dict[str, list[float]]) -> str:
    rows = [
        [setting, f"{np.median(fps):.0f}", f"{min(fps):.0f} to {max(fps):.0f}", str(len(fps))]
        for setting, fps in speeds.items()
    ]
    return markdown(["PFLD, OpenVINO fp32", "frames/s, median", "runs", "n"], rows)


def _ratios(ratios: list[dict[str, Any]]) -> str:
    rows = [
        [
            row["model"],
            str(row["threads"]),
            *(f"{ms:.2f}" for ms in row["ms"]),
            *("{:.2f} [{:.2f}, {:.2f}]".format(*interval) for interval in row["ratios"]),
        ]
        for row in ratios
    ]
    header = ["network", "threads", "plain, ms", "ONNX Runtime, ms", "OpenVINO, ms", "plain / OpenVINO"]
    return markdown([*header, "ONNX Runtime / OpenVINO"], rows)


if __name__ == "__main__":
    main()
