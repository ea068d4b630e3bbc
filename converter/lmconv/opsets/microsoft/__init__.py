"""Operators of `com.microsoft`, which ONNX Runtime's optimiser and quantiser write, as standard operators.

Source of the definitions: ONNX Runtime's docs/ContribOperators.md. The new nodes have the form of opset 18.
"""

from __future__ import annotations

from lmconv.opsets.microsoft import adopted, attention, fused, gelu, norms, quantised
from lmconv.opsets.rewriting import MICROSOFT, Rules

RULES: Rules = {
    (MICROSOFT, op): rule
    for rules in (adopted.RULES, attention.RULES, fused.RULES, gelu.RULES, norms.RULES, quantised.RULES)
    for op, rule in rules.items()
}
"""Rule of each operator with a decomposition."""
