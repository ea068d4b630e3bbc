"""Rounding to float16 by arithmetic in float32, for a runtime that removes pairs of Cast."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, shape_inference

from lmconv.graph.index import attribute
from lmconv.graph.rewriter import Rewriter

SPLIT = np.array(2**13 + 1, np.float32)
"""Veltkamp's factor, which keeps the 11 significant bits of float16 (T. J. Dekker, Numer. Math. 18, 1971)."""


def cast_pairs_as_arithmetic(model: onnx.ModelProto) -> None:
    """Replaces each pair of Cast, from float32 to float16 and back, by arithmetic that rounds in the same way.

    Below 2**-14, where float16 has fewer significant bits, a value may differ by 2**-25.

    Args:
        model: Changed in place.
    """
    rewriter = Rewriter(model)
    pairs = []
    for last in rewriter.nodes("Cast"):
        first = rewriter.producer(last.input[0], "Cast")
        if first and [attribute(node, "to", 0) for node in (first, last)] == [TensorProto.FLOAT16, TensorProto.FLOAT]:
            pairs.append((first.input[0], last))
    if not pairs:
        return
    inferred = shape_inference.infer_shapes(model).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    single = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    factor = rewriter.constant("rounding_factor", SPLIT)
    for value, last in pairs:
        if value in single:
            out = last.output[0]
            scaled, rest = rewriter.fresh(f"{out}_scaled"), rewriter.fresh(f"{out}_rest")
            rewriter.replace(
                last,
                helper.make_node("Mul", [value, factor], [scaled], name=scaled),
                helper.make_node("Sub", [scaled, value], [rest], name=rest),
                helper.make_node("Sub", [scaled, rest], [out], name=last.name),
            )
    rewriter.commit()
