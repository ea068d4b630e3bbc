"""Points that jump in the source network when its input is rounded."""

from __future__ import annotations

import numpy as np
import pytest

from lmconv.inference.ort import OrtSession
from lmconv.inference.ties import jumps, ties
from lmconv.networks.outputs import Outputs
from lmconv.types import Arrays, Float32, Precision, landmark_spec

SPEC = landmark_spec("tiny", "tiny", size=(4, 4), landmarks=3)


class Decoder:
    """Three points of a 4x4 picture: the place of the largest pixel of a row, and two smooth means."""

    execution_mismatch = ""

    def run(self, inputs: Arrays) -> dict[str, Float32]:
        picture = inputs["input"]
        place = picture[:, 0, 0].argmax(-1) / 4
        means = [picture.mean((1, 2, 3)), picture[:, 1].mean((1, 2))]
        points = np.stack([place, *means], 1).astype(np.float32)
        return {"landmarks": np.repeat(points[..., None], 2, -1)}

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None: ...


def _picture(second: float) -> Float32:
    picture = np.linspace(0, 0.9, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    picture[0, 0, 0] = (0.0, 1.0, 0.0, second)
    return picture


def test_an_arg_max_between_equal_candidates_jumps() -> None:
    moved = jumps(Decoder(), SPEC, _picture(second=1.0), Precision.FP32)
    assert moved[0].tolist() == [pytest.approx(0.5), 0, 0]


def test_an_arg_max_of_a_clear_maximum_does_not_jump() -> None:
    assert not jumps(Decoder(), SPEC, _picture(second=0.9), Precision.FP16).any()


def test_candidates_closer_than_the_rounding_of_the_precision_are_a_tie() -> None:
    picture = _picture(second=1 - 2**-12)
    assert not jumps(Decoder(), SPEC, picture, Precision.FP32).any()
    assert jumps(Decoder(), SPEC, picture, Precision.FP16)[0, 0] == pytest.approx(0.5)


@pytest.mark.parametrize(("x", "tie"), [(0.75, True), (0.25, False), (1.9, False)])
def test_a_tie_is_a_difference_of_the_size_of_the_jump(x: float, tie: bool) -> None:
    expected = Outputs(landmarks=np.full((1, 3, 2), 0.25, np.float32))
    actual = Outputs(landmarks=np.full((1, 3, 2), 0.25, np.float32))
    actual.landmarks[0, 0] = x
    actual.landmarks[0, 1] = 0.3  # a smooth point that is off is never a tie
    assert ties(actual, expected, np.array([[0.5, 0, 0]]), 1e-5).tolist() == [[tie, False, False]]


def test_a_network_of_smooth_points_has_no_ties(plain_points: bytes) -> None:
    inputs = np.random.default_rng(0).random((4, 3, 8, 8), np.float32)
    with OrtSession(plain_points) as session:
        assert not jumps(session, landmark_spec("tiny", "tiny", size=(8, 8), landmarks=5), inputs, Precision.FP16).any()


@pytest.fixture
def plain_points() -> bytes:
    import onnx

    model: bytes = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 18]>
        points (float[N, 3, 8, 8] input) => (float[N, 5, 2] landmarks) <int64[3] shape = {-1, 5, 2}> {
            flat = Flatten (input)
            weight = Constant <value = float[1] {0.01}> ()
            size = Constant <value = int64[2] {192, 10}> ()
            wide = Expand (weight, size)
            points = MatMul (flat, wide)
            landmarks = Reshape (points, shape)
        }"""
    ).SerializeToString()
    return model
