"""Graphs of opset 19 to 24 in operators that TensorRT reads compute the same."""

from __future__ import annotations

import numpy as np
import pytest
from tests.converter.opsets.building import computed, copied, model, node, normal

from lmconv.engines.lint import complaints
from lmconv.errors import GateFailed
from lmconv.opsets.versions import opset_of
from lmconv.passes import definitions, opset17
from lmconv.types import PassContext, landmark_spec

SPEC = landmark_spec("small", "small", size=(6, 6), landmarks=2)
IMAGES = normal(2, 4, 6, 6, seed=1)
CASES = {
    "Attention": model([node("Attention", ["x", "x", "x"], ["y"], is_causal=1)], opset=23),
    "RotaryEmbedding": model(
        [node("RotaryEmbedding", ["x", "c", "s"], ["y"])], opset=23, c=normal(2, 6, 3), s=normal(2, 6, 3, seed=2)
    ),
    "Swish": model([node("Swish", ["x"], ["y"], alpha=1.5)], opset=24),
}
LATER = {
    **CASES,
    "Gelu": model([node("Gelu", ["x"], ["y"])], opset=20),
    "GroupNormalization": model(
        [node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)], opset=21, s=normal(4), b=normal(4, seed=2)
    ),
    "RMSNormalization": model([node("RMSNormalization", ["x", "s"], ["y"])], opset=23, s=normal(6)),
}
for case in LATER.values():  # a graph between export and target declares the shape of its output
    case.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    shape = computed(case, IMAGES).shape
    for side in shape:
        case.graph.output[0].type.tensor_type.shape.dim.add().dim_value = side


@pytest.mark.parametrize("name", CASES)
def test_an_operator_that_tensorrt_10_lacks_is_written_out(name: str) -> None:
    result, decisions = definitions.plugin.apply(copied(CASES[name]), PassContext(spec=SPEC))
    assert decisions == {"written_out": {name: 1}}
    assert opset_of(result) == opset_of(CASES[name])
    assert complaints(result, 10) == []
    np.testing.assert_allclose(computed(result, IMAGES), computed(CASES[name], IMAGES), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", LATER)
def test_a_later_opset_is_lowered_to_17_for_tensorrt_8(name: str) -> None:
    result, _ = opset17.plugin.apply(copied(LATER[name]), PassContext(spec=SPEC))
    assert opset_of(result) == 17
    assert complaints(result, 8) == []
    np.testing.assert_allclose(computed(result, IMAGES), computed(LATER[name], IMAGES), rtol=1e-5, atol=2e-6)


def test_an_operator_without_an_equivalent_in_opset_17_is_refused_by_name() -> None:
    made = node("DeformConv", ["x", "w", "o"], ["y"], name="layer")
    file = model([made], opset=19, w=normal(3, 4, 3, 3), o=normal(2, 18, 4, 4))
    with pytest.raises(GateFailed, match=r"node layer \(DeformConv\), of opset 19, has no equivalent .* TensorRT 10"):
        opset17.plugin.apply(file, PassContext(spec=SPEC))
