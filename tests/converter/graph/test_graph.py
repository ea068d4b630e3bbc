"""FLOPs of a graph, and nodes written as text."""

from __future__ import annotations

import numpy as np
import pytest
from tests.converter.passes.building import node, normal, small

from lmconv.graph.facts import flops, parse_nodes

CONV = 2 * 4 * 4 * 4 * (8 * 3 * 3)
"""FLOPs of a 3 x 3 convolution from 8 channels of 6 x 6 to 4 channels of 4 x 4."""


def test_a_multiply_accumulate_counts_as_two_operations() -> None:
    assert flops(small([node("Conv", "x weight", "y")], {"weight": normal(4, 8, 3, 3)})) == CONV


@pytest.mark.parametrize(("kind", "weight"), [("MatMul", normal(6, 6)), ("ConvTranspose", normal(8, 4, 3, 3))])
def test_a_layer_after_a_sequence_without_known_shape_is_not_counted(kind: str, weight: np.ndarray) -> None:
    nodes = [
        node("Conv", "x weight", "a"),
        node("SplitToSequence", "x", "parts", axis=1),
        node("ConcatFromSequence", "parts", "whole", axis=1),
        node(kind, "whole other", "b"),
        node("ReduceMean", "b", "mean", keepdims=0),
        node("Add", "a mean", "y"),
    ]
    assert flops(small(nodes, {"weight": normal(4, 8, 3, 3), "other": weight})) == CONV


def test_nodes_are_parsed_under_a_prefix_with_any_letters() -> None:
    nodes, tensors = parse_nodes("sum = Add (x, ONE)", {"ONE": 1.0}, {"x": "/a/x 1"}, "/größe/v")
    assert [(list(node.input), list(node.output)) for node in nodes] == [
        (["/a/x 1", "/größe/v_one_"], ["/größe/v_sum"])
    ]
    assert [tensor.name for tensor in tensors] == ["/größe/v_one_"]
