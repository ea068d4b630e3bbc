"""`make gpu-check`: TensorRT engines built, compared and timed on a GPU, and the record of it.

    gpu_check.py prepare OUT          graphs, faces and the networks' answers, for a host that has no network
    gpu_check.py judge OUT            the record `benchmarks/gpu-NAME.json`, from what such a host found
    gpu_check.py run OUT              both, and the check between them, where this machine has TensorRT and a GPU
    gpu_check.py rehearse OUT         the same without a GPU: ONNX Runtime computes the graphs, nothing is timed

What runs on the GPU host is `lmconv.trt`, which needs Python 3.9 and NumPy besides TensorRT and pycuda:
docs/tensorrt.md says how. Trained weights come from LMCONV_WEIGHTS, annotated faces from LMCONV_FACES; int8 is
calibrated on the training part and ION measured on the test part. Networks without trained weights get seeded random
ones, and no ION.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from lmconv import machine
from lmconv.building.assembling import graph_for
from lmconv.building.limits import MAP_TOLERANCE
from lmconv.building.plain import Plain, plain_graph
from lmconv.building.recipe import PLAIN_PASSES
from lmconv.building.request import Choices, Conversion, Crops
from lmconv.errors import GateFailed, InputError, LmconvError, MissingRuntime, UsageError
from lmconv.faces.calibration import calibration_inputs, calibration_pictures
from lmconv.faces.crops import load_face_crops
from lmconv.faces.lookup import find_dataset
from lmconv.inference.latency import latency
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import outputs
from lmconv.judging import parity
from lmconv.judging.accuracy import accuracy, paired, to_json
from lmconv.judging.loss import Budget, loss, losses
from lmconv.networks.compare import difference
from lmconv.networks.outputs import Outputs
from lmconv.networks.preprocess import network_input
from lmconv.plugins import PASSES
from lmconv.sources import checkpoints
from lmconv.sources.resolve import open_source, resolve
from lmconv.store.files import canonical, digest, sha256, writing
from lmconv.store.reference import MAPS, Reference
from lmconv.trt import check, device
from lmconv.types import Arrays, Json, Precision, Variant

LOWERED = {8: ("opset17",)}
"""Passes that a major version of TensorRT needs last."""
PART = 60_000_000
"""Bytes of a part: what is copied to the host in one go."""
DEFAULT, WIDE, SMALL = (1, 8, 64), (1, 256, 256), (1, 1, 8)
"""Profiles: the default; for throughput; for one face at a time."""
SWEEP = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LIMITS = {Precision.FP32: 1e-4, Precision.FP16: 1e-2, Precision.INT8: 2e-1}
"""Largest difference of a coordinate, fractions of the input, on the host; pixels and ION are judged afterwards."""
FP16_PX = 0.1
PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What is made of a network: profiles by the end of a case's name, and batch sizes that are timed."""

    name: str
    profiles: tuple[tuple[str, tuple[int, int, int]], ...] = (("", DEFAULT),)
    batches: tuple[int, ...] = (1, 8, 64)


NETWORKS = (
    Network(name="pfld", profiles=(("", SMALL), ("-wide", WIDE)), batches=SWEEP),
    Network(name="mobilefacenet", profiles=(("", SMALL), ("-wide", WIDE)), batches=SWEEP),
    Network(name="mobilenet_v2_56"),
    Network(name="mobilenet_v2"),
    Network(name="resnet18"),
    Network(name="hrnet_w18_small_v2"),
    Network(name="hourglass2"),
)


