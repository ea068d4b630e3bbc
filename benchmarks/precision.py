"""Quantisers side by side: `python benchmarks/precision.py OUT [MODEL...]`.

NNCF's default and its accuracy control, ONNX Runtime's min-max, and ours, for networks with weights in `LMCONV_WEIGHTS`
on the faces of `LMCONV_FACES`: ION and drift on the test part; how many times faster than the plain graph in ONNX
Runtime fp32, one thread, batch 1, all that is made of a network in turn in one run; seconds and memory to make it from
the plain graph, in a process of its own. All are calibrated on the same crops of the training part. The others get two
graphs, the plain one and the compacted one that our quantiser gets, so that what compaction does is told from what a
quantiser does. Prints a Markdown table and writes `OUT/precision.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from lmconv import artifact, crops, parity, pipeline, plugins
from lmconv.accuracy import bootstrap
from lmconv.crops import CropSet
from lmconv.errors import first_line
from lmconv.latency import faster, interleaved
from lmconv.metrics.ion import ion
from lmconv.report import markdown
from lmconv.runtime import OrtSession
from lmconv.session import feed, noise
from lmconv.source import open_source, resolve
from lmconv.squares import to_picture
from lmconv.targets import openvino
from lmconv.types import Float32, Json, OpenOptions, Precision, Session, Target

SAMPLES = 400
BUDGET = 0.03
"""What accuracy control and `lmconv tune` may lose on the training faces, ION points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a maker starts from: the plain graph, crops, the folder of faces, and where artefacts go."""

    base: pipeline.Plain
    crops: Float32
    faces: Path
    out: Path

    def graph(self, target: str, *, compacted: bool) -> onnx.ModelProto:
        """The plain graph, or the one that our quantiser gets for this target."""
        if not compacted:
            return self.base.model
        choices = pipeline.Choices(without=pipeline.PASSES[Precision.INT8])
        plugin: Target = plugins.load("targets", target)
        *_, last = pipeline.steps(self.base, plugin, Precision.INT8, lambda: self.crops, choices)
        return last.model

    def folder(self, *name: object) -> Path:
        """A new folder for what is not ours."""
        made = self.out / self.base.artifact.spec.name / "others" / re.sub(r"\W+", "-", " ".join(map(str, name)))
        made.mkdir(parents=True, exist_ok=True)
        return made


def ours(job: Job, target: str, precision: Precision) -> Path:
    """What `lmconv export` makes."""
    return pipeline.build(job.base, target, precision, out=job.out, crops=lambda: job.crops).path


def tuned(job: Job, target: str) -> Path:
    """What `lmconv tune` makes."""
    name = job.base.artifact.spec.name
    if "tune" in plugins.names("commands"):
        lmconv = str(Path(sys.executable).with_name("lmconv"))
        options = ["--calibration", str(job.faces), "--budget-ion", str(BUDGET), "--out", str(job.out)]
        subprocess.run([lmconv, "tune", name, "--to", target, *options], check=True, stdout=sys.stderr)
    path = job.out / name / pipeline.folder(target, Precision.MIXED, "tensor")
    if not path.is_dir():
        raise FileNotFoundError("not tuned")
    return path


def min_max(job: Job, *, compacted: bool, reduce_range: bool = False) -> Path:
    """ONNX Runtime's own quantiser: Q/DQ, uint8 activations, int8 weights per channel, minimum and maximum."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        rest = iter(job.crops)

        def get_next(self) -> dict[str, Float32] | None:
            return next(({"input": crop[None]} for crop in self.rest), None)

    out = job.folder("min-max", compacted, reduce_range)
    quant_pre_process(job.graph("onnx", compacted=compacted), out / "prepared.onnx")
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    names = out / "prepared.onnx", out / "model.onnx"
    quantize_static(*names, Reader(), per_channel=True, reduce_range=reduce_range, **types)
    return out / "model.onnx"


