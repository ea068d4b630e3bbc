"""Effect of each rewrite on each network: `python benchmarks/passes.py OUT [NETWORK...]`.

Prints a Markdown table with a row for every pass that changes a network: the time before and after the pass, on one
thread, at batch 1, warm, in one run, in processor time; the median of the ratios of paired blocks with its 95 %
order-statistic interval; the largest difference of a coordinate, not for int8, whose scales are rough. Networks without
trained weights get seeded random weights. NETWORK is a name, `leftovers` (a small network from this file), or a folder
with a plain graph in `plain/`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
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
from lmconv.graph.facts import copied, set_batch
from lmconv.graph.rewriter import make
from lmconv.inference.latency import faster, paced
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import landmarks, noise
from lmconv.machine import this_cpu
from lmconv.plugins import PASSES, TARGETS
from lmconv.sources import resolve as source
from lmconv.sources.resolve import resolve
from lmconv.store import artifact
from lmconv.targets import openvino
from lmconv.types import OPSET, Float32, ModelSpec, PassContext, Precision, Session, landmark_spec
from lmconv.visual.tables import markdown

REWRITES = ("linear", "dead", "batchnorm", "resize", "activations", "prelu", "gates")
DEFAULT = "its default list"
STATIC = "static batch"
ROUGH = {"crops": 4, "rough": True}
"""Options of the quantiser: only the speed of an int8 graph matters here."""
ROUNDS = 50
"""Largest number of rounds of blocks."""
HEADER = ["network", "target", "pass", "before, ms", "after, ms", "before / after", "largest difference"]
Measured = tuple[onnx.ModelProto, onnx.ModelProto, str]
"""Graph before and after a pass, and the name of the pass."""


def main() -> None:
    """Measures all passes and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--to", action="append", choices=["onnx", "openvino"])
    parser.add_argument("--precision", type=Precision, default=Precision.FP32)
    parser.add_argument("--faces", type=Path, help="faces for the calibration of int8")
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each row")
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
    """Returns the plain graph of a network, made once and kept in `out`, and its spec."""
    if name == "leftovers":
        return leftovers()
    if (folder := Path(name) / "plain").is_dir():
        return onnx.load(folder / "model.onnx"), artifact.read(folder).spec
    base = plain_graph(resolve(name, seed=0), out)
    return base.model, base.artifact.spec


def pairs(model: onnx.ModelProto, spec: ModelSpec, target: str, settings: argparse.Namespace) -> Iterator[Measured]:
    """Yields graphs before and after each pass that changes the network, and before and after fixing the batch size.

    Both graphs are in the precision of `settings`, and without denormal weights; `linear` merges every pair.
    """
    plugin = TARGETS.load(target)
    calibrated = settings.precision == Precision.INT8
    crops = calibration_inputs(settings.faces, spec) if calibrated else None
    context = PassContext(spec=spec, crops=crops, scheme=plugin.scheme(this_cpu()), settings=ROUGH)
    model = optimise(model, ["denormals"], context).model
    found = PASSES.load("linear").apply(copied(model), context)[1]
    context = replace(context, replay={"merged": [*found["merged"], *found["left"]], "left": []})
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
    """Times two graphs in one run; returns the cells of their row."""
    before, after, label = measured
    inputs = noise(spec, 4, 1)
    with ExitStack() as stack:
        folder = settings.out / "passes"
        fixed = label != STATIC
        sessions = [
            stack.enter_context(opened(graph, spec, target, folder / side, settings.precision, fixed=fixed))
            for side, graph in (("before", before), ("after", after))
        ]
        difference = np.abs(np.subtract(*(points(session, spec, inputs) for session in sessions))).max()
        runs = [partial(session.run, {"input": inputs[:1]}) for session in sessions]
        times = paced(runs, settings.seconds, ROUNDS, clock=TARGETS.load(target).clock)
    gain = faster(*times)
    middle = [f"{np.median(milliseconds):.3f}" for milliseconds in times]
    change = f"{gain.median:.3f} [{gain.low:.3f}, {gain.high:.3f}]"
    shown = "" if settings.precision == Precision.INT8 else f"{difference:.1e}"
    return [Path(name).name, f"{target} {settings.precision}", label, *middle, change, shown]


def points(session: Session, spec: ModelSpec, inputs: Float32) -> Float32:
    """Landmarks (n, L, 2) float32; inputs run one by one, because a graph may have the fixed batch size 1."""
    return np.concatenate([landmarks(session, spec, inputs[index : index + 1]) for index in range(len(inputs))])


def opened(
    graph: onnx.ModelProto, spec: ModelSpec, target: str, folder: Path, precision: Precision, *, fixed: bool
) -> Session:
    """Opens a graph on one thread; with `fixed`, OpenVINO gets a graph of batch size 1, as in an export."""
    if target == "onnx":
        return OrtSession(graph.SerializeToString(), threads=1)
    folder.mkdir(parents=True, exist_ok=True)
    build_spec = spec if fixed else with_batch(spec, 1)  # for a fixed batch `build` does not change the graph
    built = openvino.build(graph, folder, build_spec, precision)
    free = openvino.free_inputs(spec) if openvino.STATIC in built.execution else ()
    return openvino.OpenVinoSession(folder / "model.xml", built.execution[openvino.HINT], 1, free)


def leftovers() -> tuple[onnx.ModelProto, ModelSpec]:
    """A network with parts that no other network has: BatchNorms of all kinds, indices, a Dropout, a second output."""
    random = np.random.default_rng(0)
    initializers: dict[str, np.ndarray] = {"shape": np.array([-1, 68, 2])}

    def weight(name: str, *shape: int) -> str:
        initializers[name] = (random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        return name

    def norm(x: str, y: str, channels: int) -> onnx.NodeProto:
        for part in ("gamma", "beta", "mean", "variance"):
            initializers[f"{y}.{part}"] = random.uniform(0.5, 1.5, channels).astype(np.float32)
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
    tensors = [numpy_helper.from_array(value, name) for name, value in initializers.items()]
    outputs = [values["landmarks"], values["map"]]
    graph = helper.make_graph(nodes, "leftovers", [values["input"]], outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10), spec


if __name__ == "__main__":
    main()
