"""Properties of every compacted network; each function asserts one property."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from tests.generated.float64 import evaluate
from tests.generated.network import Trap
from tests.generated.networks import Generated

from lmconv.inference.ort import OrtSession
from lmconv.types import Arrays

EXACT = 1e-6
"""Largest difference caused by reassociation in float64, as a fraction of the largest value of an output."""

ILL = 1e-3
"""Largest rounding error of the original network; beyond it the generated network is ill-conditioned."""

ROUNDING = 8
"""Largest error of the compacted network in a float32 runtime, as a multiple of the error of the original network.

Other kernels sum in another order.
"""


class Report(Protocol):
    """Report of compaction about a layer: a `lmconv.compaction.compact.LayerReport`."""

    @property
    def name(self) -> str: ...
    @property
    def channels(self) -> tuple[int, int]: ...
    @property
    def dead(self) -> int: ...
    @property
    def kept(self) -> Mapping[str, int]: ...


def images(generated: Generated) -> Arrays:
    """(3, 3, H, W) float32: two images of noise in [0, 1), and one in [-50, 50) to activate rarely active channels."""
    noise = np.random.default_rng(0).random((3, 3, *generated.recipe.size))
    noise[2] = 100 * noise[2] - 50
    return {"input": noise.astype(np.float32)}


def gap(outputs: Arrays, expected: Arrays) -> float:
    """Largest difference over outputs and images, as a fraction of the largest value of output and image."""
    assert list(outputs) == list(expected)
    worst = 0.0
    for name, values in expected.items():
        assert outputs[name].shape == values.shape
        axes = tuple(range(1, values.ndim))
        scale = np.maximum(np.abs(values).max(axes, initial=0), 1e-30)
        worst = max(worst, float((np.abs(outputs[name] - values).max(axes, initial=0) / scale).max()))
    return worst


def is_valid(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)


def has_the_interface_of(after: onnx.ModelProto, before: onnx.ModelProto) -> None:
    """Inputs and outputs have the same names, order, shapes and types; the opset is the same."""
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    assert list(after.opset_import) == list(before.opset_import)


def agrees(after: onnx.ModelProto, before: onnx.ModelProto, inputs: Arrays, exact: Arrays) -> None:
    """In float64, the compacted graph computes the outputs of the original, except for reassociation.

    A large constant is rounded to float32 when it is folded; then the error is at most the float32 error of the
    original.
    """
    difference = gap(evaluate(after, inputs), exact)
    if difference > EXACT:
        assert difference <= gap(OrtSession(before.SerializeToString(), threads=1).run(inputs), exact)


def runs_alike(after: onnx.ModelProto, before: onnx.ModelProto, inputs: Arrays, exact: Arrays) -> None:
    """In ONNX Runtime (float32), both graphs have similar errors against float64, at batch sizes 3 and 1."""
    one = OrtSession(before.SerializeToString(), threads=1)
    two = OrtSession(after.SerializeToString(), threads=1)
    for batch in (3, 1):
        batch_inputs = {name: values[:batch] for name, values in inputs.items()}
        expected = {name: values[:batch] for name, values in exact.items()}
        rounding = gap(one.run(batch_inputs), expected)
        assert rounding < ILL, "the generated network is ill-conditioned and cannot be judged"
        assert gap(two.run(batch_inputs), expected) <= EXACT + ROUNDING * rounding


def is_explained(generated: Generated, layers: Sequence[Report], whole: Iterable[str]) -> None:
    """Every planted channel of a layer is removed, or kept for a reported reason.

    If an operator of a block is in `whole`, no report is needed for planted channels whose proof needs the block. A
    channel with a zero filter needs a report unless its own layer is in `whole`.
    """
    reports = {layer.name: layer for layer in layers}
    whole = set(whole)
    whole_blocks = {generated.blocks.get(name) for name in whole}
    for name in dict.fromkeys(planted.layer for planted in generated.planted if planted.layer not in whole):
        items = [item for item in generated.planted if item.layer == name]
        planted = {item.channel: item.kind for item in items if item.zero or item.block not in whole_blocks}
        assert name in reports, f"{name}: no report, planted is {planted}"
        report = reports[name]
        explained = report.channels[0] - report.channels[1] + sum(report.kept.values())
        assert min(explained, report.dead) >= len(planted), f"{report}: planted is {planted}"


def is_honest(before: onnx.ModelProto, after: onnx.ModelProto, layers: Sequence[Report]) -> None:
    """Reports have the same numbers of channels as the graphs."""
    channels_before, channels_after = channels(before), channels(after)
    for report in layers:
        assert report.channels[0] == channels_before[report.name], report
        assert 0 <= report.channels[1] <= report.channels[0], report
        assert all(count > 0 for count in report.kept.values()), report
        if report.name in channels_after:
            assert report.channels[1] == channels_after[report.name], report


def is_no_larger(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    assert weights(after) <= weights(before)


def is_unchanged(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """Both graphs have the same nodes and the same initializers."""
    assert list(after.graph.node) == list(before.graph.node)
    assert list(after.graph.initializer) == list(before.graph.initializer)


def constants(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Every constant by name, including Constant nodes and constants behind an Identity."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Identity" and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]]
    return values


def weights(model: onnx.ModelProto) -> int:
    """Number of float32 weights read by nodes; shared tensors count once per reader: compaction may copy a tensor."""
    values = constants(model)
    readers = (node for node in model.graph.node if node.op_type != "Identity")
    read = [values[name] for node in readers for name in node.input if name in values]
    return sum(array.size for array in read if array.dtype == np.float32)


def channels(model: onnx.ModelProto) -> dict[str, int]:
    """Number of output channels of each layer, by the name of the layer's output."""
    values = constants(model)
    counts = {}
    for node in model.graph.node:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        shape = values[node.input[1]].shape if len(node.input) > 1 and node.input[1] in values else ()
        if node.op_type == "Conv" or (node.op_type == "Gemm" and attributes.get("transB")):
            counts[node.output[0]] = shape[0]
        elif node.op_type == "ConvTranspose":
            counts[node.output[0]] = shape[1] * attributes.get("group", 1)
        elif node.op_type in ("Gemm", "MatMul") and shape:
            counts[node.output[0]] = shape[-1]
    return counts


def silenced(model: onnx.ModelProto, trap: Trap) -> onnx.ModelProto:
    """Copy of a graph in which the channel of a trap is zero, as after a pass that wrongly removes the channel."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    place, producer = next((i, node) for i, node in enumerate(copy.graph.node) if trap.tensor in node.output)
    unmasked, mask = f"{trap.tensor}_unmasked", f"{trap.tensor}_mask"
    producer.output[list(producer.output).index(trap.tensor)] = unmasked
    values = np.ones((trap.channels, 1, 1), np.float32)
    values[trap.channel] = 0
    copy.graph.initializer.append(numpy_helper.from_array(values, mask))
    copy.graph.node.insert(place + 1, helper.make_node("Mul", [unmasked, mask], [trap.tensor]))
    return copy
