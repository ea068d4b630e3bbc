"""Compares precisions and quantisers: `python benchmarks/precision.py OUT [MODEL...]`.

lmconv's artefacts in every precision ("ours"), plain OpenVINO in f32 and bf16, NNCF with default settings and with
accuracy control, and ONNX Runtime's min-max. The networks need weights in `LMCONV_WEIGHTS`; the faces come from
`LMCONV_FACES`. Measured for each model:

- ION and drift on the test part of the faces;
- the speed-up over the plain graph without denormals in ONNX Runtime fp32, on one thread, at batch 1, in warm blocks,
  with all models of a network in one run;
- CPU seconds and memory to make the model from the plain graph, in a process of its own.

All quantisers calibrate on the same crops of the training part. Rows in bf16 are left out on a CPU without bf16, where
OpenVINO computes f32. `--all` adds NNCF and ONNX Runtime on the compacted graph of lmconv's quantiser, to separate the
effect of compaction from the effect of the quantiser, and their options against saturation. A CPU without VNNI adds
products in 16 bits, which saturate: `in float` is the ION of the same model with Q/DQ computed in float, about the
result on a CPU with VNNI. Prints two Markdown tables and the CPU, and writes `OUT/precision.json`. `--keep` measures
the models of an earlier run without making them again.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import multiprocessing
import os
import re
import resource
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

from lmconv import machine
from lmconv.building.assembling import build
from lmconv.building.plain import Plain, plain_graph
from lmconv.building.recipe import PRECISION_PASSES
from lmconv.building.recipe import resolve as resolve_recipe
from lmconv.building.request import Choices, Conversion, Crops
from lmconv.building.steps import steps
from lmconv.building.target_graph import with_batch
from lmconv.errors import first_line
from lmconv.faces.calibration import calibration_inputs, calibration_pictures
from lmconv.faces.crops import FaceCrops, load_face_crops
from lmconv.graph.denormals import flushed
from lmconv.inference.latency import faster, paced
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import noise
from lmconv.judging import parity
from lmconv.judging.accuracy import bootstrap
from lmconv.judging.nme import nme
from lmconv.networks.interfaces import folder_name
from lmconv.networks.preprocess import network_input
from lmconv.networks.squares import to_picture
from lmconv.plugins import COMMANDS, TARGETS
from lmconv.sources.resolve import open_source, resolve
from lmconv.store import artifact
from lmconv.targets import openvino
from lmconv.types import Float32, Json, ModelSpec, OpenOptions, Precision, Session, Variant
from lmconv.visual.tables import markdown

SECONDS, ROUNDS = 60.0, 20
"""Approximate time for timing all models of a network, seconds, and the largest number of rounds of blocks."""
BUDGET = 0.03
"""Budget of accuracy control and `lmconv tune` on the training faces, ION points."""
MOST_DRIFT = 0.4
"""Largest drift on the test faces of a model that counts as an answer, ION points."""
TUNE = "60s"
"""Time for the search of `lmconv tune`, for each target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Input of a quantiser.

    Attributes:
        base: The plain graph.
        crops: (n, 3, H, W) float32 network inputs for calibration.
        faces: Folder of annotated faces.
        out: Folder for the artefacts of lmconv.
        folder: Folder for the files of other quantisers.
    """

    base: Plain
    crops: Float32
    faces: Path
    out: Path
    folder: Path

    def graph(self, target: str, *, compacted: bool) -> onnx.ModelProto:
        """Returns the plain graph, or the compacted graph that lmconv quantises for this target."""
        if not compacted:
            return self.base.model
        choices = Choices(without=PRECISION_PASSES[Precision.INT8])
        plugin = TARGETS.load(target)
        crops = Crops(cut=lambda: self.crops, pictures=tuple)
        conversion = Conversion(base=self.base, out=self.out, crops=crops, choices=choices)
        *_, last = steps(
            conversion, plugin, resolve_recipe(Variant(target=target, precision=Precision.INT8), plugin, choices)
        )
        return last.model


def ours(job: Job, target: str, precision: Precision) -> Path:
    """Makes an artefact as `lmconv export` does; returns its folder."""
    pictures = functools.partial(calibration_pictures, job.faces, job.base.artifact.spec)
    crops = Crops(cut=lambda: job.crops, pictures=pictures)
    return build(Conversion(base=job.base, out=job.out, crops=crops), Variant(target=target, precision=precision)).path


def tuned(job: Job, target: str) -> Path:
    """Makes an artefact with `lmconv tune`; returns its folder."""
    name = job.base.artifact.spec.name
    if "tune" in COMMANDS.names():
        lmconv = str(Path(sys.executable).with_name("lmconv"))
        options = ["--calibration", str(job.faces), "--budget-ion", str(BUDGET), "--out", str(job.out), "--time", TUNE]
        subprocess.run([lmconv, "tune", name, "--to", target, *options], check=True, stdout=sys.stderr)
    path = job.out / name / folder_name(Variant(target=target, precision=Precision.MIXED))
    if not path.is_dir():
        raise FileNotFoundError(f"lmconv tune has written no {path}")
    return path


def min_max(job: Job, *, compacted: bool, reduce_range: bool = False) -> Path:
    """ONNX Runtime's own quantiser: Q/DQ, uint8 activations, int8 weights per channel, minimum and maximum."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        rest = iter(job.crops)

        def get_next(self) -> dict[str, Float32] | None:
            return next(({"input": crop[None]} for crop in self.rest), None)

    prepared, quantised = job.folder / "prepared.onnx", job.folder / "model.onnx"
    quant_pre_process(job.graph("onnx", compacted=compacted), prepared)
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(prepared, quantised, Reader(), per_channel=True, reduce_range=reduce_range, **types)
    return quantised


