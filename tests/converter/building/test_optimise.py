from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.helpers import SIZE, tiny_onnx

from lmconv.building.optimise import optimise
from lmconv.errors import GateFailed, UsageError
from lmconv.inference.session import noise
from lmconv.plugins import PASSES
from lmconv.types import Json, Pass, PassContext, landmark_spec

SPEC = landmark_spec("tiny", "onnx", size=(SIZE, SIZE), landmarks=68)
Apply = Callable[[onnx.ModelProto, PassContext], tuple[onnx.ModelProto, Json]]
Register = Callable[[Pass], None]


@pytest.fixture
def register() -> Iterator[Register]:
    """Adds a pass to the registered passes, by its name."""
    with ExitStack() as stack:
        yield lambda step: stack.enter_context(PASSES.using(**{step.name: step}))


@pytest.fixture
def model() -> onnx.ModelProto:
    """The tiny network in the form that the pipeline has between export and target."""
    model = tiny_onnx(opset=18)
    model.ir_version = 10
    for value, name in ((model.graph.input[0], "input"), (model.graph.output[0], "flat")):
        value.name = name
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    model.graph.node[0].input[0] = "input"
    model.graph.node[-1].output[0] = "flat"
    shape = numpy_helper.from_array(np.array([-1, 68, 2], np.int64), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.append(onnx.helper.make_node("Reshape", ["flat", "shape"], ["landmarks"], name="points"))
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info("landmarks", onnx.TensorProto.FLOAT, ["N", 68, 2]))
    return model