def main(arguments: list[str] | None = None) -> int:
    """Does one of the three; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prepare", "judge", "run", "rehearse"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--tensorrt", type=int, choices=[8, 10, 11], help="of the host; default: 8, or the one here")
    parser.add_argument("--only", nargs="+", help="networks", metavar="NETWORK")
    parser.add_argument("--record", type=Path, default=Path("benchmarks"), help="where the record goes")
    given = parser.parse_args(arguments)
    try:
        if given.what == "run" and (missing := device.missing()):
            raise MissingRuntime("no engine can be built here", hint=missing)
        if given.what != "judge":
            major = given.tensorrt or (int(device.describe()["tensorrt"].split(".")[0]) if given.what == "run" else 8)
            prepare(given.out, major, chosen(given.only))
        if given.what == "rehearse":
            gather(given.out)
            rehearse(given.out / "host")
        if given.what == "run":
            gather(given.out)
            check.main([str(given.out / "host"), "--torch", sys.executable])
        if given.what != "prepare":
            return judge(given.out, given.out if given.what == "rehearse" else given.record)
    except LmconvError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def chosen(names: list[str] | None) -> list[Network]:
    """The networks of these names, all where none are given."""
    known = [each.name for each in NETWORKS]
    for name in names or ():
        if name not in known:
            raise UsageError(f"--only {name} is none of the networks that are checked", hint=", ".join(known))
    return [each for each in NETWORKS if not names or each.name in names]


def annotated() -> Path:
    """The folder of annotated faces."""
    faces = os.environ.get("LMCONV_FACES")
    if not faces:
        hint = "export LMCONV_FACES=DIR, see README.md"
        raise InputError("int8 is calibrated and judged on annotated faces, and LMCONV_FACES names none", hint=hint)
    find_dataset(Path(faces))
    return Path(faces)


def prepare(out: Path, major: int, networks: list[Network]) -> None:
    """Writes `OUT/part0`, `OUT/part1`, … for the host, and `OUT/build`, which `judge` reads again.

    Parts that are there already stay until the new ones are ready.
    """
    faces = annotated()
    staging = out / "files"
    shutil.rmtree(staging, ignore_errors=True)
    with writing(out):
        staging.mkdir(parents=True)
    models = [_prepared(network, out, staging, faces, major) for network in networks]
    unknown = helper.make_graph(
        [helper.make_node("DoesNotExist", ["input"], ["landmarks"], name="the_unknown_node", domain="")],
        "unknown",
        [helper.make_tensor_value_info("input", 1, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("landmarks", 1, ["N", 3, 8, 8])],
    )
    onnx.save(helper.make_model(unknown, opset_imports=[helper.make_opsetid("", 17)]), staging / "unknown.onnx")
    first = next(case for model in models for case in model["cases"])  # fp32, which nothing refuses
    mistakes = {"engine": first["name"], "above": first["profile"][2] + 1, "unknown": "unknown.onnx"}
    cases: Json = {
        "tensorrt": major,
        "made": machine.versions(),
        "models": models,
        "mistakes": mistakes | {"nodes": ["the_unknown_node"]},
    }
    cases["digest"] = digest(cases | {"files": [sha256(path) for path in sorted(staging.glob("*.onnx"))]})
    for folder in out.glob("part*"):
        shutil.rmtree(folder)
    parts = _parts(staging, out)
    (parts / "cases.json").write_text(canonical(cases), encoding="utf-8")
    tree = Path(check.__file__).parent
    shutil.copytree(tree, parts / "lmconv" / "trt", ignore=shutil.ignore_patterns("__pycache__"))


def _prepared(network: Network, out: Path, staging: Path, faces: Path, major: int) -> Json:
    """Writes the graphs of a network, its inputs and its answers; gives its part of cases.json."""
    path = checkpoints.find(network.name)
    source = resolve(network.name, weights=path, seed=None if path else 0)
    given = Crops(
        cut=functools.cache(functools.partial(calibration_inputs, faces, source.spec)),
        pictures=functools.partial(calibration_pictures, faces, source.spec),
    )
    base = plain_graph(source, out / "build", crops=given)
    spec, reference = base.artifact.spec, _reference(base)
    judged = "heatmaps" if spec.heatmaps else "landmarks"
    inputs, expected = [reference.inputs["input"]], [getattr(reference.outputs, judged)]
    if path:
        images = network_input(load_face_crops(faces, spec).images, spec.preprocess)
        with open_source(source) as session:
            inputs, expected = [*inputs, images], [*expected, outputs(session, spec, images, maps=0).landmarks]
    file = f"{network.name}.npz"
    arrays: Json = {"input": np.concatenate(inputs), judged: np.concatenate(expected)}
    np.savez_compressed(staging / file, **arrays)
    cases: list[Json] = []
    left_out: Json = {}
    for precision in PRECISIONS:
        print(f"{network.name} {precision}", flush=True)
        try:
            graph = _graph(base, precision, given, major)
        except GateFailed as error:  # one of many is not worth the others
            left_out[f"{network.name}-{precision}"] = str(error)
            print(f"{network.name} {precision} is left out: {error}", flush=True)
            continue
        onnx.save(graph, staging / f"{network.name}-{precision}.onnx")
        limit = _limit(graph, arrays, judged, precision, trained=path is not None)
        cases += [
            _case(f"{network.name}-{precision}", end, precision, profile, judged, limit)
            for end, profile in network.profiles
        ]
    if path:
        print(f"{network.name} fp16, not compacted", flush=True)
        onnx.save(
            _graph(base, Precision.FP16, given, major, compacted=False), staging / f"{network.name}-fp16-plain.onnx"
        )
        cases += [
            _case(f"{network.name}-fp16-plain", end, Precision.FP16, profile, judged, LIMITS[Precision.FP16])
            for end, profile in network.profiles
        ]
    shutil.copytree(base.artifact.path, staging / "plain" / network.name)
    if path:
        (staging / "weights").mkdir(exist_ok=True)
        shutil.copy(path, staging / "weights")
    words = ["-m", "lmconv.contestants.pytorch", f"{{folder}}/plain/{network.name}", "--device", "cuda"]
    words += ["--weights", f"{{folder}}/weights/{path.name}"] if path else []
    torch = {"torch eager": words, "torch compiled": [*words, "--compiled"]}
    return {
        "name": network.name,
        "source": base.artifact.parents["source"],
        "inputs": file,
        "cases": cases,
        "left_out": left_out,
        "batches": network.batches,
        "torch": torch,
    }


def _limit(graph: onnx.ModelProto, arrays: Json, judged: str, precision: Precision, *, trained: bool) -> float:
    """How far an engine may be from the network on the host.

    Random weights lose to rounding what no training bounds: three times what ONNX Runtime loses with the same graph.
    """
    if trained:
        return LIMITS[precision]
    with OrtSession(graph.SerializeToString()) as session:
        found = check.in_chunks(session, arrays["input"], len(arrays["input"]))
    scale = float(np.ptp(arrays[judged])) if judged == "heatmaps" else 1.0
    return max(LIMITS[precision] * scale, 3 * check.apart(found[judged], arrays[judged])["max"])


def _case(graph: str, end: str, precision: Precision, profile: tuple[int, int, int], judged: str, limit: float) -> Json:
    return {
        "name": graph + end,
        "onnx": f"{graph}.onnx",
        "precision": str(precision),
        "profile": profile,
        "judged": judged,
        "limit": limit,
        "kept": not end and "plain" not in graph,
        "leak": not end and precision == Precision.FP16 and "plain" not in graph,
    }


def _graph(base: Plain, precision: Precision, given: Crops, major: int, *, compacted: bool = True) -> onnx.ModelProto:
    """The graph that TensorRT of this version would get, rewritten or as the plain graph has it."""
    choices = Choices()
    if not compacted:
        known = PASSES.load_all()
        optional = (name for name, step in known.items() if not step.required and name not in PLAIN_PASSES)
        choices = replace(choices, without=tuple(optional))
    conversion = Conversion(base=base, out=base.artifact.path.parents[1], crops=given, choices=choices)
    return graph_for(conversion, Variant(target="tensorrt", precision=precision), LOWERED.get(major, ())).model


def _reference(base: Plain) -> Reference:
    """Seeded inputs and the network's answers; of a network with heatmaps as many as those are kept of."""
    kept = base.reference
    if base.artifact.spec.heatmaps is None:
        return kept
    near = kept.outputs.undecided
    answers = replace(
        kept.outputs, landmarks=kept.outputs.landmarks[:MAPS], undecided=None if near is None else near[:MAPS]
    )
    return Reference(inputs={"input": kept.inputs["input"][:MAPS]}, outputs=answers)


