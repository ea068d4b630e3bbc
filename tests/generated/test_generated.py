"""Compaction of random networks: planted channels are removed or explained, traps stay.

Every run tries a sample of the networks. LMCONV_NETWORKS says how many `make exhaustive` tries, 500 by default.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.generated import properties
from tests.generated.float64 import evaluate
from tests.generated.networks import Generated, Recipe, Step, build, contents, over, sample, table
from tests.generated.properties import gap, images, silenced
from tests.generated.registry import BLOCKS, HEADS

from lmconv.compaction.compact import Compacted, compact
from lmconv.targets.openvino import OpenVinoSession
from lmconv.types import Arrays

QUICK, FEW, SOME = 20, 60, 120
MANY = int(os.environ.get("LMCONV_NETWORKS", "500"))
LARGE = [pytest.param(SOME, marks=pytest.mark.slow), pytest.param(MANY, marks=pytest.mark.exhaustive)]
RARE = 0.02
"""Smallest share of networks with each kind of block; half of this share for planted channels and traps."""
JUDGED = ("block", "clean", "head", "planted", "trap")
EVERY = 25
"""Every n-th network also runs in OpenVINO."""


def outputs_left_whole(compacted: Compacted) -> list[str]:
    return [name for names in compacted.whole.values() for name in names]


def holds(generated: Generated) -> None:
    """Asserts all properties of one network."""
    before = generated.model
    serialised = before.SerializeToString(deterministic=True)
    compacted = compact(before)
    after = compacted.model
    assert before.SerializeToString(deterministic=True) == serialised, "compact changed its argument"
    properties.is_valid(after)
    properties.has_the_interface_of(after, before)
    inputs = images(generated)
    exact = evaluate(before, inputs)
    properties.agrees(after, before, inputs, exact)
    properties.runs_alike(after, before, inputs, exact)
    properties.is_explained(generated, compacted.layers, outputs_left_whole(compacted))
    properties.is_honest(before, after, compacted.layers)
    properties.is_no_larger(before, after)
    properties.is_unchanged(after, compact(after).model)
    if generated.clean:
        properties.is_unchanged(before, after)


@pytest.mark.parametrize("count", [QUICK, *LARGE])
def test_every_property_holds_of_every_network(count: int) -> None:
    over(count, holds)


@pytest.mark.parametrize("count", LARGE)
def test_openvino_gives_the_same(tmp_path: Path, count: int) -> None:
    def run(model: onnx.ModelProto, inputs: Arrays) -> Arrays:
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        outputs = OpenVinoSession(path, "f32", 1).run(inputs)
        return dict(zip((value.name for value in model.graph.output), outputs.values(), strict=True))

    judged = 0
    for generated in sample(count)[::EVERY]:
        inputs = {name: values[:2] for name, values in images(generated).items()}
        exact = evaluate(generated.model, inputs)
        try:
            before = run(generated.model, inputs)
        except RuntimeError:  # OpenVINO does not support every operator
            continue
        wrong = any(before[name].shape != values.shape for name, values in exact.items())
        if wrong or gap(before, exact) > properties.ILL:
            continue  # OpenVINO computes a few of the original networks wrongly
        judged += 1
        after = run(compact(generated.model).model, inputs)
        assert gap(after, exact) <= properties.EXACT + properties.ROUNDING * gap(before, exact), generated.recipe
    assert judged >= 0.7 * count / EVERY


@pytest.mark.exhaustive
def test_no_kind_is_rare() -> None:
    drawn = sample(MANY)
    counts = Counter(item for generated in drawn for item in contents(generated))
    assert {name for heading, name in counts if heading == "block"} == set(BLOCKS)
    assert {name for heading, name in counts if heading == "head"} == set(HEADS)
    rare = {(heading, name): RARE if heading in ("block", "head", "clean") else RARE / 2 for heading, name in counts}
    rare = {item: share for item, share in rare.items() if item[0] in JUDGED and counts[item] < share * len(drawn)}
    assert not rare, table(counts, len(drawn))


@pytest.mark.slow
def test_removing_the_channel_of_a_trap_changes_the_outputs() -> None:
    counts, caught = Counter[str](), Counter[str]()
    for generated in sample(FEW):
        inputs = images(generated)
        exact = evaluate(generated.model, inputs)
        for trap in generated.traps:
            counts[trap.kind] += 1
            wrong = silenced(generated.model, trap)
            caught[trap.kind] += gap(evaluate(wrong, inputs), exact) > properties.EXACT
    assert caught.total() >= 0.98 * counts.total(), counts - caught
    assert len(counts) >= 20


@pytest.mark.slow
def test_networks_depend_on_their_input() -> None:
    exact = [evaluate(generated.model, images(generated))["landmarks"] for generated in sample(FEW)]
    differences = [gap({"landmarks": values[:1]}, {"landmarks": values[1:2]}) for values in exact]
    assert np.mean(np.array(differences) > 1e-4) > 0.95


PADDED = Recipe(
    seed=0,
    size=(8, 8),
    channels=4,
    constants="initializer",
    named=True,
    shapes=False,
    blocks=(Step("pair", act="none", kernel=3, padding="zero", norm=False, plan="constant"),),
    head=Step("maps", act="none", bias=True, plan="nothing"),
)


def test_a_constant_folded_through_zero_padding_fails_the_comparison() -> None:
    generated = build(PADDED)
    wrong = onnx.ModelProto()
    wrong.CopyFrom(generated.model)
    initializers = {tensor.name: tensor for tensor in wrong.graph.initializer}
    trap = generated.traps[0]
    producer = next(node for node in wrong.graph.node if trap.tensor in node.output)
    reader = next(node for node in wrong.graph.node if trap.tensor in node.input)
    value = numpy_helper.to_array(initializers[producer.input[2]])[trap.channel]
    weight, bias = (numpy_helper.to_array(initializers[name]).copy() for name in reader.input[1:])
    bias += value * weight[:, trap.channel].sum((1, 2))
    weight[:, trap.channel] = 0
    for name, values in zip(reader.input[1:], (weight, bias), strict=True):
        initializers[name].CopyFrom(numpy_helper.from_array(values, name))
    inputs = images(generated)
    with pytest.raises(AssertionError):
        properties.agrees(wrong, generated.model, inputs, evaluate(generated.model, inputs))


def test_dead_channels_without_a_report_fail_the_check() -> None:
    generated = build(PADDED)
    with pytest.raises(AssertionError, match="no report"):
        properties.is_explained(generated, layers=[], whole=[])


def test_a_recipe_prints_as_the_python_code_that_makes_it() -> None:
    assert build(eval(repr(PADDED))).model == build(PADDED).model  # noqa: S307
