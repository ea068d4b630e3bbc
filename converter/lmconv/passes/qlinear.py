"""Writes QLinearConv and QLinearMatMul as the float operator between DequantizeLinear and QuantizeLinear.

OpenVINO reads these pairs and computes in int8. OpenVINO refuses a QLinearConv with one scale per output channel, the
usual form. TensorRT reads neither operator. ONNX Runtime fuses the nodes again, so the integers stay the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from lmconv.opsets.microsoft.quantised import dequantised, quantised
from lmconv.opsets.rewriting import Call, Rules, rewrite
from lmconv.types import FLOAT16_ROUNDING, Json, Pass, PassContext

OUTPUT = 6
"""Index of the input that is the scale of the output; the zero point follows."""


def qlinear(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Replaces the operators, in subgraphs too."""
    return model, {"replaced": dict(sorted(rewrite(model, RULES).items()))}


def _conv(call: Call) -> Sequence[str]:
    """QLinearConv; the int32 bias has the scale of the input times the scale of the weights, and no zero point."""
    inputs = [dequantised(call, 0, axis=0), dequantised(call, 3, axis=0)]
    if call.input(8):
        inputs.append(call.add("DequantizeLinear", call.input(8), _product(call, 1, 4), axis=0))
    return [quantised(call, call.add("Conv", *inputs, **call.settings), OUTPUT)]


def _product(call: Call, first: int, second: int) -> str:
    """Returns the product of two scales: a constant if both are constants."""
    scale, other = call.known(first), call.known(second)
    if scale is None or other is None:
        return call.add("Mul", call.input(first), call.input(second))
    product = scale * other
    return call.constant(product.reshape(()) if product.size == 1 else product.ravel())


def _matmul(call: Call) -> Sequence[str] | None:
    """QLinearMatMul; None for scales per row or column of a matrix of unknown rank."""
    sides = []
    for index, axis_from_end in ((0, 2), (3, 1)):
        scale, rank = call.facts.shapes.get(call.input(index + 1)), call.facts.rank(call.input(index)) or 0
        one = scale in ((), (1,))
        if not one and rank < axis_from_end:
            return None
        sides.append(dequantised(call, index, axis=0 if one else rank - axis_from_end))
    return [quantised(call, call.add("MatMul", *sides), OUTPUT)]


RULES: Rules = {("", "QLinearConv"): _conv, ("", "QLinearMatMul"): _matmul}

plugin = Pass(
    name="qlinear",
    summary="QLinearConv and QLinearMatMul as float operators between Q/DQ pairs",
    apply=qlinear,
    tolerance=FLOAT16_ROUNDING,
)
