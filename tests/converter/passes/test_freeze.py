"""The pass `freeze` makes channels constant that hardly change on faces, within a bound on the landmarks."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tests.converter.compaction.building import SIZE, Net

from lmconv.compaction.compact import compact
from lmconv.errors import UsageError
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import landmarks
from lmconv.passes.freeze import freeze
from lmconv.types import Float32, PassContext, landmark_spec

SPEC = landmark_spec("net", "onnx", size=(SIZE, SIZE), landmarks=4)
QUIET = (1, 4, 5)
"""Channels of the first layer with small filters; each filter is ten times smaller than the previous filter."""


@pytest.fixture
def crops() -> Float32:
    return np.random.default_rng(0).uniform(0, 1, (30, 3, SIZE, SIZE)).astype(np.float32)


def network(scale: float) -> onnx.ModelProto:
    net = Net()
    data = net.conv("input", 3, 6, name="a")
    weight: NDArray[np.float32] = numpy_helper.to_array(net.constants[0]).copy()
    for place, channel in enumerate(QUIET):
        weight[channel] *= scale / 10**place
    net.constants[0].CopyFrom(numpy_helper.from_array(weight, "a.1"))
    data = net.node("Flatten", net.node("GlobalAveragePool", net.conv(net.node("Relu", data), 6, 8, name="b")))
    data = net.node("Gemm", data, net.weight(8, 8), net.bias(8), name="fc", transB=1)
    net.node("Reshape", data, np.array([-1, 4, 2]), name="landmarks")
    model = net.model("landmarks")
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, ["N", 4, 2]))
    return model


def moved(before: onnx.ModelProto, after: onnx.ModelProto, crops: Float32) -> float:
    """Largest distance of a landmark between two graphs, pixels."""
    with OrtSession(before.SerializeToString()) as a, OrtSession(after.SerializeToString()) as b:
        difference = landmarks(a, SPEC, crops) - landmarks(b, SPEC, crops)
    return float(np.linalg.norm(difference * SIZE, axis=-1).max())


def context(crops: Float32 | None, bound: float | None) -> PassContext:
    return PassContext(spec=SPEC, crops=crops, compact_px=bound)


def test_quiet_channels_become_constant_and_compaction_folds_them(crops: Float32) -> None:
    model = network(1e-5)
    frozen, decisions = freeze(model, context(crops, 0.001))
    assert decisions["channels"] == 3
    assert max(decisions["moved_px"].values()) <= 0.001
    compacted = compact(frozen)
    assert compacted.layers[0].channels == (6, 3)
    assert 0 < moved(model, compacted.model, crops) <= 0.001


def test_zero_instead_of_the_mean_moves_landmarks(crops: Float32) -> None:
    """With zero instead of the mean of a channel, landmarks move by much more than the bound."""
    model = network(1e-5)
    zeroed = onnx.ModelProto()
    zeroed.CopyFrom(model)
    for tensor in zeroed.graph.initializer:
        if tensor.name in ("a.1", "a.2"):
            values = numpy_helper.to_array(tensor).copy()
            values[list(QUIET)] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    assert moved(model, zeroed, crops) > 0.01


def test_a_tighter_bound_freezes_fewer_channels(crops: Float32) -> None:
    counts = [freeze(network(1e-2), context(crops, bound))[1]["channels"] for bound in (1e-6, 1e-3, 1e-1)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_a_channel_that_never_changes_is_not_frozen(crops: Float32) -> None:
    model = network(0.0)
    frozen, _ = freeze(model, context(crops, 0.001))
    assert "a_frozen_weight" not in {tensor.name for tensor in frozen.graph.initializer}
    assert compact(frozen).layers[0].channels == (6, 3)


def test_the_bound_is_checked_on_other_faces() -> None:
    """The number of channels is chosen on the first third of the shuffled faces, and checked on the other faces."""
    crops = np.random.default_rng(0).uniform(0, 1, (30, 3, SIZE, SIZE)).astype(np.float32)
    crops[10:] *= 300  # quiet channels of the first ten faces are not quiet on the other faces
    model = network(1e-5)
    frozen, decisions = freeze(model, context(crops, 0.001))
    assert decisions["faces"] == {"calibration": 10, "check": 20}
    assert decisions["channels"] < 3
    assert moved(model, frozen, crops) <= 0.001


@pytest.mark.parametrize(("given", "bound"), [(False, 0.001), (True, None)])
def test_faces_and_a_bound_are_required(crops: Float32, given: bool, bound: float | None) -> None:
    with pytest.raises(UsageError, match="real faces"):
        freeze(network(1e-5), context(crops if given else None, bound))