def nncf(job: Job, *, compacted: bool, reduce_range: bool = False, **options: Any) -> Path:
    """NNCF on OpenVINO's IR; with `max_drop`, NNCF's accuracy control by the ION on the training faces."""
    import nncf
    import openvino as ov

    spec = job.base.artifact.spec
    onnx.save(job.graph("openvino", compacted=compacted), job.folder / "model.onnx")
    # convert_model instead of read_model: after read_model biases are not constants, and NNCF corrects none of them.
    model = ov.convert_model(job.folder / "model.onnx", input=[1, 3, *spec.input_size])
    arguments = [model, nncf.Dataset([crop[None] for crop in job.crops])]
    if reduce_range:
        options["advanced_parameters"] = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
    quantise = nncf.quantize
    if "max_drop" in options:
        faces = load_face_crops(job.faces, spec, "train")
        rows = zip(
            network_input(faces.images, spec.preprocess)[:, None],
            faces.squares[:, None],
            faces.truth[:, None],
            strict=True,
        )
        quantise, arguments = nncf.quantize_with_accuracy_control, [*arguments, nncf.Dataset(list(rows)), _accuracy]
    quantised = quantise(*arguments, subset_size=len(job.crops), **options)
    ov.save_model(quantised, job.folder / "model.xml", compress_to_fp16=False)
    return job.folder / "model.xml"


def _accuracy(compiled: Any, faces: Iterable[Any]) -> tuple[float, list[float]]:
    """Returns 100 - ION, as mean and per face: higher is better, and never 0, because NNCF divides by the mean."""
    scores = [100 - float(nme(to_picture(compiled(x)["landmarks"], at), truth)[0]) for x, at, truth in faces]
    return float(np.mean(scores)), scores


def plain_openvino(job: Job) -> Path:
    """The plain graph as OpenVINO's converter writes it, for one input."""
    import openvino as ov

    file = artifact.model_file(job.base.artifact, ".onnx")
    model = ov.convert_model(file, input=[1, 3, *job.base.artifact.spec.input_size])
    ov.save_model(model, job.folder / "model.xml", compress_to_fp16=False)
    return job.folder / "model.xml"


def made(job: Job, key: tuple[str, str]) -> Path:
    """The file of an earlier row, which is timed with other settings."""
    return job.folder.with_name(slug(key)) / "model.xml"


def slug(key: tuple[str, str]) -> str:
    """Name of the folder of a row."""
    return re.sub(r"\W+", "-", " ".join(key))