def nncf(job: Job, *, compacted: bool, **options: Any) -> Path:
    """NNCF on OpenVINO's IR; with `max_drop` its accuracy control, which judges by ION on the training faces."""
    import nncf
    import openvino as ov

    spec = job.base.artifact.spec
    out = job.folder("nncf", compacted, *options)
    onnx.save(job.graph("openvino", compacted=compacted), out / "model.onnx")
    # Of a graph that is read by `read_model`, and not converted, NNCF finds no biases and corrects none.
    model = ov.convert_model(out / "model.onnx", input=[1, 3, *spec.input_size])
    arguments = [model, nncf.Dataset([crop[None] for crop in job.crops])]
    quantise = nncf.quantize
    if "max_drop" in options:
        faces = crops.load(job.faces, spec, "train")
        known = zip(feed(faces.images, spec)[:, None], faces.squares[:, None], faces.truth[:, None], strict=True)
        quantise, arguments = nncf.quantize_with_accuracy_control, [*arguments, nncf.Dataset(list(known)), _accuracy]
    made = quantise(*arguments, subset_size=len(job.crops), **options)
    ov.save_model(made, out / "quantised.xml", compress_to_fp16=False)
    return out / "quantised.xml"


def _accuracy(compiled: Any, faces: Iterable[Any]) -> tuple[float, list[float]]:
    """100 - ION, mean and of each face: higher is better, and not 0, by which NNCF divides."""
    scores = [100 - float(ion(to_picture(compiled(x)["landmarks"], at), truth)[0]) for x, at, truth in faces]
    return float(np.mean(scores)), scores


Maker = Callable[[Job], Path]
ORT, NNCF, CONTROLLED = "ONNX Runtime min-max", "NNCF", f"NNCF, accuracy control {BUDGET}"
MAKERS: dict[tuple[str, str], Maker] = {
    ("onnx", "ours, fp32"): functools.partial(ours, target="onnx", precision=Precision.FP32),
    ("openvino", "ours, fp32"): functools.partial(ours, target="openvino", precision=Precision.FP32),
    ("onnx", ORT): functools.partial(min_max, compacted=False),
    ("onnx", f"{ORT}, compacted"): functools.partial(min_max, compacted=True),
    ("onnx", f"{ORT}, compacted, 7-bit weights"): functools.partial(min_max, compacted=True, reduce_range=True),
    ("onnx", "ours, int8"): functools.partial(ours, target="onnx", precision=Precision.INT8),
    ("onnx", "ours, tuned"): functools.partial(tuned, target="onnx"),
    ("openvino", NNCF): functools.partial(nncf, compacted=False),
    ("openvino", f"{NNCF}, compacted"): functools.partial(nncf, compacted=True),
    ("openvino", f"{NNCF}, compacted, slow bias correction"): functools.partial(
        nncf, compacted=True, fast_bias_correction=False
    ),
    ("openvino", CONTROLLED): functools.partial(nncf, compacted=False, max_drop=BUDGET),
    ("openvino", f"{CONTROLLED}, compacted"): functools.partial(nncf, compacted=True, max_drop=BUDGET),
    ("openvino", "ours, int8"): functools.partial(ours, target="openvino", precision=Precision.INT8),
    ("openvino", "ours, tuned"): functools.partial(tuned, target="openvino"),
}
"""What is compared: where it runs, what it is called, and what makes it: a model file, or an artefact of ours."""


