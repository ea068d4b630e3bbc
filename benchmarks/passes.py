"""What each rewrite does to each network: `python benchmarks/passes.py OUT [NETWORK...]`.

Prints a Markdown table: time before and after, and their ratio, for every pass that changes a network, one thread,
batch 1, before and after in turn in one run; the median of the ratios of neighbouring runs with its 95 %
order-statistic interval; the largest difference of a landmark. Networks without trained weights get seeded random ones,
`leftovers` is written here, and folders with a plain graph in `plain/` may be named too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lmconv.building.optimise import optimise
from lmconv.building.plain import plain_graph
from lmconv.building.recipe import PRECISION_PASSES
from lmconv.building.target_graph import with_batch
from lmconv.faces.calibration import calibration_inputs
from lmconv.graph.facts import set_batch
from lmconv.graph.rewriter import make
from lmconv.inference.latency import interleaved, latency
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import landmarks, noise
from lmconv.machine import this_cpu
from lmconv.plugins import TARGETS
from lmconv.sources import resolve as source
from lmconv.sources.resolve import resolve
from lmconv.store import artifact
from lmconv.targets import openvino
from lmconv.types import OPSET, Float32, Float64, ModelSpec, PassContext, Precision, Session, landmark_spec
from lmconv.visual.tables import markdown

REWRITES = ("dead", "batchnorm", "resize", "activations", "prelu", "gates")
DEFAULT = "its default list"
STATIC = "static batch"
HEADER = ["network", "target", "pass", "before, ms", "after, ms", "before / after", "largest difference"]
Measured = tuple[onnx.ModelProto, onnx.ModelProto, str]


def main() -> None:
    """Measures and prints; see the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--to", action="append", choices=["onnx", "openvino"])
    parser.add_argument("--precision", type=Precision, default=Precision.FP32)
    parser.add_argument("--faces", type=Path, help="to calibrate int8 on")
    parser.add_argument("--seconds", type=float, default=4.0, help="of timing for each row")
    settings = parser.parse_args()
    rows = []
    for name in settings.networks or [*source.names("landmarks"), "leftovers"]:
        model, spec = network(name, settings.out)
        for target in settings.to or ["onnx", "openvino"]:
            for before, after, label in pairs(model, spec, target, settings):
                rows.append(row(name, spec, target, (before, after, label), settings))
                print("  ".join(rows[-1]), file=sys.stderr, flush=True)
    print(markdown(HEADER, rows))


def network(name: str, out: Path) -> tuple[onnx.ModelProto, ModelSpec]:
    """The plain graph of a network, made once and kept in `out`; what it computes."""
    if name == "leftovers":
        return leftovers()
    if (folder := Path(name) / "plain").is_dir():
        return onnx.load(folder / "model.onnx"), artifact.read(folder).spec
    base = plain_graph(resolve(name, seed=0), out)
    return base.model, base.artifact.spec


def pairs(model: onnx.ModelProto, spec: ModelSpec, target: str, settings: argparse.Namespace) -> Iterator[Measured]:
    """Graphs before and after each pass that changes this one, each brought to the precision; one batch size or any."""
    plugin = TARGETS.load(target)
    calibrated = settings.precision == Precision.INT8
    crops = calibration_inputs(settings.faces, spec) if calibrated else None
    context = PassContext(spec=spec, crops=crops, scheme=plugin.scheme(this_cpu()))
    lower = PRECISION_PASSES.get(settings.precision, ())
    lowered = optimise(model, lower, context).model
    for label, names in {**{name: (name,) for name in REWRITES}, DEFAULT: plugin.rewrites[settings.precision]}.items():
        changed = optimise(model, names, context).model
        if changed.graph.node != model.graph.node or changed.graph.output != model.graph.output:
            yield lowered, optimise(changed, lower, context).model, label
    if target == "openvino" and spec.batch is None:
        one = onnx.ModelProto()
        one.CopyFrom(lowered)
        set_batch(one, 1)
        yield lowered, one, STATIC


def row(name: str, spec: ModelSpec, target: str, measured: Measured, settings: argparse.Namespace) -> list[str]:
    """Times the two graphs in turn."""
    before, after, label = measured
    inputs = noise(spec, 4, 1)
    with ExitStack() as stack:
        folder = settings.out / "passes"
        fixed = label != STATIC
        sessions = [
            stack.enter_context(opened(graph, spec, target, folder / side, settings.precision, fixed=fixed))
            for side, graph in (("before", before), ("after", after))
        ]
        apart = np.abs(np.subtract(*(points(session, spec, inputs) for session in sessions))).max()
        runs = [partial(session.run, {"input": inputs[:1]}) for session in sessions]
        times = timed(runs, settings.seconds)
    ratios = latency(times[0] / times[1])
    middle = [f"{np.median(each):.3f}" for each in times]
    change = f"{ratios.median_ms:.3f} [{ratios.low_ms:.3f}, {ratios.high_ms:.3f}]"
    return [Path(name).name, f"{target} {settings.precision}", label, *middle, change, f"{apart:.1e}"]


