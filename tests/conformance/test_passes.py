"""Rules for every pass; a new file in `passes/` is tested automatically."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from tests.conftest import Once

from lmconv.building.optimise import optimise
from lmconv.errors import UsageError
from lmconv.faces.calibration import calibration_inputs
from lmconv.graph.facts import static_shapes
from lmconv.opsets.versions import opset_of
from lmconv.plugins import PASSES, TARGETS
from lmconv.sources import export
from lmconv.sources import resolve as source
from lmconv.synthetic.folder import write
from lmconv.types import Float32, ModelSpec, Pass, PassContext

SCHEME = TARGETS.load("onnx").quantisation


@pytest.fixture(scope="module")
def exported(tiny: Path) -> tuple[onnx.ModelProto, ModelSpec]:
    network = source.resolve(str(tiny))
    return export.export(network)[0], network.spec


@pytest.fixture(scope="module")
def faces(exported: tuple[onnx.ModelProto, ModelSpec], once: Once) -> Float32:
    """Drawn faces as inputs of the network, for calibrated passes."""
    folder = once("calibration", lambda place: write(place, {"trainset": 12}))
    return calibration_inputs(folder, exported[1])


@pytest.fixture(params=PASSES.names())
def step(request: pytest.FixtureRequest) -> Pass:
    return PASSES.load(request.param)


@pytest.fixture
def context(step: Pass, exported: tuple[onnx.ModelProto, ModelSpec], request: pytest.FixtureRequest) -> PassContext:
    crops = request.getfixturevalue("faces") if step.calibrated else None
    return PassContext(spec=exported[1], scheme=SCHEME, crops=crops, compact_px=0.5 if step.calibrated else None)


def test_a_pass_has_a_name_a_summary_and_a_tolerance(step: Pass) -> None:
    assert step.name in PASSES.names()
    assert step.summary
    assert 0 <= step.tolerance < 1
    assert callable(step.apply)


def test_a_calibrated_pass_without_faces_is_refused(step: Pass, exported: tuple[onnx.ModelProto, ModelSpec]) -> None:
    if not step.calibrated:
        return
    with pytest.raises(UsageError, match="--calibration"):
        optimise(exported[0], [step.name], PassContext(spec=exported[1], scheme=SCHEME))


def test_a_small_graph_stays_within_the_tolerance_of_the_pass(
    step: Pass, exported: tuple[onnx.ModelProto, ModelSpec], context: PassContext
) -> None:
    model, _ = exported
    before = model.SerializeToString()
    result = optimise(model, [step.name], context)
    assert result.recipe[0]["refused"] is None
    assert not any("left out" in warning for warning in result.warnings)
    assert model.SerializeToString() == before, "the graph that was given must not be changed"


def test_names_and_shapes_of_inputs_and_outputs_stay(
    step: Pass, exported: tuple[onnx.ModelProto, ModelSpec], context: PassContext
) -> None:
    model, _ = exported
    result = optimise(model, [step.name], context).model
    assert list(result.graph.input) == list(model.graph.input)
    assert list(result.graph.output) == list(model.graph.output)
    assert opset_of(result) == (step.opset or opset_of(model))
    assert static_shapes(result)["landmarks"] == (1, 68, 2)
    onnx.checker.check_model(result, full_check=True)


def test_a_pass_writes_the_same_bytes_twice(
    step: Pass, exported: tuple[onnx.ModelProto, ModelSpec], context: PassContext
) -> None:
    model, _ = exported
    first, second = (
        optimise(model, [step.name], context).model.SerializeToString(deterministic=True) for _ in range(2)
    )
    assert first == second