def _parts(staging: Path, out: Path) -> Path:
    """Moves files into parts that are not too large; gives the first."""
    sizes: list[int] = []
    for file in sorted(filter(Path.is_file, staging.rglob("*")), key=lambda path: -path.stat().st_size):
        size = file.stat().st_size
        part = next((index for index, taken in enumerate(sizes) if taken + size <= PART), len(sizes))
        sizes[part : part + 1] = [sum(sizes[part : part + 1]) + size]
        to = out / f"part{part}" / file.relative_to(staging)
        to.parent.mkdir(parents=True, exist_ok=True)
        file.rename(to)
    shutil.rmtree(staging)
    for part, size in enumerate(sizes):
        print(f"{out / f'part{part}'}: {size / 1e6:.1f} MB")
    return out / "part0"


def gather(out: Path) -> None:
    """Puts the parts together, as they are on the host."""
    for part in sorted(out.glob("part*")):
        shutil.copytree(part, out / "host", dirs_exist_ok=True)


def rehearse(host: Path) -> None:
    """Writes what a host would find, by ONNX Runtime on this machine's CPU: all but TensorRT is as there."""
    cases: Json = json.loads((host / "cases.json").read_text(encoding="utf-8"))
    (host / "found.json").unlink(missing_ok=True)
    found = check.Found(host, {"gpu": "rehearsal on a CPU", "tensorrt": None, "onnxruntime": onnxruntime.__version__})
    for model in cases["models"]:
        arrays: Json = {}
        with np.load(host / model["inputs"], allow_pickle=False) as file:
            arrays_in = dict(file)
        inputs = arrays_in["input"]
        row: Json = {"cases": {}, "latency": {}}
        for case in model["cases"]:
            with OrtSession(host / case["onnx"]) as session:
                outputs = check.in_chunks(session, inputs, case["profile"][1])
            off: Json = {"off": check.apart(outputs[case["judged"]], arrays_in[case["judged"]])}
            row["cases"][case["name"]] = off | {"failed": check.complaints(off, case)}
            if case["kept"]:
                arrays |= {f"{case['name']}/{name}": value for name, value in outputs.items()}
        found.add(model["name"], row, arrays)