ORT, NNCF, CONTROLLED = "ONNX Runtime min-max", "NNCF", "NNCF, accuracy control"
FLUSHED = "plain graph without denormals, fp32"
PLAIN_BF16, BF16 = "plain graph, bf16", ", bf16 elsewhere"
MAKERS: dict[tuple[str, str], Callable[[Job], Path]] = {
    ("onnx", "ours, fp32"): lambda job: ours(job, "onnx", Precision.FP32),
    ("onnx", "ours, int8"): lambda job: ours(job, "onnx", Precision.INT8),
    ("onnx", "ours, mixed"): lambda job: tuned(job, "onnx"),
    ("onnx", ORT): lambda job: min_max(job, compacted=False),
    ("openvino", "ours, fp32"): lambda job: ours(job, "openvino", Precision.FP32),
    ("openvino", "ours, bf16"): lambda job: ours(job, "openvino", Precision.BF16),
    ("openvino", "ours, int8"): lambda job: ours(job, "openvino", Precision.INT8),
    ("openvino", "ours, mixed"): lambda job: tuned(job, "openvino"),
    ("openvino", "plain graph, f32"): plain_openvino,
    ("openvino", PLAIN_BF16): lambda job: made(job, ("openvino", "plain graph, f32")),
    ("openvino", NNCF): lambda job: nncf(job, compacted=False),
    ("openvino", f"{NNCF}{BF16}"): lambda job: made(job, ("openvino", NNCF)),
    ("openvino", CONTROLLED): lambda job: nncf(job, compacted=False, max_drop=BUDGET),
}
"""Compared models: runtime and name, and the function that makes a model file or an artefact of lmconv."""
MORE: dict[tuple[str, str], Callable[[Job], Path]] = {
    ("onnx", f"{ORT}, compacted"): lambda job: min_max(job, compacted=True),
    ("onnx", f"{ORT}, compacted, 7-bit"): lambda job: min_max(job, compacted=True, reduce_range=True),
    ("openvino", f"{NNCF}, compacted"): lambda job: nncf(job, compacted=True),
    ("openvino", f"{NNCF}, compacted, slow bias correction"): lambda job: nncf(
        job, compacted=True, fast_bias_correction=False
    ),
    ("openvino", f"{NNCF}, compacted, slow bias correction, 7-bit"): lambda job: nncf(
        job, compacted=True, reduce_range=True, fast_bias_correction=False
    ),
    ("openvino", f"{CONTROLLED}, compacted"): lambda job: nncf(job, compacted=True, max_drop=BUDGET),
}
"""Models of `--all`."""


