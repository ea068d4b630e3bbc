"""What has to hold of every network that was compacted, each as a function that asserts it."""

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
"""Of an output's largest value: what reassociation may cost; in float64, where nothing else makes a difference."""

ILL = 1e-3
"""A rounding error of the original beyond which the generator is to blame."""

ROUNDING = 8
"""Times what a float32 runtime is off on the original it may be off on the result: other kernels, another order."""


class Report(Protocol):
    """What a pass says about a layer; a `lmconv.compaction.LayerReport`."""

    @property
    def name(self) -> str: ...
    @property
    def channels(self) -> tuple[int, int]: ...
    @property
    def dead(self) -> int: ...
    @property
    def kept(self) -> Mapping[str, int]: ...


def images(generated: Generated) -> Arrays:
    """(3, 3, H, W) float32: noise in [0, 1) twice, and once in [-50, 50), which wakes what noise leaves asleep."""
    noise = np.random.default_rng(0).random((3, 3, *generated.recipe.size))
    noise[2] = 100 * noise[2] - 50
    return {"input": noise.astype(np.float32)}


def gap(found: Arrays, expected: Arrays) -> float:
    """The largest difference of any output for any image, in units of the largest value there."""
    assert list(found) == list(expected)
    worst = 0.0
    for name, values in expected.items():
        assert found[name].shape == values.shape
        axes = tuple(range(1, values.ndim))
        scale = np.maximum(np.abs(values).max(axes, initial=0), 1e-30)
        worst = max(worst, float((np.abs(found[name] - values).max(axes, initial=0) / scale).max()))
    return worst


def is_valid(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)


def has_the_interface_of(after: onnx.ModelProto, before: onnx.ModelProto) -> None:
    """Names, order, shapes and types of inputs and outputs, and the opset."""
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    assert list(after.opset_import) == list(before.opset_import)


def agrees(after: onnx.ModelProto, before: onnx.ModelProto, inputs: Arrays, exact: Arrays) -> None:
    """In float64 a graph gives what the original gave there, but for reassociation.

    A constant that is large beside the outputs is rounded to float32 where it is folded: no more is lost than the
    original loses in float32.
    """
    apart = gap(evaluate(after, inputs), exact)
    if apart > EXACT:
        assert apart <= gap(OrtSession(before.SerializeToString(), threads=1).run(inputs), exact)


def runs_alike(after: onnx.ModelProto, before: onnx.ModelProto, inputs: Arrays, exact: Arrays) -> None:
    """In ONNX Runtime, which rounds on the way, both are about as far from the exact answer; at batch 3 and 1."""
    one = OrtSession(before.SerializeToString(), threads=1)
    two = OrtSession(after.SerializeToString(), threads=1)
    for batch in (3, 1):
        given = {name: values[:batch] for name, values in inputs.items()}
        expected = {name: values[:batch] for name, values in exact.items()}
        rounding = gap(one.run(given), expected)
        assert rounding < ILL, "the network that was drawn cannot be judged"
        assert gap(two.run(given), expected) <= EXACT + ROUNDING * rounding


def is_explained(generated: Generated, layers: Sequence[Report], whole: Iterable[str]) -> None:
    """Of every layer, all that was planted is removed or kept for a reason.

    What follows from operators of a block, one of which was left `whole`, is explained by that; a zero filter is not,
    unless it is its own layer that was left.
    """
    reports = {layer.name: layer for layer in layers}
    whole = set(whole)
    left = {generated.blocks.get(name) for name in whole}
    for name in dict.fromkeys(planted.layer for planted in generated.planted if planted.layer not in whole):
        found = {one for one in generated.planted if one.layer == name and (one.zero or one.block not in left)}
        planted = {one.channel: one.kind for one in found}
        assert name in reports, f"{name}: nothing is said, planted is {planted}"
        report = reports[name]
        explained = report.channels[0] - report.channels[1] + sum(report.kept.values())
        assert min(explained, report.dead) >= len(planted), f"{report}: planted is {planted}"


def is_honest(before: onnx.ModelProto, after: onnx.ModelProto, layers: Sequence[Report]) -> None:
    """Reports give the numbers of channels that the graphs have."""
    was, now = channels(before), channels(after)
    for report in layers:
        assert report.channels[0] == was[report.name], report
        assert 0 <= report.channels[1] <= report.channels[0], report
        assert all(count > 0 for count in report.kept.values()), report
        if report.name in now:
            assert report.channels[1] == now[report.name], report


def is_no_larger(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    assert weights(after) <= weights(before)


def is_unchanged(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """The same nodes and the same constants."""
    assert list(after.graph.node) == list(before.graph.node)
    assert list(after.graph.initializer) == list(before.graph.initializer)


def constants(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Every constant by name, also of Constant nodes and behind an Identity."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Identity" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def weights(model: onnx.ModelProto) -> int:
    """How many floats the nodes of a graph read: what two of them share counts twice, as one may need it whole."""
    held = constants(model)
    readers = (node for node in model.graph.node if node.op_type != "Identity")
    read = [held[name] for node in readers for name in node.input if name in held]
    return sum(array.size for array in read if array.dtype == np.float32)


def channels(model: onnx.ModelProto) -> dict[str, int]:
    """How many channels each layer gives, by the name of its output."""
    held = constants(model)
    found = {}
    for node in model.graph.node:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        shape = held[node.input[1]].shape if len(node.input) > 1 and node.input[1] in held else ()
        if node.op_type == "Conv" or (node.op_type == "Gemm" and attributes.get("transB")):
            found[node.output[0]] = shape[0]
        elif node.op_type == "ConvTranspose":
            found[node.output[0]] = shape[1] * attributes.get("group", 1)
        elif node.op_type in ("Gemm", "MatMul") and shape:
            found[node.output[0]] = shape[-1]
    return found


def silenced(model: onnx.ModelProto, trap: Trap) -> onnx.ModelProto:
    """A copy in which a channel is zero: what a pass makes of it that takes the channel for dead."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    place, producer = next((i, node) for i, node in enumerate(copy.graph.node) if trap.tensor in node.output)
    heard, mask = f"{trap.tensor}_heard", f"{trap.tensor}_mask"
    producer.output[list(producer.output).index(trap.tensor)] = heard
    values = np.ones((trap.channels, 1, 1), np.float32)
    values[trap.channel] = 0
    copy.graph.initializer.append(numpy_helper.from_array(values, mask))
    copy.graph.node.insert(place + 1, helper.make_node("Mul", [heard, mask], [trap.tensor]))
    return copy