class Answers:
    """A `Session` that gives what the host's engine gave for the same inputs, in the same order."""

    execution_mismatch = ""

    def __init__(self, found: Arrays) -> None:
        self._found, self._at = found, 0

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See `lmconv.types.Session`."""
        start, self._at = self._at, self._at + len(inputs["input"])
        return {name: value[start : self._at] for name, value in self._found.items()}

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def judge(out: Path, record: Path) -> int:
    """Writes the record of what the host found; 0 where all gates passed, else 1."""
    host = out / "host"
    cases = _document(out / "part0" / "cases.json", ("digest", "models", "made"), "gpu_check.py prepare writes it")
    hint = f"copy found.json and found.npz from the host to {host}"
    found = _document(host / "found.json", ("digest", "machine", "models"), hint)
    if found["digest"] != cases["digest"]:
        raise InputError(f"{host / 'found.json'} is of other graphs", hint="prepare, check and judge in turn")
    arrays = _arrays(host / "found.npz", hint)
    models = {
        model["name"]: _judged(model, found["models"][model["name"]], arrays, out)
        for model in cases["models"]
        if model["name"] in found["models"]
    }
    failed = [name for name, row in found.get("mistakes", {}).items() if not row["ok"]]
    failed += [name for model in models.values() for name, case in model["cases"].items() if not case["passed"]]
    left = [model["name"] for model in cases["models"] if model["name"] not in found["models"]]
    left_out = {name: why for model in cases["models"] for name, why in model.get("left_out", {}).items()}
    trained = [model for model in cases["models"] if model.get("source", {}).get("seed") is None]
    failed += [name for model in trained for name in model.get("left_out", {})]
    document: Json = {
        "machine": found["machine"],
        "prepared_with": cases["made"],
        "graphs": cases["digest"],
        "proven": proven(found["machine"]),
        "not_done": left + [part for part in ("mistakes",) if part not in found],
        "left_out": left_out,
        "failed": failed,
        "models": models,
        "mistakes": found.get("mistakes", {}),
    }
    name = found["machine"]["gpu"].lower().replace("nvidia", "").split()
    path = record / f"gpu-{'-'.join(name)}.json"
    with writing(path):
        record.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_finite(document), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    for line in (*lines(document), f"{path}: {'failed: ' + ', '.join(failed) if failed else 'all passed'}"):
        print(line)
    return 1 if failed else 0


def _document(path: Path, keys: tuple[str, ...], hint: str) -> Json:
    """A JSON file that has these keys."""
    try:
        document: Json = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    except ValueError as error:
        raise InputError(f"{path} is no whole JSON file: {error}", hint=hint) from error
    if not isinstance(document, dict) or any(key not in document for key in keys):
        raise InputError(f"{path} has not all of {', '.join(keys)}", hint=hint)
    return document


def _arrays(path: Path, hint: str) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}", hint=hint) from error
    except (ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise InputError(f"{path} is no whole file of arrays: {error}", hint=hint) from error


def _finite(value: Any) -> Any:
    """What JSON can say: numbers that are not finite, as a failed engine gives them, become words."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def proven(machine: Json) -> str:
    """What a record shows."""
    if machine["tensorrt"] is None:
        return "nothing of TensorRT: ONNX Runtime computed the graphs"
    return f"TensorRT {machine['tensorrt']} on {machine['gpu']}; no other version was run"


