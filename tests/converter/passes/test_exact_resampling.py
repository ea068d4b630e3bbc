"""Resampling as products with constant matrices: the same numbers in ONNX Runtime, and right ones in OpenVINO."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import openvino
import pytest

from lmconv.graph.facts import copied
from lmconv.inference.ort import OrtSession
from lmconv.passes.exact_resampling import plugin
from lmconv.types import Float32, PassContext, landmark_spec

CONTEXT = PassContext(spec=landmark_spec("tiny", "tiny", size=(16, 12), landmarks=1))
PICTURES = np.random.default_rng(0).standard_normal((1, 3, 16, 12)).astype(np.float32)


def _resized(attributes: str, inputs: str = "input, none, none, size", size: str = "1, 3, 9, 7") -> onnx.ModelProto:
    return _model(f"maps = Resize <{attributes}> ({inputs})", f"int64[4] size = {{{size}}}")


def _model(nodes: str, *constants: str) -> onnx.ModelProto:
    values = f"<{', '.join(constants)}>" if constants else ""
    text = f"""<ir_version: 10, opset_import: ["" : 18]>
    tiny (float[N, 3, 16, 12] input) => (float[N, c, h, w] maps) {values} {{ {nodes} }}"""
    return onnx.parser.parse_model(text.replace("none", ""))


CASES = {
    "antialias": _resized('mode = "linear", antialias = 1, coordinate_transformation_mode = "half_pixel"'),
    "bicubic antialias": _resized('mode = "cubic", antialias = 1, coordinate_transformation_mode = "half_pixel"'),
    "bicubic": _resized('mode = "cubic", cubic_coeff_a = -0.75', size="1, 3, 24, 20"),
    "bicubic without the outside": _resized('mode = "cubic", exclude_outside = 1', size="1, 3, 24, 20"),
    "corners": _resized('mode = "linear", coordinate_transformation_mode = "align_corners"', size="1, 3, 31, 23"),
    "only rows": _resized('mode = "linear"', size="1, 3, 9, 12"),
    "size from the batch": _model(
        """
        batch = Shape <start = 0, end = 1> (input)
        size = Concat <axis = 0> (batch, rest)
        maps = Resize <mode = "linear", antialias = 1> (input, none, none, size)
        """,
        "int64[3] rest = {3, 9, 7}",
    ),
    "rows and columns named": _model(
        'maps = Resize <mode = "linear", antialias = 1, axes = [2, 3]> (input, none, none, size)',
        "int64[2] size = {9, 7}",
    ),
    "factors": _model(
        'maps = Resize <mode = "linear", antialias = 1> (input, none, factors)', "float[4] factors = {1, 1, 0.4, 0.7}"
    ),
    "average of a border": _model(
        "maps = AveragePool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1], ceil_mode = 1,"
        " count_include_pad = 1> (input)"
    ),
}


def _run(model: onnx.ModelProto) -> Float32:
    with OrtSession(model.SerializeToString()) as session:
        result: Float32 = session.run({"input": PICTURES})["maps"]
    return result


@pytest.mark.parametrize("model", CASES.values(), ids=CASES)
def test_products_with_matrices_compute_the_same(model: onnx.ModelProto) -> None:
    result, decisions = plugin.apply(copied(model), CONTEXT)
    assert [node.op_type for node in result.graph.node] == ["MatMul", "MatMul"]
    assert len(decisions["layers"]) == 1
    expected = _run(model)
    assert _run(result) == pytest.approx(expected, abs=1e-6 * float(np.abs(expected).max()))


@pytest.mark.parametrize("model", CASES.values(), ids=CASES)
def test_openvino_computes_the_products_right(model: onnx.ModelProto) -> None:
    result, _ = plugin.apply(copied(model), CONTEXT)
    core: Any = openvino.Core()
    compiled = core.compile_model(
        core.read_model(result.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    expected = _run(model)
    assert compiled({"input": PICTURES})[0] == pytest.approx(expected, abs=2e-6 * float(np.abs(expected).max()))


@pytest.mark.parametrize(
    "model",
    [_resized('mode = "nearest"'), _resized('mode = "linear"', size="1, 6, 16, 12")],
    ids=["nearest", "channels"],
)
def test_other_resampling_stays(model: onnx.ModelProto) -> None:
    result, decisions = plugin.apply(copied(model), CONTEXT)
    assert result == model
    assert decisions == {"layers": []}
