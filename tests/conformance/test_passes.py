"""What every pass must do; a new file in `passes/` is tested by being there."""

from __future__ import annotations

import onnx
import pytest
from tests.helpers import tiny_onnx

from lmconv.building.optimise import optimise
from lmconv.errors import UsageError
from lmconv.graph.facts import static_shapes
from lmconv.plugins import PASSES, TARGETS
from lmconv.sources import export
from lmconv.sources import resolve as source
from lmconv.types import ModelSpec, Pass, PassContext

SCHEME = TARGETS.load("onnx").quantisation


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[onnx.ModelProto, ModelSpec]:
    path = tmp_path_factory.mktemp("source") / "tiny.onnx"
    path.write_bytes(tiny_onnx().SerializeToString())
    found = source.resolve(str(path))
    return export.export(found)[0], found.spec


@pytest.fixture(params=PASSES.names())
def step(request: pytest.FixtureRequest) -> Pass:
    return PASSES.load(request.param)


def test_it_says_what_it_does_and_what_it_may_change(step: Pass) -> None:
    assert step.name in PASSES.names()
    assert step.summary
    assert 0 <= step.tolerance < 1
    assert callable(step.apply)


def test_a_small_graph_stays_within_its_tolerance(step: Pass, exported: tuple[onnx.ModelProto, ModelSpec]) -> None:
    model, spec = exported
    context = PassContext(spec=spec, scheme=SCHEME)
    if step.calibrated:
        with pytest.raises(UsageError, match="--calibration"):
            optimise(model, [step.name], context)
        return
    before = model.SerializeToString()
    result = optimise(model, [step.name], context)
    assert result.warnings == []
    assert result.recipe[0]["refused"] is None
    assert model.SerializeToString() == before, "the graph that was given must not be changed"


def test_it_keeps_names_and_shapes_of_inputs_and_outputs(
    step: Pass, exported: tuple[onnx.ModelProto, ModelSpec]
) -> None:
    if step.calibrated:
        pytest.skip("needs faces")
    model, spec = exported
    result = optimise(model, [step.name], PassContext(spec=spec, scheme=SCHEME)).model
    assert list(result.graph.input) == list(model.graph.input)
    assert list(result.graph.output) == list(model.graph.output)
    assert {entry.domain: entry.version for entry in result.opset_import}[""] == step.opset
    assert static_shapes(result)["landmarks"] == (1, 68, 2)
    onnx.checker.check_model(result, full_check=True)


def test_it_gives_the_same_bytes_twice(step: Pass, exported: tuple[onnx.ModelProto, ModelSpec]) -> None:
    if step.calibrated:
        pytest.skip("needs faces")
    model, spec = exported
    first, second = (
        optimise(model, [step.name], PassContext(spec=spec, scheme=SCHEME)).model.SerializeToString(deterministic=True)
        for _ in range(2)
    )
    assert first == second