def _judged(model: Json, found: Json, arrays: Arrays, out: Path) -> Json:
    path = checkpoints.find(model["name"])
    source = resolve(model["name"], weights=path, seed=None if path else 0)
    base = plain_graph(source, out / "build")
    here = base.artifact.parents["source"]
    if model.get("source", here) != here:
        was, now = (each.get("file") or f"random weights, seed {each.get('seed')}" for each in (model["source"], here))
        hint = "set LMCONV_WEIGHTS as it was then, or prepare again"
        raise InputError(f"{model['name']} was prepared with {was}, and now its weights are {now}", hint=hint)
    precisions = {case["name"]: Precision(case["precision"]) for case in model["cases"]}
    judged = {}
    for name, row in found["cases"].items():
        kept = {key.partition("/")[2]: value for key, value in arrays.items() if key.partition("/")[0] == name}
        figures = _figures(base, kept, precisions[name], trained=path is not None) if kept else {"gates": {}}
        gates = {"host": "failed" if row["failed"] else "passed", **figures.pop("gates")}
        judged[name] = row | figures | {"gates": gates, "passed": "failed" not in gates.values()}
    times = {batch: dict(_summaries(row)) for batch, row in found["latency"].items()}
    weights = source.path.name if source.path else source.label
    return {"weights": weights, "cases": judged, "latency": times}


def _figures(base: Plain, found: Arrays, precision: Precision, *, trained: bool) -> Json:
    """Parity on seeded inputs; where the weights are trained, parity, ION and losses on faces, and gates."""
    spec, reference = base.artifact.spec, _reference(base)
    session = Answers(found)
    seeded = parity.reference_parity(session, spec, reference)
    row: Json = {"parity": asdict(seeded)}
    gates: dict[str, bool] = {}
    if precision == Precision.FP32:
        gates["max_abs"] = seeded.max_abs <= LIMITS[precision]
    if seeded.max_map is not None:
        gates["max_map"] = seeded.max_map <= MAP_TOLERANCE[precision]
    if precision == Precision.FP16 and trained:
        gates["max_px"] = seeded.max_px <= FP16_PX
    if trained:
        faces = load_face_crops(annotated(), spec)
        with open_source(base.source) as network:
            expected = parity.on_faces(network, spec, faces)
        answered: Outputs = parity.on_faces(session, spec, faces)
        apart = difference(answered.landmarks, expected.landmarks, spec.input_size)
        lost = loss(losses(answered, expected, faces))
        errors, source_errors = parity.errors(answered, faces), parity.errors(expected, faces)
        row |= {"on_faces": asdict(apart), "loss": lost.to_json()}
        row |= {
            "ion": to_json(accuracy(errors, faces.subsets, faces.totals)),
            "source_ion": to_json(accuracy(source_errors, faces.subsets, faces.totals)),
            "delta_ion": to_json(paired(errors, source_errors, faces.subsets)),
        }
        if precision == Precision.FP32:
            gates["max_abs on faces"] = apart.max_abs <= LIMITS[precision]
        if precision == Precision.FP16:
            gates["max_px on faces"] = apart.max_px <= FP16_PX
        if precision == Precision.INT8:
            gates["budget"] = Budget().judge(lost)[0] != "outside"
    return row | {"gates": {name: "passed" if held else "failed" for name, held in gates.items()}}


def _summaries(row: Json) -> Iterator[tuple[str, Json]]:
    """Medians with their intervals, milliseconds, of each contestant and kind; the rest as it was found."""
    for name, kinds in row["times"].items():
        yield name, {kind: asdict(latency(np.array(times))) for kind, times in kinds.items()}
    yield "found", {key: value for key, value in row.items() if key != "times"}


def lines(document: Json) -> Iterator[str]:
    """The numbers that are asked of it, for a person."""
    for model, row in document["models"].items():
        for batch, times in row["latency"].items():
            eager = (times.get("torch eager") or {}).get("execute")
            for name, kinds in times.items():
                if name == "found" or not kinds.get("execute"):
                    continue
                best = kinds.get("graph") or kinds["execute"]
                ratio = f", {eager['median_ms'] / best['median_ms']:.2f} x torch eager" if eager else ""
                micro = f"{best['median_ms'] * 1e3:.1f} [{best['low_ms'] * 1e3:.1f}, {best['high_ms'] * 1e3:.1f}]"
                yield f"{model} batch {batch} {name}: {micro} us on the GPU{ratio}"


if __name__ == "__main__":
    sys.exit(main())