def main() -> None:
    """Measures all networks and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("models", nargs="*", default=["pfld", "mobilefacenet"])
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    if not find_spec("nncf"):
        sys.exit("NNCF is not installed: pip install 'lmconv[benchmarks]' (or nncf==3.4.0)")
    if not (faces := os.environ.get("LMCONV_FACES")):
        sys.exit("there are no faces: set LMCONV_FACES to a folder with training and test parts of 300-W")
    makers = [*MAKERS, *(MORE if arguments.all else ())]
    about, rows = machine.describe(), list[Json]()
    for model in arguments.models:
        rows += network(model, makers, arguments.out, Path(faces), arguments.keep)
    document = json.dumps({"machine": about, "rows": rows}, indent=1)
    (arguments.out / "precision.json").write_text(document + "\n", encoding="utf-8")
    features = ", ".join(about["features"])
    print(
        f"{table(rows)}\n\n{summary(rows)}\n\n{about['cpu']}, {about['cores']} cores: {features}; load {about['load']}"
    )


def network(model: str, makers: Iterable[tuple[str, str]], out: Path, faces: Path, keep: bool) -> list[Json]:
    """Makes and measures all models of one network; returns one row per model."""
    source = resolve(model)
    plain = plain_graph(source, out)
    rows: list[Json] = [{"on": "torch", "by": "source"}]
    rows += [{"on": "onnx", "by": by, "path": str(path)} for by, path in baselines(plain, out / model).items()]
    rows += [alone(key, model, out, faces, keep) for key in makers]
    test_faces = load_face_crops(faces, source.spec, "test")
    spec = with_batch(source.spec, 1)
    predicted, runs = {}, {}
    with contextlib.ExitStack() as stack:
        for index, row in enumerate(rows):
            if "failed" in row:
                continue
            try:
                session = stack.enter_context(opened(row) if index else open_source(source, threads=1))
                if session.execution_mismatch:
                    row["failed"] = session.execution_mismatch
                    continue
                predicted[index] = parity.on_faces(session, spec, test_faces).landmarks
                runs[index] = functools.partial(session.run, {"input": noise(spec, 1, 0)})
                row["in_float"] = in_float(Path(row["path"]), spec, test_faces) if _quantised(row) else None
            except Exception as error:  # a runtime may raise anything; the other models are still measured
                row["failed"] = first_line(error)
        times = dict(zip(runs, paced(list(runs.values()), SECONDS, ROUNDS), strict=True))
    base = next(times[index] for index in times if rows[index]["by"] == FLUSHED)
    for index, points in predicted.items():
        rows[index] |= judged(points, predicted[0], test_faces, spec.input_size[0])
        rows[index] |= {"faster": faster(base, times[index]).to_json()}
        rows[index] |= {"ms": float(np.median(times[index]))}
    return [{"model": model} | row for row in rows]


def baselines(plain: Plain, out: Path) -> dict[str, Path]:
    """Writes the plain graph without denormals; returns both plain graphs by name."""
    path = out / "precision" / "flushed.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    model, _ = flushed(plain.model)
    onnx.save(model, path)
    return {"plain graph, fp32": plain.artifact.path, FLUSHED: path}


def _quantised(row: Json) -> bool:
    """True for a model whose Q/DQ may saturate."""
    return row["by"] in ("ours, int8", "ours, mixed") or row["by"].startswith((ORT, NNCF))


def alone(key: tuple[str, str], model: str, out: Path, faces: Path, keep: bool) -> Json:
    """Makes one model in a process of its own.

    Args:
        key: Key of `MAKERS`.
        model: Name of the network.
        out: Folder of all results.
        faces: Folder of annotated faces.
        keep: True to return the row of an earlier run if one exists.

    Returns:
        The row: `path` of the model, `seconds`, `cpu` seconds and `mb`; or `failed`, the error.
    """
    folder = out / model / "precision" / slug(key)
    row_file = folder / "row.json"
    if keep and row_file.exists():
        row: Json = json.loads(row_file.read_text(encoding="utf-8"))
        return row
    folder.mkdir(parents=True, exist_ok=True)
    row = dict(zip(("on", "by"), key, strict=True))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            row |= pool.submit(_alone, key, model, out, faces, folder).result()
            row_file.write_text(json.dumps(row), encoding="utf-8")
        except Exception as error:  # a quantiser may raise anything; the other models are still made
            row["failed"] = first_line(error)
    print(model, row, file=sys.stderr, flush=True)
    return row


def _alone(key: tuple[str, str], model: str, out: Path, faces: Path, folder: Path) -> Json:
    with contextlib.redirect_stdout(sys.stderr):
        base = plain_graph(resolve(model), out)
        calibration = calibration_inputs(faces, base.artifact.spec)
        job = Job(base=base, crops=calibration, faces=faces, out=out, folder=folder)
        start, cpu = time.perf_counter(), time.process_time()
        path = (MAKERS | MORE)[key](job)
        spent = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent["cpu"] += children.ru_utime + children.ru_stime
    own = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    return {"path": str(path), "mb": max(int(own[1]) if own else 0, children.ru_maxrss) / 1e3} | spent


def opened(row: Json) -> Session:
    """Opens an artefact with the settings of its manifest, or a model file; on one thread."""
    path = Path(row["path"])
    if path.is_dir():
        ready = artifact.read(path)
        target = TARGETS.load(ready.target)
        return target.open(ready, OpenOptions(threads=1))
    if path.suffix == ".onnx":
        return OrtSession(path, threads=1)
    hint = "bf16" if row["by"] == PLAIN_BF16 or row["by"].endswith(BF16) else "f32"
    return openvino.OpenVinoSession(path, hint, 1)


def in_float(path: Path, spec: ModelSpec, faces: FaceCrops) -> float:
    """Mean ION without integer kernels for Q/DQ: the rounding is the same, and nothing saturates."""
    import onnxruntime
    import openvino as ov

    (file,) = [path] if path.is_file() else [*path.glob("model.onnx"), *path.glob("model.xml")]
    if file.suffix == ".onnx":
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        run = functools.partial(onnxruntime.InferenceSession(file, options).run, ["landmarks"])
    else:
        config = {openvino.HINT: "f32", "LP_TRANSFORMS_MODE": "NO"}
        run = ov.Core().compile_model(file, "CPU", config)
    points = np.concatenate([run({"input": image[None]})[0] for image in network_input(faces.images, spec.preprocess)])
    return float(nme(to_picture(points, faces.squares), faces.truth).mean())


def judged(predicted: Float32, reference: Float32, faces: FaceCrops, side: int) -> Json:
    """Accuracy of a model.

    Args:
        predicted: (n, L, 2) float32, landmarks of the model, fractions of the crop.
        reference: (n, L, 2) float32, landmarks of the source network, fractions of the crop.
        faces: The n faces.
        side: Side of the crop, pixels.

    Returns:
        `ion`, the mean ION; `more`, the mean paired difference of ION to the source network, with its interval; `drift`
        in ION points; `px`, the largest shift in input pixels.
    """
    points, expected = (to_picture(landmarks, faces.squares) for landmarks in (predicted, reference))
    errors = nme(points, faces.truth)
    return {
        "ion": float(errors.mean()),
        "more": asdict(bootstrap(errors - nme(expected, faces.truth))),
        "drift": float(nme(faces.truth + points - expected, faces.truth).mean()),
        "px": float(np.linalg.norm(predicted - reference, axis=2).max()) * side,
    }


def table(rows: list[Json]) -> str:
    """The figures as a Markdown table."""
    header = ["network", "runs on", "made by", "ION", "more than the source", "drift", "largest shift, px", "in float"]
    return markdown([*header, "times faster", "CPU s", "MB"], [_cells(row) for row in rows])


def summary(rows: list[Json]) -> str:
    """The speed-up of each maker's fastest model, with its loss, as a Markdown table; "ours" within the budget."""
    header = ["network", "ours, ONNX Runtime fp32", "ours, best", "plain OpenVINO", NNCF, CONTROLLED, ORT]
    models = dict.fromkeys(row["model"] for row in rows)
    return markdown(header, [[model, *map(_gain, _contenders(model, rows))] for model in models])


