"""The part of a graph that computes one value, as a model of its own."""

from __future__ import annotations

import numpy as np
import onnx

from lmconv.blaming.reproduction import Part
from lmconv.inference.probe import OrtProbe


def test_a_part_with_float16_inside_takes_float32_inputs() -> None:
    graph = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 18]>
        half (float[N, 4] x) => (float[N, 4] y) {
            a = Cast <to = 10> (x)
            b = Relu (a)
            y = Cast <to = 1> (b)
        }"""
    )
    part = Part(graph=graph, nodes=[graph.graph.node[1]], reads=["a"], name="b")
    a = np.array([[-1, 0, 1, 2.001]], np.float32)
    result = OrtProbe(part.model({"a": a})).run({"a": a}, ["b"])["b"]
    assert result.dtype == np.float16
    np.testing.assert_array_equal(result, np.maximum(a, 0).astype(np.float16))
