"""The finished artefact against its network: scale of the outputs, batch sizes, ties, and one limit with verify."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from lmconv.building.acceptance import Network, NotReproduced, accept
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import noise, outputs
from lmconv.plugins import TARGETS
from lmconv.store import artifact as artifacts
from lmconv.store import reference as reference_file
from lmconv.store.reference import Reference
from lmconv.types import Json, Precision, landmark_spec

SPEC = landmark_spec("tiny", "tiny", size=(16, 16), landmarks=4)
Accept = Callable[..., object]


def _model(body: str) -> onnx.ModelProto:
    """A network of 4 points; `body` computes `points` (N, 8) from `means` (N, 3)."""
    model: onnx.ModelProto = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 18]>
        tiny (float[N, 3, 16, 16] input) => (float[N, 4, 2] landmarks)
        <int64[2] axes = {{2, 3}}, int64[3] shape = {{-1, 4, 2}}, int64[1] start = {{0}}, int64[1] end = {{1}}> {{
            means = ReduceMean <keepdims = 0> (input, axes)
            wide = Concat <axis = 1> (means, means, means)
            sliced = Slice (wide, one, nine, one)
            {body}
            landmarks = Reshape (points, shape)
        }}"""
    )
    model.graph.initializer.extend(
        [onnx.numpy_helper.from_array(np.array([value]), name) for name, value in (("one", 1), ("nine", 9))]
    )
    return model


def _scaled(factor: float) -> onnx.ModelProto:
    return _model(f"factor = Constant <value = float[1] {{{factor}}}> () points = Mul (sliced, factor)")


@pytest.fixture
def accepted(tmp_path: Path) -> Accept:
    """Judges an artefact whose network is `source` and whose file is `model`."""

    def judge(source: onnx.ModelProto, model: onnx.ModelProto, precision: Precision = Precision.FP32) -> object:
        target, inputs = TARGETS.load("onnx"), noise(SPEC, 8, 0)
        with OrtSession(source.SerializeToString()) as session:
            reference = Reference(inputs={"input": inputs}, outputs=outputs(session, SPEC, inputs))
        folder = tmp_path / "artefact"
        folder.mkdir(exist_ok=True)
        target.build(model, folder, SPEC, precision, None)  # type: ignore[arg-type]  # options are for engines
        reference_file.write(folder, SPEC, reference)
        artifacts.write(folder, _manifest(precision))
        network = Network(spec=SPEC, open=lambda: OrtSession(source.SerializeToString()), graph=source)
        return accept(folder, target, reference, network)

    return judge


def _manifest(precision: Precision) -> Json:
    return {
        "spec": artifacts.spec_to_json(SPEC),
        "interface": artifacts.interface(SPEC),
        "target": "onnx",
        "precision": str(precision),
        "execution": {"tf32": False},
        "parents": {"source": {"file": None, "sha256": "0", "seed": 0}},
        "recipe": {"passes": []},
        "versions": {},
        "machine": None,
        "parameters": 0,
        "flops": 0,
        "measured": {},
    }


def test_outputs_in_pixels_may_differ_by_the_rounding_of_pixels(accepted: Accept) -> None:
    assert accepted(_scaled(200), _scaled(200 * (1 + 4e-6))) is None


def test_the_same_difference_is_refused_for_fractions(accepted: Accept) -> None:
    with pytest.raises(NotReproduced, match=r"landmarks are \S+ off, allowed 1e-05 \(it was not written\)"):
        accepted(_scaled(1), _scaled(1 + 4e-5))


def test_a_refusal_states_the_limit_and_the_scale(accepted: Accept) -> None:
    with pytest.raises(NotReproduced, match=r"allowed 0\.00\d+ \(1e-05 x \d+(\.\d+)?, the largest coordinate\)"):
        accepted(_scaled(200), _scaled(200 * (1 + 4e-5)))


def test_an_artefact_is_compared_at_the_batch_size_1(accepted: Accept) -> None:
    other = _model(
        """
        size = Shape <start = 0, end = 1> (sliced)
        alone = Equal (size, one)
        added = Cast <to = 1> (alone)
        points = Add (sliced, added)
        """
    )
    with pytest.raises(NotReproduced, match="at batch 1"):
        accepted(_scaled(1), other)


def test_fp16_has_the_limit_of_verify_on_the_inputs_of_verify(accepted: Accept) -> None:
    with pytest.raises(NotReproduced, match=r"points are \S+ px off, allowed 0\.1 px"):
        accepted(_scaled(1), _scaled(1 + 1.1e-2), Precision.FP16)
    assert accepted(_scaled(1), _scaled(1 + 2e-3), Precision.FP16) is None


def test_a_point_that_jumps_in_the_network_itself_is_undecided(accepted: Accept) -> None:
    first = """
        pair = Concat <axis = 1> (sliced, sliced)
        place = ArgMax <axis = 1, keepdims = 1, select_last_index = LAST> (pair)
        cells = Cast <to = 1> (place)
        unit = Constant <value = float[1] {0.0625}> ()
        jump = Mul (cells, unit)
        two = Constant <value = int64[1] {2}> ()
        rest = Slice (sliced, two, nine, one)
        points = Concat <axis = 1> (jump, jump, rest)
    """
    undecided = accepted(_model(first.replace("LAST", "0")), _model(first.replace("LAST", "1")))
    assert isinstance(undecided, np.ndarray)
    assert undecided[:, 0].all()
    assert not undecided[:, 1:].any()


def test_int8_is_judged_by_the_mean_on_noise_where_single_values_saturate(accepted: Accept) -> None:
    base = "flat = Constant <value = float[8] {0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5}> () "
    source = _model(base + "part = Sub (sliced, sliced) points = Add (part, flat)")
    one = "bent = Constant <value = float[8] {1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5}> () "
    every = "bent = Constant <value = float[8] {1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0}> () "
    accepted(source, _model(one + "part = Sub (sliced, sliced) points = Add (part, bent)"), Precision.INT8)
    with pytest.raises(NotReproduced, match=r"landmarks are 0\.5 off, allowed 0\.2"):
        accepted(source, _model(every + "part = Sub (sliced, sliced) points = Add (part, bent)"), Precision.INT8)
    with pytest.raises(NotReproduced, match=r"landmarks are 0\.5 off"):
        accepted(source, _model(one + "part = Sub (sliced, sliced) points = Add (part, bent)"), Precision.FP16)