def main() -> None:
    """Runs everything; see the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("models", nargs="*", default=["pfld", "mobilefacenet"])
    arguments = parser.parse_args()
    if not find_spec("nncf"):
        sys.exit("NNCF is not here, and the others are compared with it: pip install nncf==3.4.0")
    faces = Path(os.environ["LMCONV_FACES"])
    rows = [row for model in arguments.models for row in network(model, arguments.out, faces)]
    (arguments.out / "precision.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(table(rows))


def network(model: str, out: Path, faces: Path) -> list[Json]:
    """Makes everything of one network, then runs all of it; a row each."""
    source = resolve(model)
    plain = pipeline.plain(source, out).artifact.path
    rows: list[Json] = [{"on": "torch", "by": "source"}, {"on": "onnx", "by": "plain graph, fp32", "path": str(plain)}]
    rows += [{"on": on, "by": by} | alone(make, model, out, faces) for (on, by), make in MAKERS.items()]
    shown = crops.load(faces, source.spec, "test")
    spec = pipeline.with_batch(source.spec, 1)
    found, runs = {}, {}
    with contextlib.ExitStack() as stack:
        for index, row in enumerate(rows):
            if "failed" in row:
                continue
            try:
                session = stack.enter_context(opened(Path(row["path"])) if index else open_source(source, threads=1))
                found[index] = parity.on_faces(session, spec, shown).landmarks
                runs[index] = functools.partial(session.run, {"input": noise(spec, 1, 0)})
            except Exception as error:  # whatever a runtime raises; the others go on
                row["failed"] = first_line(error)
        times = dict(zip(runs, interleaved(list(runs.values()), SAMPLES), strict=True))
    for index, points in found.items():
        rows[index] |= judged(points, found[0], shown, spec.input_size[0])
        rows[index] |= {"faster": faster(times[1], times[index]).to_json(), "ms": float(np.median(times[index]))}
    return [{"model": model} | row for row in rows]


def alone(make: Maker, model: str, out: Path, faces: Path) -> Json:
    """Where a maker put its model, seconds and MB, in a process of its own; or why it failed."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            row: Json = pool.submit(_alone, make, model, out, faces).result()
        except Exception as error:  # whatever a quantiser raises; the others go on
            row = {"failed": first_line(error)}
    print(model, make, row, file=sys.stderr, flush=True)
    return row


def _alone(make: Maker, model: str, out: Path, faces: Path) -> Json:
    with contextlib.redirect_stdout(sys.stderr):
        base = pipeline.plain(resolve(model), out)
        job = Job(base=base, crops=crops.calibration(faces, base.artifact.spec), faces=faces, out=out)
        start = time.perf_counter()
        path = make(job)
        seconds = time.perf_counter() - start
    memory = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    return {"path": str(path), "seconds": seconds, "mb": int(memory[1]) / 1e3 if memory else None}


def opened(path: Path) -> Session:
    """An artefact as its manifest says, or a model file; on one thread."""
    if path.is_dir():
        ready = artifact.read(path)
        target: Target = plugins.load("targets", ready.target)
        return target.open(ready, OpenOptions(threads=1))
    if path.suffix == ".onnx":
        return OrtSession(path, threads=1)
    return openvino.OpenVinoSession(path, "f32", 1)


def judged(found: Float32, source: Float32, faces: CropSet, side: int) -> Json:
    """ION, how much more that is than the source's, drift in ION points, and the largest shift in input pixels."""
    points, expected = (to_picture(each, faces.squares) for each in (found, source))
    errors = ion(points, faces.truth)
    return {
        "ion": float(errors.mean()),
        "more": asdict(bootstrap(errors - ion(expected, faces.truth))),
        "drift": float(ion(faces.truth + points - expected, faces.truth).mean()),
        "px": float(np.linalg.norm(found - source, axis=2).max()) * side,
    }


def table(rows: list[Json]) -> str:
    """The figures as a Markdown table."""
    header = ["network", "runs on", "made by", "ION", "more than the source", "drift", "largest shift, px"]
    return markdown([*header, "times faster", "s", "MB"], [_cells(row) for row in rows])


def _cells(row: Json) -> list[str]:
    about = [row["model"], row["on"], row["by"]]
    if "failed" in row:
        return [*about, row["failed"], *[""] * 6]
    more, gain = row["more"], row["faster"]
    return [
        *about,
        f"{row['ion']:.3f}",
        f"{more['mean']:+.3f} [{more['low']:+.3f}, {more['high']:+.3f}]",
        f"{row['drift']:.3f}",
        f"{row['px']:.2f}",
        f"{gain['median']:.2f} [{gain['low']:.2f}, {gain['high']:.2f}]",
        *([f"{row['seconds']:.1f}", f"{row['mb']:.0f}"] if "seconds" in row else ["", ""]),
    ]


if __name__ == "__main__":
    main()
