"""Models of older opsets compute the same numbers in an opset of the hub, in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from tests.converter.opsets import old
from tests.converter.opsets.building import computed, copied

from lmconv.errors import InputError
from lmconv.opsets.hub import to_hub
from lmconv.opsets.versions import opset_of

IMAGES = np.random.default_rng(1).standard_normal((2, 4, 6, 6)).astype(np.float32)
SAMPLE = (7, 9, 10, 13)
"""Opsets of the fast tests: each of these, or an opset up to the next one, changed many operators."""


def raised(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of a model in an opset of the hub; asserts that ONNX's checker accepts the copy."""
    result = to_hub(copied(model), "old.onnx")
    result.ir_version = 10
    expected = computed(model, IMAGES)
    result.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, expected.shape))
    onnx.checker.check_model(result, full_check=True)
    return result


@pytest.mark.parametrize("name", old.CASES)
def test_an_operator_of_an_older_opset_computes_the_same_in_opset_18(name: str) -> None:
    assert_same(name, SAMPLE)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", old.CASES)
def test_an_operator_of_any_older_opset_computes_the_same_in_opset_18(name: str) -> None:
    assert_same(name, old.OPSETS)


def assert_same(name: str, among: Sequence[int]) -> None:
    """Asserts that models of some opsets compute the same in opset 18."""
    for opset in old.opsets(name, among):
        model = old.written(name, opset)
        result = raised(model)
        assert opset_of(result) == 18
        np.testing.assert_allclose(computed(result, IMAGES), computed(model, IMAGES), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in old.CASES if old.opsets(name, [9])])
def test_an_older_operator_computes_the_same_with_a_free_batch(name: str) -> None:
    model = old.written(name, 9)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    expected = computed(model, IMAGES)
    np.testing.assert_allclose(computed(to_hub(model, "old.onnx"), IMAGES), expected, rtol=1e-6, atol=1e-6)


def test_weights_among_the_inputs_stay_constants() -> None:
    model = old.written("upsample_linear", 9)
    expected = computed(model, IMAGES)
    model.ir_version = 3
    np.testing.assert_array_equal(computed(to_hub(model, "old.onnx"), IMAGES), expected)


@pytest.mark.parametrize("opset", range(18, 25))
def test_an_opset_of_the_hub_is_kept(opset: int) -> None:
    model = old.written("activations", 17)
    model.opset_import[0].version = opset
    before = model.SerializeToString()
    assert to_hub(model, "new.onnx").SerializeToString() == before


def test_a_scan_of_a_batch_is_refused_with_its_node_and_both_opsets() -> None:
    model = old.written("scan", 9)
    model.opset_import[0].version = 8
    with pytest.raises(InputError) as refused:
        to_hub(model, "scan.onnx")
    for part in ("scan.onnx: node last (Scan), of opset 8,", "opset 18", "export the network with opset 18 or later"):
        assert part in str(refused.value)


def test_a_node_that_the_converter_refuses_is_named() -> None:
    model = old.written("batchnorm", 9)
    node = model.graph.node[0]
    node.output.extend(["mean", "variance", "saved_mean", "saved_variance"])
    node.name = "bn"
    model.graph.output.append(onnx.helper.make_tensor_value_info("saved_mean", onnx.TensorProto.FLOAT, [4]))
    with pytest.raises(InputError, match=r"node bn \(BatchNormalization\), of opset 9, cannot be brought to opset 18"):
        to_hub(model, "old.onnx")