def scaled(factor: float) -> Apply:
    """Returns the function of a pass that multiplies the weights of the last layer."""

    def apply(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
        for tensor in model.graph.initializer:
            if tensor.name == "fc.weight":
                values = numpy_helper.to_array(tensor) * np.float32(factor)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return model, {"factor": factor}

    return apply


def step(name: str, apply: Apply, **settings: object) -> Pass:
    fields = {"tolerance": 1e-6, "summary": "for a test", **settings}
    return Pass(name=name, apply=apply, **fields)  # type: ignore[arg-type]


def test_a_pass_within_its_tolerance_is_kept_with_its_decisions(model: onnx.ModelProto, register: Register) -> None:
    register(step("gentle", scaled(1.0001), tolerance=1e-3))
    result = optimise(model, ["gentle"], PassContext(spec=SPEC))
    assert result.recipe == [{"pass": "gentle", "decisions": {"factor": 1.0001}, "refused": None}]
    assert result.warnings == []
    assert result.model.SerializeToString() != model.SerializeToString()


def test_an_optional_pass_that_changes_results_is_left_out_and_named(
    model: onnx.ModelProto, register: Register
) -> None:
    register(step("rough", scaled(1.01)))
    before = model.SerializeToString()
    result = optimise(model, ["rough"], PassContext(spec=SPEC))
    assert result.model.SerializeToString() == before
    assert len(result.warnings) == 1
    assert "pass rough is left out: landmarks move by" in result.warnings[0]
    assert "allowed 1e-06" in result.recipe[0]["refused"]


def test_a_required_pass_that_changes_results_raises_an_error(model: onnx.ModelProto, register: Register) -> None:
    register(step("rough", scaled(1.01), required=True))
    with pytest.raises(GateFailed, match="pass rough is refused: landmarks move by"):
        optimise(model, ["rough"], PassContext(spec=SPEC))


def test_a_pass_after_a_refused_pass_starts_from_the_graph_before_the_refused_pass(
    model: onnx.ModelProto, register: Register
) -> None:
    register(step("rough", scaled(1.01)))
    register(step("gentle", scaled(1.0001), tolerance=1e-3))
    alone = optimise(model, ["gentle"], PassContext(spec=SPEC))
    both = optimise(model, ["rough", "gentle"], PassContext(spec=SPEC))
    assert both.model.SerializeToString() == alone.model.SerializeToString()
    assert [entry["refused"] is None for entry in both.recipe] == [False, True]


def test_a_pass_is_not_blamed_for_the_change_of_an_earlier_pass(model: onnx.ModelProto, register: Register) -> None:
    register(step("rough", scaled(1.01), tolerance=1e-1))
    register(step("innocent", scaled(1.0)))
    assert optimise(model, ["rough", "innocent"], PassContext(spec=SPEC)).warnings == []


def test_nan_is_never_within_a_tolerance(model: onnx.ModelProto, register: Register) -> None:
    register(step("broken", scaled(float("nan")), tolerance=1e9))
    assert "pass broken" in optimise(model, ["broken"], PassContext(spec=SPEC)).warnings[0]


def test_an_optional_pass_that_fails_is_left_out_with_the_reason(model: onnx.ModelProto, register: Register) -> None:
    def fail(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
        del model.graph.node[:]
        raise RuntimeError("an unknown operator\nand much more")

    register(step("fragile", fail))
    before = model.SerializeToString()
    result = optimise(model, ["fragile"], PassContext(spec=SPEC))
    assert result.warnings == ["pass fragile is left out: it failed with RuntimeError: an unknown operator"]
    assert result.model.SerializeToString() == before


def test_a_pass_with_an_invalid_result_is_refused(model: onnx.ModelProto, register: Register) -> None:
    def mangle(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
        model.graph.node[1].input[0] = "nothing"
        return model, {}

    register(step("mangle", mangle))
    assert "pass mangle is left out: it failed with" in optimise(model, ["mangle"], PassContext(spec=SPEC)).warnings[0]


def test_a_pass_that_raises_the_opset_is_refused(model: onnx.ModelProto, register: Register) -> None:
    def raise_opset(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
        model.opset_import[0].version = 19
        return model, {}

    register(step("newer", raise_opset))
    assert "it gives opset 19, not 18" in optimise(model, ["newer"], PassContext(spec=SPEC)).warnings[0]


def test_a_pass_is_judged_on_crops_if_crops_are_given(model: onnx.ModelProto, register: Register) -> None:
    # Only a black input shows this change: its landmarks depend on the biases only.
    def shift(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
        for tensor in model.graph.initializer:
            if tensor.name == "conv.bias":
                values = numpy_helper.to_array(tensor) + np.float32(1)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return model, {}

    register(step("calibrated", shift, tolerance=1e-4, calibrated=True))
    crops = noise(SPEC, 40, 5)
    with_crops = optimise(model, ["calibrated"], PassContext(spec=SPEC, crops=crops))
    assert "pass calibrated is left out" in with_crops.warnings[0]


def test_a_calibrated_pass_is_not_judged_on_noise(model: onnx.ModelProto, register: Register) -> None:
    seen = []

    def look(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
        assert context.crops is not None
        seen.append(context.crops.shape)
        return scaled(1.01)(model, context)

    register(step("calibrated", look, calibrated=True))
    black = np.full((40, 3, SIZE, SIZE), -1e3, np.float32)  # every unit of the network is off or saturated
    for tensor in model.graph.initializer:
        if tensor.name == "conv.weight":
            tensor.CopyFrom(numpy_helper.from_array(np.abs(numpy_helper.to_array(tensor)), tensor.name))
    result = optimise(model, ["calibrated"], PassContext(spec=SPEC, crops=black))
    assert seen == [(40, 3, SIZE, SIZE)]
    assert result.warnings == []


def test_a_calibrated_pass_without_faces_is_refused_before_it_runs(model: onnx.ModelProto, register: Register) -> None:
    def never(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
        pytest.fail("the pass ran")

    register(step("calibrated", never, calibrated=True))
    with pytest.raises(UsageError, match=r"calibrated needs faces .*--calibration"):
        optimise(model, ["calibrated"], PassContext(spec=SPEC))


def test_tolerances_are_fractions_for_every_unit_of_the_network(model: onnx.ModelProto, register: Register) -> None:
    register(step("rough", scaled(1.5), tolerance=1e-3))
    pixels = replace(SPEC, decode="pixels")
    assert optimise(model, ["rough"], PassContext(spec=SPEC)).warnings
    assert not optimise(model, ["rough"], PassContext(spec=pixels)).warnings