def _contenders(model: str, rows: list[Json]) -> list[list[Json]]:
    """Returns the models of a network that compete in each column of the summary."""
    own = [row for row in rows if row["model"] == model and "failed" not in row]
    fitting = [row for row in own if row["more"]["mean"] <= BUDGET and row["drift"] <= MOST_DRIFT]
    by = {name: [row for row in own if row["by"] in (name, f"{name}{BF16}")] for name in (NNCF, CONTROLLED, ORT)}
    return [
        [row for row in own if (row["on"], row["by"]) == ("onnx", "ours, fp32")],
        [row for row in fitting if row["by"].startswith("ours")],
        [row for row in own if row["on"] == "openvino" and row["by"].startswith("plain")],
        *by.values(),
    ]


def _gain(rows: list[Json]) -> str:
    """Describes the fastest of some models."""
    if not rows:
        return "-"
    best = max(rows, key=lambda row: float(row["faster"]["median"]))
    gain = f"{best['faster']['median']:.2f} [{best['faster']['low']:.2f}, {best['faster']['high']:.2f}]"
    return f"{gain} ({best['on']} {best['by']}: {best['more']['mean']:+.3f}, drift {best['drift']:.2f})"


def _cells(row: Json) -> list[str]:
    about = [row["model"], row["on"], row["by"]]
    if "failed" in row:
        return [*about, row["failed"], *[""] * 7]
    more, gain, simulated = row["more"], row["faster"], row["in_float"]
    return [
        *about,
        f"{row['ion']:.3f}",
        f"{more['mean']:+.3f} [{more['low']:+.3f}, {more['high']:+.3f}]",
        f"{row['drift']:.3f}",
        f"{row['px']:.2f}",
        f"{simulated:.3f}" if simulated else "",
        f"{gain['median']:.2f} [{gain['low']:.2f}, {gain['high']:.2f}]",
        *(f"{row[key]:.0f}" if key in row else "" for key in ("cpu", "mb")),
    ]


if __name__ == "__main__":
    main()