def points(session: Session, spec: ModelSpec, inputs: Float32) -> Float32:
    """Landmarks of inputs one by one, as a graph may be tied to one."""
    return np.concatenate([landmarks(session, spec, inputs[index : index + 1]) for index in range(len(inputs))])


def timed(runs: Sequence[Callable[[], object]], seconds: float) -> Float64:
    """As often as fits into this time, at least 64 times each, at most 1000: (2, samples) float64, milliseconds."""
    trial = interleaved(runs, 3).min(axis=1).sum() / 1e3
    return interleaved(runs, int(np.clip(seconds / trial, 64, 1000)))


def opened(
    graph: onnx.ModelProto, spec: ModelSpec, target: str, folder: Path, precision: Precision, *, fixed: bool
) -> Session:
    """A session on one thread; `fixed` lets OpenVINO tie it to one input, as exports do."""
    if target == "onnx":
        return OrtSession(graph.SerializeToString(), threads=1)
    folder.mkdir(parents=True, exist_ok=True)
    tied = spec if fixed else with_batch(spec, 1)  # then `build` leaves the graph as it is
    built = openvino.build(graph, folder, tied, precision)
    free = openvino.free_inputs(spec) if openvino.STATIC in built.execution else ()
    return openvino.OpenVinoSession(folder / "model.xml", built.execution[openvino.HINT], 1, free)


def leftovers() -> tuple[onnx.ModelProto, ModelSpec]:
    """A network with what the others no longer have: BatchNorms of all kinds, indices, a Dropout, a second output."""
    random = np.random.default_rng(0)
    held: dict[str, np.ndarray] = {"shape": np.array([-1, 68, 2])}

    def weight(name: str, *shape: int) -> str:
        held[name] = (random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        return name

    def norm(x: str, y: str, channels: int) -> onnx.NodeProto:
        for part in ("gamma", "beta", "mean", "variance"):
            held[f"{y}.{part}"] = random.uniform(0.5, 1.5, channels).astype(np.float32)
        return make("BatchNormalization", [x, *(f"{y}.{part}" for part in ("gamma", "beta", "mean", "variance"))], y)

    nodes = [
        make("Conv", ["input", weight("w0", 32, 3, 3, 3)], "stem", strides=[2, 2], pads=[1] * 4),
        norm("stem", "normed", 32),
        make("Relu", ["normed"], "active"),
        helper.make_node(
            "MaxPool", ["active"], ["pooled", "indices"], name="pool", kernel_shape=[2, 2], strides=[2, 2]
        ),
        make("Conv", ["pooled", weight("w1", 32, 1, 3, 3)], "deep", group=32, pads=[1] * 4),
        norm("deep", "deeper", 32),
        make("Relu", ["deeper"], "wide"),
        norm("wide", "scaled", 32),
        make("Conv", ["scaled", weight("w2", 64, 32, 1, 1)], "pointwise"),
        make("Relu", ["pointwise"], "low"),
        make("ConvTranspose", ["low", weight("w3", 64, 32, 2, 2)], "up", strides=[2, 2]),
        norm("up", "upper", 32),
        make("Relu", ["upper"], "high"),
        make("Conv", ["high", weight("w4", 32, 32, 3, 3)], "map", strides=[2, 2], pads=[1] * 4),
        norm("map", "last", 32),
        make("Dropout", ["last"], "dropped"),
        make("Flatten", ["dropped"], "flat"),
        make("Gemm", ["flat", weight("w5", 128, 32 * 28 * 28)], "features", transB=1),
        norm("features", "embedding", 128),
        make("Gemm", ["embedding", weight("w6", 136, 128)], "points", transB=1),
        make("Reshape", ["points", "shape"], "landmarks"),
    ]
    spec = landmark_spec("leftovers", "onnx", size=(112, 112), landmarks=68)
    shapes: dict[str, list[str | int | None]] = {
        "input": ["N", 3, 112, 112],
        "landmarks": ["N", 68, 2],
        "map": ["N", 32, 28, 28],
    }
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    tensors = [numpy_helper.from_array(value, name) for name, value in held.items()]
    outputs = [values["landmarks"], values["map"]]
    graph = helper.make_graph(nodes, "leftovers", [values["input"]], outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10), spec


if __name__ == "__main__":
    main()
